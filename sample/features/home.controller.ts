import { Controller, Get, Post, Redirect } from '@nestjs/common';
import { CurrentVisit, IdentityService, Session } from 'nest-visit';
import type { User } from '../users.js';
import { browserName } from '../web/browser-name.js';
import { html, type Html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import { Pages } from '../web/pages.js';
import type { Texts } from '../web/texts.js';
import { BrowserCount } from './browser-count.plugin.js';
import { CounterService } from './counter.service.js';

/** Who am I to this server? And a counter, the oldest example of a session. */
@Controller()
export class HomeController {
  constructor(
    private readonly pages: Pages,
    private readonly counter: CounterService,
    private readonly browsers: BrowserCount,
    private readonly identity: IdentityService,
  ) {}

  @Get()
  @HtmlPage()
  async home(@Session() session: Session<{ visited: number }>, @CurrentVisit() visit: CurrentVisit): Promise<string> {
    const visited = session.get('visited', 0) + 1;
    session.set('visited', visited);

    const texts = this.pages.texts.home;
    const user = await this.identity.user<User>();
    return this.pages.render({
      place: 'home',
      title: texts.title,
      body: html`
        <section class="card" aria-labelledby="visit">
          <h2 id="visit">${texts.visit}</h2>
          <dl class="facts">
            <div><dt>${texts.id}</dt><dd><code id="visit-id">${visit.id}</code> <small>${texts.idHint}</small></dd></div>
            <div><dt>${texts.known}</dt><dd id="known">${visit.isNew ? texts.isNew : texts.isKnown}</dd></div>
            <div><dt>${texts.user}</dt><dd id="user">${user?.name ?? texts.nobody}</dd></div>
            <div><dt>${texts.begun}</dt><dd>${this.pages.time(visit.created)}</dd></div>
            <div><dt>${texts.ends}</dt><dd>${this.pages.time(visit.expiry)} <small>${texts.endsHint}</small></dd></div>
            <div><dt>${texts.kept}</dt><dd id="kept">${visit.permanent ? texts.permanent : texts.temporary}</dd></div>
            <div><dt>${texts.address}</dt><dd>${visit.remoteAddress}</dd></div>
            <div><dt>${texts.browser}</dt><dd>${browserName(visit.userAgent)}</dd></div>
          </dl>
        </section>
        <div class="columns">
          <section class="card" aria-labelledby="counter">
            <h2 id="counter">${texts.counter}</h2>
            <p class="count"><strong id="clicks">${this.counter.count}</strong> ${texts.clicks(this.counter.count)}</p>
            <div class="actions">
              <form method="post" action="/counter/add"><button>${texts.addOne}</button></form>
              <form method="post" action="/counter/reset"><button class="quiet">${texts.reset}</button></form>
            </div>
            <p id="opened">${texts.opened(visited)}</p>
          </section>
          <section class="card" aria-labelledby="browsers">
            <h2 id="browsers">${texts.browsers}</h2>
            ${this.browserTable(texts)}
            <p><small>${texts.browsersHint}</small></p>
          </section>
        </div>`,
    });
  }

  @Post('counter/add')
  @Redirect('/', 303)
  async addOne(): Promise<void> {
    await this.counter.addOne();
  }

  @Post('counter/reset')
  @Redirect('/', 303)
  reset(): void {
    this.counter.reset();
  }

  private browserTable({ noBrowsers, otherBrowser }: Texts['home']): Html {
    const ranking = this.browsers.ranking();
    if (ranking.length === 0) return html`<p>${noBrowsers}</p>`;
    const most = ranking[0]![1];
    return html`<table class="ranking" aria-labelledby="browsers">${ranking.map(
      ([family, count]) => html`
        <tr>
          <th scope="row">${family === '?' ? otherBrowser : family}</th>
          <td>${count}</td>
          <td aria-hidden="true"><meter max="${most}" value="${count}"></meter></td>
        </tr>`,
    )}</table>`;
  }
}
