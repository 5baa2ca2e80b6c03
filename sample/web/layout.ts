import type { User } from '../users.js';
import { assets } from './assets.controller.js';
import { html, type Html } from './html.js';
import { languages, type Language } from './texts.js';

export const themes = ['auto', 'light', 'dark'] as const;

export interface Preferences {
  readonly language: Language;
  readonly theme: (typeof themes)[number];
}

const menu = {
  home: '/',
  preferences: '/preferences',
  visits: '/visits',
  guestbook: '/guestbook',
  withoutCookies: '/without-cookies',
};

export interface Page {
  /** Where in the menu it is, if anywhere. */
  readonly place?: keyof typeof menu | 'signIn';
  readonly title: string;
  readonly body: Html;
}

interface WholePage extends Page, Preferences {
  /** Shown above the rest. */
  readonly notice?: string;
  /** Who is signed in. */
  readonly user: User | null;
}

/** The whole page: what all of them have around what each has. */
export function layout(page: WholePage): string {
  const { place, title, body, language, theme, notice, user } = page;
  const { site, nav, skipToContent, signOut, menuLabel, footer } = languages[language].layout;
  const current = html`aria-current="page"`;
  const places = Object.keys(menu) as (keyof typeof menu)[];
  return html`<!doctype html>
    <html lang="${language}" data-theme="${theme}">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="${theme === 'auto' ? 'light dark' : theme}" />
        <title>${title} · ${site}</title>
        <link rel="stylesheet" href="${assets.stylesheet}" />
        <link rel="icon" href="${assets.icon}" type="image/svg+xml" />
      </head>
      <body>
        <a class="skip" href="#content">${skipToContent}</a>
        <header>
          <div class="bar">
            <a class="brand" href="/"><img src="${assets.icon}" alt="" width="28" height="28" />${site}</a>
            <div class="account">
              ${
                user
                  ? html`<span class="user">${user.name}</span>
                      <form method="post" action="/sign-out"><button class="quiet">${signOut}</button></form>`
                  : html`<a class="button quiet" href="/sign-in" ${place === 'signIn' && current}>${nav.signIn}</a>`
              }
            </div>
            <nav aria-label="${menuLabel}">
              <ul>
                ${places.map((one) => html`<li><a href="${menu[one]}" ${one === place && current}>${nav[one]}</a></li>`)}
              </ul>
            </nav>
          </div>
        </header>
        <main id="content" tabindex="-1">
          ${notice && html`<p class="notice" role="status">${notice}</p>`}
          <h1>${title}</h1>
          ${body}
        </main>
        <footer><p>${footer}</p></footer>
      </body>
    </html> `.text;
}
