import type { FrameworkRequest } from '../platform/exchange.js';

/**
 * Where a request comes from, as far as its headers tell: this application, or an origin it trusts; elsewhere; or
 * nothing is said.
 */
export type RequestOrigin = 'own' | 'foreign' | 'unknown';

/** What decides which origins are trusted. */
export interface OriginRules {
  /** Origins besides the application's own, as `URL.origin` writes them. */
  readonly trustedOrigins: readonly string[];
  /** The application is reached by https only. */
  readonly secure: boolean;
}

/**
 * Judges by `Sec-Fetch-Site` (W3C Fetch Metadata), which no page can set, and where a browser sends none (an old one,
 * or to a site without https) by `Origin` (RFC 6454, 7). Both are sent with every unsafe request of a browser of the
 * last years; who sends neither is most likely no browser.
 */
export function originOf(request: FrameworkRequest, { trustedOrigins, secure }: OriginRules): RequestOrigin {
  const { origin, 'sec-fetch-site': site } = request.headers;
  if (origin !== undefined && trustedOrigins.includes(origin)) return 'own';
  // `none`: the user did it, by an entry in the address bar or an extension. A `same-site` neighbor is somebody else.
  if (site !== undefined) return site === 'same-origin' || site === 'none' ? 'own' : 'foreign';
  if (origin === undefined) return 'unknown';
  // A sandboxed frame, a redirect between sites and a local file say "null".
  if (!URL.canParse(origin)) return 'foreign';
  const url = new URL(origin);
  const isOurs = hostsOf(request).some((host) => hostIn(host, url.protocol) === url.host);
  return isOurs && (url.protocol === 'https:' || !secure) ? 'own' : 'foreign';
}

/**
 * Under which names, with ports, the application is reached: what was asked for, and what a proxy says that the
 * framework trusts. Platforms and their versions agree about the name alone (`hostname`), and disagree about where the
 * port is.
 */
function hostsOf({ headers, hostname }: FrameworkRequest): string[] {
  const asked = headers.host ?? (headers as { ':authority'?: string })[':authority'];
  const forwarded = String(headers['x-forwarded-host'] ?? '').split(',');
  const trusted = forwarded
    .map((host) => host.trim())
    .filter((host) => hostname !== undefined && nameIn(host) === nameIn(hostname));
  return asked === undefined ? trusted : [asked, ...trusted];
}

const nameIn = (host: string): string => host.toLowerCase().replace(/:\d+$/, '');

/** As it is written in an origin: in lower case, without the scheme's own port. */
function hostIn(host: string, scheme: string): string | undefined {
  const url = `${scheme}//${host}`;
  return URL.canParse(url) ? new URL(url).host : undefined;
}
