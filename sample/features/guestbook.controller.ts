import { Body, Controller, Get, Post, Redirect } from '@nestjs/common';
import { FormTokenService, RequireFormToken, Session } from 'nest-visit';
import { fieldOf, type Form } from '../web/form.js';
import { Html, html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import type { Page } from '../web/layout.js';
import { PageException, Pages } from '../web/pages.js';

interface Entry {
  readonly name: string;
  readonly message: string;
  readonly written: Date;
}

const MOST_ENTRIES = 20;

/** A form in the usual manner: POST, redirect, and a thank-you that is shown once. */
@Controller('guestbook')
export class GuestbookController {
  private readonly entries: Entry[] = [];

  constructor(
    private readonly pages: Pages,
    private readonly formTokens: FormTokenService,
  ) {}

  @Get()
  @HtmlPage()
  async show(@Session() session: Session<{ name: string }>): Promise<string> {
    return this.pages.render(await this.page(session.get('name', ''), ''));
  }

  /** A form that is sent twice, by a second click or the way back, is written once: its token is used up. */
  @Post()
  @RequireFormToken()
  @Redirect('/guestbook', 303)
  async write(@Session() session: Session<{ name: string }>, @Body() form: Form): Promise<void> {
    const name = fieldOf(form, 'name').trim();
    const message = fieldOf(form, 'message').trim();
    if (!name || !message || name.length > 40 || message.length > 500) {
      throw new PageException(400, await this.page(name, message, true));
    }
    this.entries.unshift({ name, message, written: new Date() });
    this.entries.splice(MOST_ENTRIES);
    session.set('name', name);
    // `session.flash(…)`: the page after the redirect takes it out again, see Pages.render.
    this.pages.notify(this.pages.texts.guestbook.thanks(name));
  }

  private async page(name: string, message: string, incomplete = false): Promise<Page> {
    const texts = this.pages.texts.guestbook;
    const token = new Html(await this.formTokens.hiddenField());
    return {
      place: 'guestbook',
      title: texts.title,
      body: html` <p class="intro">${texts.intro}</p>
        ${incomplete && html`<p class="warning" role="alert">${texts.incomplete}</p>`}
        <form method="post" action="/guestbook" class="card">
          ${token}
          <label>${texts.name} <input name="name" value="${name}" maxlength="40" autocomplete="name" required /></label>
          <label
            >${texts.message} <textarea name="message" maxlength="500" rows="3" required>${message}</textarea>
          </label>
          <button>${texts.send}</button>
        </form>
        ${this.entries.length === 0 && html`<p class="hint">${texts.empty}</p>`}
        <ul class="cards" id="entries">
          ${this.entries.map(
            (entry) =>
              html` <li class="card entry">
                <p>${entry.message}</p>
                <p>
                  <small><b>${entry.name}</b>, ${this.pages.time(entry.written)}</small>
                </p>
              </li>`,
          )}
        </ul>`,
    };
  }
}
