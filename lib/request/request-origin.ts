import type { FrameworkRequest } from '../platform/exchange.js';

/**
 * The origin of a request according to its headers: this application or a trusted origin; another origin; or unknown.
 */
export type RequestOrigin = 'own' | 'foreign' | 'unknown';

/** The rules for trusted origins. */
export interface OriginRules {
  /** Trusted origins in addition to the application's own, in the format of `URL.origin`. */
  readonly trustedOrigins: readonly string[];
  /** Whether the application is only reached over HTTPS. */
  readonly secure: boolean;
}

/**
 * Decides by `Sec-Fetch-Site` (W3C Fetch Metadata), which no page can set. If the browser does not send it (an old
 * browser, or a site without HTTPS), decides by `Origin` (RFC 6454, 7). All current browsers send both with every
 * unsafe request; a client without them is most likely not a browser.
 */
export function originOf(request: FrameworkRequest, { trustedOrigins, secure }: OriginRules): RequestOrigin {
  const { origin, 'sec-fetch-site': site } = request.headers;
  if (origin !== undefined && trustedOrigins.includes(origin)) return 'own';
  // `none`: the user has caused it, with the address bar or an extension. Another host of the same site counts as
  // foreign.
  if (site !== undefined) return site === 'same-origin' || site === 'none' ? 'own' : 'foreign';
  if (origin === undefined) return 'unknown';
  // Sandboxed frames, redirects between sites and local files send "null".
  if (!URL.canParse(origin)) return 'foreign';
  const url = new URL(origin);
  const isOurs = hostsOf(request).some((host) => hostIn(host, url.protocol) === url.host);
  return isOurs && (url.protocol === 'https:' || !secure) ? 'own' : 'foreign';
}

/**
 * The host names of the application with their ports: the requested one, and that of a trusted proxy. Platforms and
 * their versions agree only on the name (`hostname`), and differ in where the port is.
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

/** A host in the format of an origin: lower case, without the default port of the scheme. */
function hostIn(host: string, scheme: string): string | undefined {
  const url = `${scheme}//${host}`;
  return URL.canParse(url) ? new URL(url).host : undefined;
}
