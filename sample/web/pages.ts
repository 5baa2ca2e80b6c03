import { HttpException, Injectable } from '@nestjs/common';
import { IdentityService, Session, VisitNotResolvedError } from 'nest-visit';
import type { User } from '../users.js';
import { assets } from './assets.controller.js';
import { html, type Html } from './html.js';
import { languages, type Language, type Texts } from './texts.js';

export const themes = ['auto', 'light', 'dark'] as const;

export interface Preferences {
  readonly language: Language;
  readonly theme: (typeof themes)[number];
}

const defaults: Preferences = { language: 'en', theme: 'auto' };

const menu = { home: '/', preferences: '/preferences', visits: '/visits', guestbook: '/guestbook', withoutCookies: '/without-cookies' };

export interface Page {
  /** Where in the menu it is, if anywhere. */
  readonly place?: keyof typeof menu | 'signIn';
  readonly title: string;
  readonly body: Html;
}

/** An answer that is a page, and yet an error: such as a form, shown again with what was wrong in it. */
export class PageException extends HttpException {
  constructor(
    status: number,
    readonly page: Page,
  ) {
    super(page.title, status);
  }
}

/** Makes whole pages, in the language and colours of the visitor. One object for all requests; `session` is always that of the one that is served. */
@Injectable()
export class Pages {
  constructor(
    private readonly session: Session<{ preferences: Preferences; notice: string }>,
    private readonly identity: IdentityService,
  ) {}

  get preferences(): Preferences {
    return this.session.get('preferences', defaults);
  }

  set preferences(preferences: Preferences) {
    this.session.set('preferences', preferences);
  }

  get texts(): Texts {
    return languages[this.preferences.language];
  }

  /** Keeps a message for the next page that is shown, which may be the answer to another request. */
  notify(notice: string): void {
    this.session.flash('notice', notice);
  }

  async render(page: Page): Promise<string> {
    // Taken, not read: of several tabs that load at once, one shows it.
    const notice = this.session.has('notice') ? await this.session.take('notice') : undefined;
    return layout({ ...page, ...this.preferences, notice, user: await this.identity.user<User>() });
  }

  /** A page about a problem. There may be no visit, as when the database is away. */
  async renderProblem(makePage: (texts: Texts) => Page): Promise<string> {
    try {
      return layout({ ...makePage(this.texts), ...this.preferences, user: await this.identity.user<User>() });
    } catch (error) {
      if (!(error instanceof VisitNotResolvedError)) throw error;
      return layout({ ...makePage(languages[defaults.language]), ...defaults, user: null });
    }
  }

  /** A moment as text and for machines. */
  time(date: Date): Html {
    const text = new Intl.DateTimeFormat(this.preferences.language, { dateStyle: 'medium', timeStyle: 'medium' }).format(date);
    return html`<time datetime="${date.toISOString()}">${text}</time>`;
  }
}

function layout({ place, title, body, language, theme, notice, user }: Page & Preferences & { notice?: string; user: User | null }): string {
  const { site, nav, skipToContent, signOut, menuLabel } = languages[language].layout;
  const link = (to: Page['place'], address: string, text: string): Html =>
    html`<a href="${address}"${to === place && html` aria-current="page"`}>${text}</a>`;
  return html`<!doctype html>
<html lang="${language}" data-theme="${theme}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="${theme === 'auto' ? 'light dark' : theme}">
<title>${title} · ${site}</title>
<link rel="stylesheet" href="${assets.stylesheet}">
<link rel="icon" href="${assets.icon}" type="image/svg+xml">
</head>
<body>
<a class="skip" href="#content">${skipToContent}</a>
<header>
  <div class="bar">
    <a class="brand" href="/"><img src="${assets.icon}" alt="" width="28" height="28">${site}</a>
    <div class="account">
      ${
        user
          ? html`<span class="user">${user.name}</span><form method="post" action="/sign-out"><button class="quiet">${signOut}</button></form>`
          : html`<a class="button quiet" href="/sign-in"${place === 'signIn' && html` aria-current="page"`}>${nav.signIn}</a>`
      }
    </div>
    <nav aria-label="${menuLabel}">
      <ul>${(Object.keys(menu) as (keyof typeof menu)[]).map((one) => html`<li>${link(one, menu[one], nav[one])}</li>`)}</ul>
    </nav>
  </div>
</header>
<main id="content" tabindex="-1">
${notice && html`<p class="notice" role="status">${notice}</p>`}
<h1>${title}</h1>
${body}
</main>
<footer><p>${languages[language].layout.footer}</p></footer>
</body>
</html>
`.text;
}
