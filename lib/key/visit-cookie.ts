import { Inject, Injectable } from '@nestjs/common';
import { stringifySetCookie } from 'cookie';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/** RFC 6265bis 5.5: browsers cut longer lives to 400 days. */
const LONGEST_LIFE = 400 * 86_400_000;

/** The maximum number of values to check. A browser sends a few; more is an attack. */
const MOST_VALUES = 8;

/** The maximum size of a cookie in browsers. Some count the attributes, too. */
const MOST_BYTES = 4096;

/** The place of a cookie. */
export interface CookiePlace {
  /** The path, if it differs from that of the options. */
  readonly path?: string | undefined;
  /** Whether the request came over HTTPS. */
  readonly isHttps?: boolean;
}

/** Writes and reads the cookie of the key, and that of a visit that its client stores. */
@Injectable()
export class VisitCookie {
  private readonly options: ResolvedVisitOptions['cookie'];
  private readonly copyName: string;

  constructor(@Inject(VISIT_OPTIONS) options: Pick<ResolvedVisitOptions, 'cookie'>) {
    this.options = options.cookie;
    this.copyName = `${options.cookie.name}-data`;
  }

  /** The values of all cookies with our name. There can be several, from a parent domain or another path. */
  read(header: string | undefined): string[] {
    return this.valuesOf(this.options.name, header);
  }

  /** The same for the client's copy of its visit. */
  readCopies(header: string | undefined): string[] {
    return this.valuesOf(this.copyName, header);
  }

  private valuesOf(name: string, header: string | undefined): string[] {
    const values: string[] = [];
    if (header === undefined || !header.includes(name)) return values;
    for (const pair of header.split(';')) {
      const equals = pair.indexOf('=');
      if (equals < 0 || withoutBlanks(pair.slice(0, equals)) !== name) continue;
      const value = withoutBlanks(pair.slice(equals + 1));
      values.push(value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value);
      if (values.length === MOST_VALUES) break;
    }
    return values;
  }

  /**
   * `Set-Cookie` for a key. With a `lifetime` (in milliseconds) the cookie is permanent; otherwise it lasts until the
   * browser is closed.
   */
  write(value: string, lifetime: number | null, now: number, place?: CookiePlace): string {
    return this.setCookie(this.options.name, value, lifetime, now, place);
  }

  /** `Set-Cookie` for the client's copy of its visit. */
  writeCopy(value: string, lifetime: number | null, now: number, place?: CookiePlace): string {
    return this.setCookie(this.copyName, value, lifetime, now, place);
  }

  /** The maximum length of a copy, so that its cookie is not too large with name and attributes. */
  maxCopyLength(path?: string): number {
    return MOST_BYTES - Buffer.byteLength(this.writeCopy('', LONGEST_LIFE, 0, { path, isHttps: true }));
  }

  private setCookie(name: string, value: string, lifetime: number | null, now: number, place?: CookiePlace): string {
    const life = lifetime === null ? null : Math.min(lifetime, LONGEST_LIFE);
    return stringifySetCookie({
      name,
      value,
      ...this.attributes(place),
      ...(life === null ? {} : { maxAge: Math.ceil(life / 1000), expires: new Date(now + life) }),
    });
  }

  /** `Set-Cookie` that clears the cookie: same name, path and domain. */
  clear(place?: CookiePlace): string {
    return this.clearing(this.options.name, place);
  }

  clearCopy(place?: CookiePlace): string {
    return this.clearing(this.copyName, place);
  }

  private clearing(name: string, place?: CookiePlace): string {
    return stringifySetCookie({ name, value: '', ...this.attributes(place), maxAge: 0, expires: new Date(0) });
  }

  private attributes({ path = this.options.path, isHttps = false }: CookiePlace = {}) {
    const { domain, secure, sameSite, httpOnly, partitioned } = this.options;
    return { path, domain, secure: secure === 'auto' ? isHttps : secure, sameSite, httpOnly, partitioned };
  }
}

/**
 * Removes the whitespace of RFC 6265bis. `trim()` removes more, such as U+00A0: a cookie with another name, which any
 * site can set, would be treated as the `__Host-` one.
 */
function withoutBlanks(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && isBlank(text, start)) start++;
  while (start < end && isBlank(text, end - 1)) end--;
  return text.slice(start, end);
}

const isBlank = (text: string, at: number): boolean => text[at] === ' ' || text[at] === '\t';
