import { Controller, Get, Post, Redirect } from '@nestjs/common';
import { CurrentVisit, IdentityService } from 'nest-visit';
import { fact, facts } from '../web/facts.js';
import { Html, html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import { Pages } from '../web/pages.js';
import { CounterService } from './counter.service.js';

const PATH = '/without-cookies';

/**
 * The link mode: the key travels in the links and forms of the page. Needs `source: 'cookie, form'`. With its key in
 * them, answers get `Referrer-Policy: no-referrer` and `Cache-Control: no-store` by themselves.
 */
@Controller(PATH)
export class WithoutCookiesController {
  constructor(
    private readonly pages: Pages,
    private readonly counter: CounterService,
    private readonly identity: IdentityService,
  ) {}

  @Get()
  @HtmlPage()
  show(@CurrentVisit() visit: CurrentVisit): Promise<string> {
    const texts = this.pages.texts.withoutCookies;
    return this.pages.render({
      place: 'withoutCookies',
      title: texts.title,
      body: html` <p class="intro">${texts.intro}</p>
        ${
          // The key of somebody who is signed in is worth stealing. It stays in the cookie.
          this.identity.userId === null
            ? html` <div class="warning" role="note">
                  <p><strong>${texts.warning}</strong></p>
                  <p>${texts.warningText}</p>
                </div>
                <section class="card">
                  ${facts(fact(texts.visit, html`<code id="visit-id">${visit.id}</code>`), fact(texts.count, this.counter.count, 'clicks'))}
                  <form method="post" action="${PATH}/add" class="actions">
                    ${new Html(visit.hiddenField())}
                    <button>${texts.addOne}</button>
                    <a class="button quiet" href="${visit.link(PATH)}">${texts.follow}</a>
                  </form>
                </section>
                <p class="hint">${texts.hint}</p>`
            : html`<p class="notice">${texts.signedIn}</p>`
        }`,
    });
  }

  @Post('add')
  @Redirect(PATH, 303)
  async addOne(@CurrentVisit() visit: CurrentVisit): Promise<{ url: string } | undefined> {
    await this.counter.addOne();
    return this.identity.userId === null ? { url: visit.link(PATH) } : undefined;
  }
}
