import { inspect } from 'node:util';
import { VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitState } from './request.context.js';

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => ESCAPES[character]!);

/** What a view shows: the current visit of a request, or one particular visit. */
export interface ViewedVisit {
  readonly environment: { readonly options: ResolvedVisitOptions };
  requireVisit(): VisitState;
  /** Called when a link or a form field with the key was created. */
  noteKeyInPage(): void;
}

/** The visit of the current request. After a sign-in or sign-out, it shows the new state. */
export class VisitView {
  readonly #viewed: ViewedVisit;

  /** @internal */
  constructor(viewed: ViewedVisit) {
    this.#viewed = viewed;
  }

  get #state(): VisitState {
    return this.#viewed.requireVisit();
  }

  /** The public id: 32 hexadecimal digits. It can be listed and logged. */
  get id(): string {
    return this.#state.record.id;
  }

  /** The key, which is a secret of the client. The property is not enumerable, so that it is not logged by accident. */
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

  /** When the visit was last used before this request, with the precision of `touch.resolution`. */
  get accessed(): Date {
    return new Date(this.#state.record.accessed);
  }

  /** When the visit expires if it is not used again. */
  get expiry(): Date {
    return new Date(this.#state.record.expiry);
  }

  get permanent(): boolean {
    return this.#state.record.permanent;
  }

  /** The address of the client when the visit began, or null. A hint, not a proof. */
  get remoteAddress(): string | null {
    return this.#state.record.remoteAddress;
  }

  /** The User-Agent of the client when the visit began, or null. A hint, not a proof. */
  get userAgent(): string | null {
    return this.#state.record.userAgent;
  }

  /** Milliseconds since the visit began. */
  age(): number {
    return this.#viewed.environment.options.clock.now() - this.#state.record.created;
  }

  /** Milliseconds since the visit was last used before this request. */
  idle(): number {
    return this.#viewed.environment.options.clock.now() - this.#state.record.accessed;
  }

  /**
   * A URL with the key in its query, for clients without cookies. It is percent-encoded; escape it in HTML like every
   * attribute. The response gets `Referrer-Policy: no-referrer` and `Cache-Control: no-store`.
   *
   * @param url a path of this site, such as `/cart?page=2#top`
   * @throws VisitError `VISIT_SOURCE_OFF` if the source `query` is not enabled, or for a URL of another site, to which
   * the key would leak
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
   * A hidden form field with the key, as escaped HTML, for clients without cookies.
   *
   * @throws VisitError `VISIT_SOURCE_OFF` if the source `body` is not enabled
   */
  hiddenField(): string {
    this.requireSource('body');
    this.#viewed.noteKeyInPage();
    return (
      `<input type="hidden" name="${escapeHtml(this.#viewed.environment.options.paramName[0])}" ` +
      `value="${escapeHtml(this.key)}">`
    );
  }

  /** The public properties, without the key. */
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
