import { Body, Controller, Get, NotFoundException, Post, Redirect } from '@nestjs/common';
import { CurrentUserId, RequireIdentity, VisitService, type VisitSummary } from 'nest-visit';
import { browserName } from '../web/browser-name.js';
import { fieldOf, type Form } from '../web/form.js';
import { fact, facts } from '../web/facts.js';
import { html, type Html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import { Pages } from '../web/pages.js';

/** "Where am I signed in?" Visits are told apart by their public ids; nobody but their browsers ever sees a key. */
@RequireIdentity()
@Controller('visits')
export class VisitsController {
  constructor(
    private readonly pages: Pages,
    private readonly visits: VisitService,
  ) {}

  @Get()
  @HtmlPage()
  async list(@CurrentUserId() userId: string): Promise<string> {
    const texts = this.pages.texts.visits;
    const visits = await this.visits.listForUser(userId);
    return this.pages.render({
      place: 'visits',
      title: texts.title,
      body: html` <p class="intro">${texts.intro}</p>
        <ul class="cards">
          ${visits.map((visit) => this.card(visit))}
        </ul>
        ${
          visits.length === 1
            ? html`<p class="hint">${texts.none}</p>`
            : html`<form method="post" action="/visits/end-others">
                <button class="danger">${texts.endOthers}</button>
              </form>`
        }`,
    });
  }

  @Post('end')
  @Redirect('/visits', 303)
  async end(@Body() form: Form): Promise<void> {
    // Ends none but this user's own.
    if (!(await this.visits.end(fieldOf(form, 'id')))) throw new NotFoundException();
    this.pages.notify(this.pages.texts.visits.ended);
  }

  @Post('end-others')
  @Redirect('/visits', 303)
  async endOthers(): Promise<void> {
    const count = await this.visits.endOthers();
    this.pages.notify(this.pages.texts.visits.othersEnded(count));
  }

  private card(visit: VisitSummary): Html {
    const texts = this.pages.texts.visits;
    const heading = `visit-${visit.id}`;
    return html` <li class="card visit" ${visit.isCurrent && html`aria-current="true"`}>
      <h2 id="${heading}">
        ${browserName(visit.userAgent)} ${visit.isCurrent && html`<span class="badge">${texts.current}</span>`}
        ${visit.permanent && html`<span class="badge quiet">${texts.permanent}</span>`}
      </h2>
      ${facts(
        fact(texts.created, this.pages.time(visit.created)),
        fact(texts.accessed, this.pages.time(visit.accessed)),
        fact(texts.address, visit.remoteAddress),
        fact(texts.id, html`<code>${visit.id}</code>`),
      )}
      ${
        !visit.isCurrent &&
        html`<form method="post" action="/visits/end">
          <input type="hidden" name="id" value="${visit.id}" />
          <button class="quiet" aria-describedby="${heading}">${texts.end}</button>
        </form>`
      }
    </li>`;
  }
}
