import { inspect } from 'node:util';
import { VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitState } from './request.context.js';

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => ESCAPES[character]!);

/** Where a view looks: a request, or one visit as it was made. */
export interface ViewedVisit {
  readonly environment: { readonly options: ResolvedVisitOptions };
  requireVisit(): VisitState;
  /** A link or field with the key has been made. */
  noteKeyInPage(): void;
}

/** The visit of the request that is being served. Follows it through sign-in and sign-out. */
export class VisitView {
  readonly #viewed: ViewedVisit;

  /** @internal */
  constructor(viewed: ViewedVisit) {
    this.#viewed = viewed;
  }

  get #state(): VisitState {
    return this.#viewed.requireVisit();
  }

  /** The public id: 32 hexadecimal digits; may be listed and logged. */
  get id(): string {
    return this.#state.record.id;
  }

  /** The key itself, a secret of its client. Not enumerable, so that no log shows it by accident. */
  get key(): string {
    return this.#state.key.text;
  }

  /** Whether the visit began with this request. */
  get isNew(): boolean {
    return this.#state.isNew;
  }

  get created(): Date {
    return new Date(this.#state.record.created);
  }

  /** When the visit was used before this request, to within `touch.resolution`. */
  get accessed(): Date {
    return new Date(this.#state.record.accessed);
  }

  /** When the visit ends unless it is used again. */
  get expiry(): Date {
    return new Date(this.#state.record.expiry);
  }

  get permanent(): boolean {
    return this.#state.record.permanent;
  }

  /** The address the visit began at, or null. A hint, never a proof. */
  get remoteAddress(): string | null {
    return this.#state.record.remoteAddress;
  }

  /** The browser the visit began with, or null. A hint, never a proof. */
  get userAgent(): string | null {
    return this.#state.record.userAgent;
  }

  /** Milliseconds since the visit began. */
  age(): number {
    return this.#viewed.environment.options.clock.now() - this.#state.record.created;
  }

  /** Milliseconds since the visit was used before this request. */
  idle(): number {
    return this.#viewed.environment.options.clock.now() - this.#state.record.accessed;
  }

  /**
   * The address with the key in its query, for clients without cookies. Percent-encoded; in HTML it has to be escaped
   * like every attribute. The response gets `Referrer-Policy: no-referrer` and `Cache-Control: no-store`.
   *
   * @param url a path of this site, such as `/cart?page=2#top`
   * @throws VisitError `VISIT_SOURCE_OFF` unless the source `query` is on, or for an address of another site: the key
   *   would leak there
   */
  link(url: string): string {
    this.requireSource('query');
    const base = 'http://visit.invalid';
    const target = URL.canParse(url, base) ? new URL(url, base) : null;
    // "/.//other.example" is a path of this site whose short form is not.
    const isOurs =
      target?.origin === base && target.username === '' && target.password === '' && !target.pathname.startsWith('//');
    if (!isOurs) {
      throw new VisitError(
        'VISIT_SOURCE_OFF',
        'link() needs a path of this site, such as "/cart", because the key would leak to another site, got ' +
          JSON.stringify(url),
      );
    }
    target.searchParams.set(this.#viewed.environment.options.paramName[0], this.key);
    this.#viewed.noteKeyInPage();
    return `${target.pathname}${target.search}${target.hash}`;
  }

  /**
   * `<input type="hidden" …>` with the key, escaped, for a form of a client without cookies.
   *
   * @throws VisitError `VISIT_SOURCE_OFF` unless the source `body` is on
   */
  hiddenField(): string {
    this.requireSource('body');
    this.#viewed.noteKeyInPage();
    return (
      `<input type="hidden" name="${escapeHtml(this.#viewed.environment.options.paramName[0])}" ` +
      `value="${escapeHtml(this.key)}">`
    );
  }

  /** What may be shown; without the key. */
  toJSON(): Record<string, unknown> {
    const { id, isNew, created, accessed, expiry, permanent, remoteAddress, userAgent } = this;
    return { id, isNew, created, accessed, expiry, permanent, remoteAddress, userAgent };
  }

  [inspect.custom](): unknown {
    return this.toJSON();
  }

  private requireSource(source: 'query' | 'body'): void {
    if (this.#viewed.environment.options.source.includes(source)) return;
    throw new VisitError(
      'VISIT_SOURCE_OFF',
      `a key in the ${source} would not be read: set the option source: 'cookie, ${source}'`,
    );
  }
}
