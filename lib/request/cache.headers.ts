import type { ServerResponse } from 'node:http';
import { Inject, Injectable, Logger } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { KeySource, ResolvedVisitOptions } from '../options/visit-options.interface.js';

/** How many routes are named in the log. They are finite, but some applications create routes dynamically. */
const MOST_ROUTES = 1000;

/** Tells caches which responses belong to one client: those of requests in which the visit was read. */
@Injectable()
export class CacheHeaders {
  private readonly logger = new Logger('Visit');
  private readonly warned = new Set<string>();
  /** The request headers that contain keys. */
  private readonly fields: readonly string[];

  constructor(@Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'cache' | 'source'>) {
    this.fields = fieldsOf(options.source);
  }

  /** Called right before the headers are sent. A response with `private` or `no-store` is not changed. */
  write(context: RequestContext, response: ServerResponse): void {
    const isSignedIn = context.resolvedVisit?.record.identity != null;
    const isKept = !isSignedIn || this.options.cache.signedIn !== 'no-store';
    const said = textOf(response.getHeader('Cache-Control'));
    this.writeTargeted(response);
    // Most responses have no cache headers and need not be parsed.
    if (said === '') {
      response.setHeader(
        'Cache-Control',
        isKept ? (response.hasHeader('Expires') ? 'private' : 'private, no-cache') : 'no-store',
      );
    } else {
      const own = privateOf(said);
      if (own === undefined) return;
      if (isShared(said)) this.warn(context);
      response.setHeader('Cache-Control', isKept ? own : 'no-store');
    }
    const { policy } = context;
    for (const field of policy?.source ? fieldsOf([...this.options.source, ...policy.source]) : this.fields)
      addVary(response, field);
  }

  /** Headers for one kind of cache take precedence over `Cache-Control` there (RFC 9213). */
  private writeTargeted(response: ServerResponse): void {
    const targeted = response.getHeader('CDN-Cache-Control');
    const own = targeted === undefined ? undefined : privateOf(textOf(targeted));
    if (own !== undefined) response.setHeader('CDN-Cache-Control', own);
    if (response.hasHeader('Surrogate-Control')) response.setHeader('Surrogate-Control', 'no-store');
  }

  private warn({ exchange }: RequestContext): void {
    const route = `${exchange.request.method} ${exchange.route ?? 'a path without a route'}`;
    if (this.warned.has(route) || this.warned.size === MOST_ROUTES) return;
    this.warned.add(route);
    this.logger.warn(
      `${route} allows shared caches to store a response that depends on the visit, so it is sent as "private". ` +
        'Do not read the session, visit or user there, or remove "public" and "s-maxage"',
    );
  }
}

const textOf = (value: number | string | readonly string[] | undefined): string =>
  value === undefined ? '' : String(value).trim();

/** The directives of a `Cache-Control` header (RFC 9111, 5.2), in lower case; quoted values may contain commas. */
const directivesOf = (field: string): string[] =>
  (field.match(/(?:[^,"]|"(?:\\.|[^"\\])*"?)+/g) ?? [])
    .map((one) => one.trim().toLowerCase())
    .filter((one) => one !== '');

const SHARED = /^(public|s-maxage)\b/;

const isShared = (field: string): boolean => directivesOf(field).some((one) => SHARED.test(one));

/**
 * The header for a response that shared caches must not store; undefined if it already says so. `private="set-cookie"`
 * applies only to that header, and a lifetime alone allows every cache to store it.
 */
function privateOf(field: string): string | undefined {
  const directives = directivesOf(field);
  if (directives.includes('private') || directives.includes('no-store')) return undefined;
  return ['private', ...directives.filter((one) => !SHARED.test(one) && !one.startsWith('private='))].join(', ');
}

const FIELDS: readonly (readonly [KeySource, string])[] = [
  ['cookie', 'Cookie'],
  ['header', 'Authorization'],
];

const fieldsOf = (sources: readonly KeySource[]): string[] =>
  FIELDS.filter(([source]) => sources.includes(source)).map(([, field]) => field);

function addVary(response: ServerResponse, field: string): void {
  const said = textOf(response.getHeader('Vary'));
  if (said === '') {
    response.setHeader('Vary', field);
    return;
  }
  const names = said.split(',').map((name) => name.trim().toLowerCase());
  if (!names.includes('*') && !names.includes(field.toLowerCase())) response.setHeader('Vary', `${said}, ${field}`);
}
