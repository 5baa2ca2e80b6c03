import { HttpException, Injectable } from '@nestjs/common';
import { IdentityService, Session, VisitNotResolvedError, VisitStoreUnavailableError } from 'nest-visit';
import type { User } from '../users.js';
import { html, type Html } from './html.js';
import { layout, type Page, type Preferences } from './layout.js';
import { languages, type Texts } from './texts.js';

const defaults: Preferences = { language: 'en', theme: 'auto' };

/** An answer that is a page, and yet an error: such as a form, shown again with what was wrong in it. */
export class PageException extends HttpException {
  constructor(
    status: number,
    readonly page: Page,
  ) {
    super(page.title, status);
  }
}

/**
 * Makes whole pages, in the language and colors of the visitor. One object for all requests; `session` is always that
 * of the one that is served.
 */
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

  /**
   * A page about a problem, also for an address that leads nowhere. Where there is no visit to know, as when the
   * database is away, it is in the default language.
   */
  async renderProblem(makePage: (texts: Texts) => Page): Promise<string> {
    try {
      return layout({ ...makePage(this.texts), ...this.preferences, user: await this.identity.user<User>() });
    } catch (error) {
      if (!(error instanceof VisitNotResolvedError || error instanceof VisitStoreUnavailableError)) throw error;
      return layout({ ...makePage(languages[defaults.language]), ...defaults, user: null });
    }
  }

  /** A moment as text and for machines. */
  time(date: Date): Html {
    const text = new Intl.DateTimeFormat(this.preferences.language, {
      dateStyle: 'medium',
      timeStyle: 'medium',
    }).format(date);
    return html`<time datetime="${date.toISOString()}">${text}</time>`;
  }
}
