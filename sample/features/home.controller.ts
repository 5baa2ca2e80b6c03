import { Controller, Get, Post, Redirect } from '@nestjs/common';
import { CurrentVisit, IdentityService, Session } from 'nest-visit';
import type { User } from '../users.js';
import { browserName } from '../web/browser-name.js';
import { fact, facts } from '../web/facts.js';
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
      body: html` <section class="card" aria-labelledby="visit">
          <h2 id="visit">${texts.visit}</h2>
          ${facts(
            fact(texts.id, html`<code id="visit-id">${visit.id}</code> <small>${texts.idHint}</small>`),
            fact(texts.known, visit.isNew ? texts.isNew : texts.isKnown, 'known'),
            fact(texts.user, user?.name ?? texts.nobody, 'user'),
            fact(texts.begun, this.pages.time(visit.created)),
            fact(texts.ends, html`${this.pages.time(visit.expiry)} <small>${texts.endsHint}</small>`),
            fact(texts.kept, visit.permanent ? texts.permanent : texts.temporary, 'kept'),
            fact(texts.address, visit.remoteAddress),
            fact(texts.browser, browserName(visit.userAgent)),
          )}
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
    return html`<table class="ranking" aria-labelledby="browsers">
      ${ranking.map(
        ([family, count]) =>
          html` <tr>
            <th scope="row">${family === '?' ? otherBrowser : family}</th>
            <td>${count}</td>
            <td aria-hidden="true"><meter max="${most}" value="${count}"></meter></td>
          </tr>`,
      )}
    </table>`;
  }
}
