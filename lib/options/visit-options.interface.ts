import type { SessionSerializer } from '../session/session.codec.js';
import type { VisitTelemetry } from '../observe/visit-telemetry.js';
import type { VisitStore } from '../store/visit.store.js';
import type { Duration } from './duration.js';
import type { EncryptionKey, PlainData, ResolvedEncryption } from './encryption.js';
import type { NewDataSource, OpenDataSource } from './typeorm-types.js';

/** The clock that the library uses for every "now". `Date` is one. */
export interface Clock {
  /** Milliseconds since 1970 UTC. */
  now(): number;
}

/**
 * Where the key of a visit is read from. `header` is `Authorization: Bearer <key>` (RFC 6750, 2.1), for clients other
 * than browsers; `form` means `query` and `body`.
 */
export type VisitSource = 'cookie' | 'header' | 'query' | 'body' | 'form';

/** A single source, without the abbreviation `form`. */
export type KeySource = Exclude<VisitSource, 'form'>;

/** The kinds of data that a browser stores for a site, as named in `Clear-Site-Data`. */
export type SiteData =
  | 'cache'
  | 'cookies'
  | 'storage'
  | 'executionContexts'
  | 'clientHints'
  | 'prefetchCache'
  | 'prerenderCache';

/** The cookie that carries the key: its name and attributes (RFC 6265bis). */
export interface VisitCookieOptions {
  /**
   * With `secure: true`, the name gets the prefix `__Host-`, or `__Secure-` if `path` or `domain` is set (RFC 6265bis,
   * 4.1.3).
   *
   * @default 'visit'
   */
  name?: string;
  /** @default '/' */
  path?: string;
  /** If not set, browsers send the cookie only to the host that set it. @default undefined */
  domain?: string;
  /**
   * Whether browsers send the cookie only over HTTPS. `'auto'`: if the request came over HTTPS according to the
   * framework and its trust-proxy setting. Use it for applications that serve both HTTP and HTTPS; the name then gets
   * no prefix.
   *
   * @default true if `NODE_ENV` is `production`, else 'auto'
   */
  secure?: boolean | 'auto';
  /** @default 'lax' */
  sameSite?: 'strict' | 'lax' | 'none';
  /** @default true */
  httpOnly?: boolean;
  /**
   * Whether browsers keep a separate cookie for each site that embeds this one in a frame (CHIPS). Requires `secure:
   * true`.
   *
   * @default false
   */
  partitioned?: boolean;
  /**
   * Whether the cookie of every visit outlives the browser session, not only that of permanent visits.
   *
   * @default false
   */
  permanent?: boolean;
  /**
   * The data that the browser deletes when the visit ends or its user signs out (`Clear-Site-Data`). `true` means
   * `cache` and `storage`.
   *
   * @default false
   */
  clearSiteData?: boolean | readonly SiteData[];
  /**
   * Allows `secure: false` and `httpOnly: false` in production (`NODE_ENV`). Without it, they fail at startup.
   *
   * @default false
   */
  allowInsecure?: boolean;
}

/** The `Cache-Control` header of responses that depend on a visit (RFC 9111). */
export interface VisitCacheOptions {
  /**
   * The `Cache-Control` of responses for a signed-in user. `no-cache`: a browser may store the response, but
   * revalidates it before each use. `no-store`: nothing may store it, unless the handler sets `private` itself (ASVS
   * 14.3.2).
   *
   * @default 'no-cache'
   */
  signedIn?: 'no-cache' | 'no-store';
}

/** How often the expiry of visits in use is written. */
export interface VisitTouchOptions {
  /** How long expiry updates are collected before they are written together. @default '30s' */
  interval?: Duration;
  /**
   * An update that would move the expiry by less than this is skipped. At most a tenth of the timeout is used.
   *
   * @default '60s'
   */
  resolution?: Duration;
}

/** What happens to streams and sockets when their visit ends. */
export interface VisitStreamsOptions {
  /**
   * Whether server-sent events (`@Sse()`), sockets of gateways and subscriptions end when their visit ends, expires, or
   * belongs to another user: immediately if this happened in the same process, otherwise within `interval`. A stream
   * does not keep its visit alive; messages of a socket do.
   *
   * @default true
   */
  endWithVisit?: boolean;
  /**
   * How often the visits of all open streams and sockets are looked up, with one query. A stream may outlive its visit
   * by this time.
   *
   * @default '5s'
   */
  interval?: Duration;
}

/** When stale visits are deleted, and how many in one statement. */
export interface VisitExpungeOptions {
  /** A cron expression, or false for never. @default '0 3 * * *' */
  schedule?: string | false;
  /** How many days visits are kept after they expired or ended. @default 7 */
  keepDays?: number;
  /**
   * How many rows one statement deletes, at most 500. With a larger number, clean-up takes less time but delays
   * requests longer.
   *
   * @default 250
   */
  batchSize?: number;
}

/** When session data of expired visits is deleted. */
export interface VisitWipeOptions {
  /** A cron expression, or false for never. @default '*\/5 * * * *' */
  schedule?: string | false;
}

/** The keys for the encryption of session data (AES-256-GCM). */
export interface VisitEncryptionOptions {
  /**
   * The first key encrypts, every key decrypts: put a new key first. A key has 32 bytes; `openssl rand -base64 32`
   * creates one.
   */
  keys: readonly EncryptionKey[];
  /**
   * What happens to data that is not encrypted. `refuse`: it is unreadable. `read`: it is read, but new data is
   * encrypted. `write`: new data is written without encryption, and both are read. With these steps you can switch
   * encryption on or off while several processes are running.
   *
   * @default 'refuse'
   */
  plain?: PlainData;
}

/** How session data is encoded, and its limits. */
export interface VisitSessionOptions {
  /** The maximum size of an encoded session, in bytes. @default 1048576 */
  maxBytes?: number;
  /**
   * The longest time for which one request has exclusive access to its session (`@ExclusiveSession()`), even if its
   * handler runs longer. After that, and within half a minute, other requests get access, and writes of the handler are
   * refused.
   *
   * @default '5m'
   */
  maxExclusive?: Duration;
  /**
   * What happens to instances of the application's classes, such as entities and validated bodies. `plain`: their own
   * enumerable properties are stored as a plain object. `refuse`: the save fails with `SESSION_VALUE`. Only for the
   * default serializer.
   *
   * @default 'plain'
   */
  instances?: 'plain' | 'refuse';
  /** Converts session data to bytes and back. @default the format described in docs/session.md */
  serializer?: SessionSerializer;
  /**
   * What happens if session data cannot be read. `empty`: the session starts empty, with a warning. `throw`: the
   * request fails with `SESSION_UNREADABLE`.
   *
   * @default 'empty'
   */
  onUnreadable?: 'empty' | 'throw';
  /** Encrypts session data with AES-256-GCM. @default undefined */
  encryption?: VisitEncryptionOptions;
}

/** How many form tokens a visit stores, and the name of their form field. */
export interface VisitFormTokensOptions {
  /** How many form tokens a visit stores. A new token replaces the oldest one. @default 16 */
  max?: number;
  /** The name of the form field that contains the token. @default 'form_token' */
  field?: string;
}

/** Options of `CsrfGuard`. */
export interface VisitCsrfOptions {
  /**
   * Other origins whose pages may send unsafe requests to this application, such as `https://www.example.org`.
   *
   * @default []
   */
  trustedOrigins?: readonly string[];
  /** Whether every unsafe request also needs a form token. @default false */
  requireToken?: boolean;
  /** Whether requests that would be refused are logged and allowed, for the first days in production. @default false */
  reportOnly?: boolean;
}

/** How many visits a user may have, and how users are loaded. */
export interface VisitIdentityOptions {
  /**
   * How many live visits a user may have; `onLimit` decides what happens to a sign-in beyond this number. `false` means
   * no limit, which saves one query per sign-in. There is no limit if the store cannot list the visits of a user
   * (`users`).
   *
   * @default 1000
   */
  maxVisitsPerUser?: number | false;
  /** Whether the oldest sign-ins end, or the new sign-in is refused with 409. @default 'end-oldest' */
  onLimit?: 'end-oldest' | 'refuse';
  /**
   * Whether `request.user` is set for handlers: to the result of `loadUser` (one call for each request), or to `{ id
   * }`. It is set just before the handler runs, so guards do not see it. An existing `request.user` is not replaced.
   *
   * @default false
   */
  requestUser?: boolean;
  /** Loads a user for `IdentityService.user()`. Called at most once per request. @default undefined */
  loadUser?: (userId: string) => unknown;
  /**
   * Returns the id of a user that Passport has signed in, from the value that its `serializeUser()` returned. The user
   * is then signed in as with `IdentityService.login()`. `undefined`: the value itself if it is text or a number, or
   * its property `id`. `false`: the library ignores Passport's users.
   *
   * @default undefined
   */
  passportUserId?: ((user: unknown) => string | number) | false;
}

/** What is recorded about the client of a visit. */
export interface VisitRecordOptions {
  /** How the client's address is stored. It respects the framework's trust-proxy setting. @default 'full' */
  remoteAddress?: 'full' | 'truncated' | false;
  /** Whether the User-Agent header is stored, truncated to 255 characters. @default true */
  userAgent?: boolean;
}

/** Visits are stored with a TypeORM data source. */
export interface VisitsInDataSource {
  /** An open TypeORM data source, or the options of one that the module opens and closes. */
  dataSource: OpenDataSource | NewDataSource;
  store?: undefined;
}

/** Visits are stored in another store. */
export interface VisitsInStore {
  /** The store. */
  store: VisitStore;
  dataSource?: undefined;
}

/**
 * The options of `VisitModule.forRoot()`: where visits are stored, by exactly one of `dataSource` and `store`, and all
 * other settings.
 */
export type VisitModuleOptions = VisitSettings & (VisitsInDataSource | VisitsInStore);

/** All options other than where visits are stored. */
export interface VisitSettings {
  /**
   * How long a request waits for the store before it gets 503. After three such timeouts in a row, requests are refused
   * immediately, except for one at a time that tries again, until the store answers.
   *
   * @default '10s'
   */
  storeTimeout?: Duration;
  /** A visit expires this long after its last request. @default '20m' */
  timeout?: Duration;
  /** The same for permanent visits ("remember me"). Their cookie lasts as long. @default '30d' */
  permanentTimeout?: Duration;
  /**
   * The longest time that a visit may live, regardless of activity. It starts again when the user authenticates.
   *
   * @default false
   */
  absoluteTimeout?: Duration | false;
  /**
   * Whether new or stricter limits apply to existing visits immediately: visits that have been idle, or signed in, for
   * longer are over. The `timeout` of a handler applies if it is longer. Without this option, limits apply to a visit
   * from its next change of rights.
   *
   * @default false
   */
  shortenExisting?: boolean;
  /**
   * A key of this age is replaced at the next request to a handler. The old key works until half a minute after the new
   * one was first used.
   *
   * @default false
   */
  renewAfter?: Duration | false;
  /**
   * What happens if a key that was replaced some time ago is used again, which may mean that it was stolen. `refuse`:
   * it is ignored. `end`: its visit also ends.
   *
   * @default 'refuse'
   */
  onRetiredKey?: 'refuse' | 'end';
  /**
   * Where the key is looked for, in order: a list, or text such as `'cookie, form'`. A key in the body is available in
   * guards and later, and in middleware after the body parser. A client that sends its key in the header receives new
   * keys in the response header `Visit-Key`, and no cookie.
   *
   * @default 'cookie'
   */
  source?: string | readonly VisitSource[];
  /**
   * The name of the parameter in query and body. If it is a list, the first name is used for new links and fields, and
   * keys are accepted under each name, so that links with an earlier name keep working: `['visit_key', 'tg_visit']`.
   *
   * @default 'visit_key'
   */
  paramName?: string | readonly string[];
  cookie?: VisitCookieOptions;
  cache?: VisitCacheOptions;
  /**
   * `lazy`: a visit gets a row and a cookie only when it has something to store. `immediate`: from the first request to
   * a handler.
   *
   * @default 'lazy'
   */
  creation?: 'immediate' | 'lazy';
  touch?: VisitTouchOptions;
  streams?: VisitStreamsOptions;
  expunge?: VisitExpungeOptions;
  wipe?: VisitWipeOptions;
  session?: VisitSessionOptions;
  formTokens?: VisitFormTokensOptions;
  csrf?: VisitCsrfOptions;
  identity?: VisitIdentityOptions;
  record?: VisitRecordOptions;
  /**
   * Observes requests and calls of the store. `openTelemetry()` of `nest-visit/opentelemetry` creates metrics and spans
   * from it.
   *
   * @default undefined
   */
  telemetry?: VisitTelemetry;
  /**
   * How far the clock of this process may differ from that of the database, if it has one. If they differ more,
   * clean-up and the end of all visits are refused with `VisitClockError`, because a clock that is an hour ahead would
   * delete the session data of live visits. `false` means no limit, for an application whose `clock` differs on
   * purpose.
   *
   * @default '1m'
   */
  maxClockSkew?: Duration | false;
  /** @default Date */
  clock?: Clock;
}

/** The options after validation: complete, with durations in milliseconds. */
export interface ResolvedVisitOptions {
  readonly dataSource: OpenDataSource | NewDataSource | undefined;
  readonly store: VisitStore | undefined;
  readonly storeTimeout: number;
  readonly timeout: number;
  readonly permanentTimeout: number;
  readonly absoluteTimeout: number | false;
  readonly shortenExisting: boolean;
  readonly renewAfter: number | false;
  readonly onRetiredKey: 'refuse' | 'end';
  readonly source: readonly KeySource[];
  readonly paramName: readonly [string, ...string[]];
  readonly cookie: {
    readonly name: string;
    readonly path: string;
    readonly domain: string | undefined;
    readonly secure: boolean | 'auto';
    readonly sameSite: 'strict' | 'lax' | 'none';
    readonly httpOnly: boolean;
    readonly partitioned: boolean;
    readonly permanent: boolean;
    readonly clearSiteData: readonly SiteData[];
    readonly allowInsecure: boolean;
  };
  readonly cache: { readonly signedIn: 'no-cache' | 'no-store' };
  readonly creation: 'immediate' | 'lazy';
  readonly touch: { readonly interval: number; readonly resolution: number };
  readonly streams: { readonly endWithVisit: boolean; readonly interval: number };
  readonly expunge: { readonly schedule: string | false; readonly keepDays: number; readonly batchSize: number };
  readonly wipe: { readonly schedule: string | false };
  readonly session: {
    readonly maxBytes: number;
    readonly maxExclusive: number;
    readonly instances: 'plain' | 'refuse';
    readonly serializer: SessionSerializer;
    readonly onUnreadable: 'empty' | 'throw';
    readonly encryption: ResolvedEncryption | undefined;
  };
  readonly formTokens: { readonly max: number; readonly field: string };
  readonly csrf: {
    readonly trustedOrigins: readonly string[];
    readonly requireToken: boolean;
    readonly reportOnly: boolean;
  };
  readonly identity: {
    readonly maxVisitsPerUser: number | false;
    readonly onLimit: 'end-oldest' | 'refuse';
    readonly requestUser: boolean;
    readonly loadUser: ((userId: string) => unknown) | undefined;
    readonly passportUserId: ((user: unknown) => string | number) | false | undefined;
  };
  readonly record: { readonly remoteAddress: 'full' | 'truncated' | false; readonly userAgent: boolean };
  readonly telemetry: VisitTelemetry | undefined;
  readonly maxClockSkew: number | false;
  readonly clock: Clock;
}
