import type { RequestContext } from '../context/request.context.js';
import { SessionDataError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/** The lifetime of a session's cookie, which can be changed. */
export interface CookieLife {
  /** In milliseconds. Null: until the browser is closed. */
  maxAge: number | null;
  /** The lifetime from the response that sets it. */
  originalMaxAge: number | null;
}

/** The visit that the cookie belongs to. */
export interface PermanentVisit {
  /** Whether it outlives the browser session. */
  isPermanent: boolean;
  /** Called when its cookie should have another lifetime than those of permanent visits. */
  noteOtherLife(): void;
}

/**
 * `request.session.cookie`. Only its lifetime can be set, for this response; the options of the module define
 * everything else.
 */
export class SessionCookie implements CookieLife {
  readonly #context: RequestContext;
  readonly #visit: PermanentVisit;

  constructor(context: RequestContext, visit: PermanentVisit) {
    this.#context = context;
    this.#visit = visit;
  }

  /** The remaining milliseconds; null: until the browser is closed. */
  get maxAge(): number | null {
    const { lifetime } = this.#context.outgoing;
    if (lifetime !== undefined) return lifetime;
    return this.#visit.isPermanent ? this.#context.requireVisit().record.expiry - this.#now : null;
  }

  set maxAge(value: unknown) {
    const { timeout, permanentTimeout } = this.#options;
    const life = value instanceof Date ? value.getTime() - this.#now : (value ?? null);
    if (life !== null && (typeof life !== 'number' || Number.isNaN(life))) {
      throw new SessionDataError(
        'SESSION_VALUE',
        `session.cookie.maxAge takes milliseconds, a Date or null, got ${typeof value}`,
      );
    }
    this.#context.requireHeaders('The cookie cannot be changed');
    // One that lasts no longer than the visit does anyway needs no longer visit.
    const isPermanent = life !== null && life > timeout;
    if (isPermanent && life !== permanentTimeout) this.#visit.noteOtherLife();
    this.#visit.isPermanent = isPermanent;
    this.#context.outgoing.lifetime = life && Math.max(0, Math.min(life, permanentTimeout));
    const { is, key, record } = this.#context.visit;
    // Whoever came with the key from before a renewal has the new one, or will have it in a moment.
    if (is === 'stored' && key.matches(record.keyHash)) this.#context.sendKey();
  }

  get expires(): Date | null {
    const { maxAge } = this;
    return maxAge === null ? null : new Date(this.#now + maxAge);
  }

  set expires(value: Date | number | boolean | null | undefined) {
    this.maxAge = typeof value === 'boolean' || value === null || value === undefined ? null : new Date(value);
  }

  get originalMaxAge(): number | null {
    return this.#context.outgoing.lifetime ?? (this.#visit.isPermanent ? this.#options.permanentTimeout : null);
  }

  set originalMaxAge(value: number | null) {
    this.maxAge = value;
  }

  get secure(): boolean {
    const { secure } = this.#options.cookie;
    return secure === 'auto' ? this.#context.exchange.isHttps : secure;
  }

  set secure(value: unknown) {
    this.#requireSame('secure', value, this.#options.cookie.secure);
  }

  get httpOnly(): boolean {
    return this.#options.cookie.httpOnly;
  }

  set httpOnly(value: unknown) {
    this.#requireSame('httpOnly', value);
  }

  get path(): string {
    return this.#context.policy?.path ?? this.#options.cookie.path;
  }

  set path(value: unknown) {
    this.#requireSame('path', value);
  }

  get domain(): string | undefined {
    return this.#options.cookie.domain;
  }

  set domain(value: unknown) {
    this.#requireSame('domain', value);
  }

  get sameSite(): 'strict' | 'lax' | 'none' {
    return this.#options.cookie.sameSite;
  }

  set sameSite(value: unknown) {
    this.#requireSame('sameSite', value);
  }

  get partitioned(): boolean {
    return this.#options.cookie.partitioned;
  }

  set partitioned(value: unknown) {
    this.#requireSame('partitioned', value);
  }

  toJSON(): Record<string, unknown> {
    const { originalMaxAge, expires, secure, httpOnly, domain, path, sameSite } = this;
    return { originalMaxAge, expires, secure, httpOnly, domain, path, sameSite };
  }

  get #options(): ResolvedVisitOptions {
    return this.#context.environment.options;
  }

  get #now(): number {
    return this.#options.clock.now();
  }

  #requireSame(
    name: Exclude<keyof SessionCookie & keyof ResolvedVisitOptions['cookie'], 'name'>,
    value: unknown,
    other?: unknown,
  ): void {
    if (value === this[name] || value === other) return;
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      `session.cookie.${name} cannot be changed for a single response: set the option "cookie.${name}" for all ` +
        'responses',
      `cookie.${name}`,
    );
  }
}
