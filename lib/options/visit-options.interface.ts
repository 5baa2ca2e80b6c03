import type { SessionSerializer } from '../session/session.codec.js';
import type { VisitTelemetry } from '../observe/visit-telemetry.js';
import type { VisitStore } from '../store/visit.store.js';
import type { Duration } from './duration.js';
import type { EncryptionKey, PlainData, ResolvedEncryption } from './encryption.js';
import type { NewDataSource, OpenDataSource } from './typeorm-types.js';

/** The one clock that every "now" comes from. `Date` is one. */
export interface Clock {
  /** Milliseconds since 1970 UTC. */
  now(): number;
}

/**
 * Where a visit key may come from. `header` is `Authorization: Bearer <key>` (RFC 6750, 2.1), for clients that are no
 * browsers; `form` is short for `query` and `body`.
 */
export type VisitSource = 'cookie' | 'header' | 'query' | 'body' | 'form';

/** The same, each by itself. */
export type KeySource = Exclude<VisitSource, 'form'>;

/** What a browser keeps of a site, as `Clear-Site-Data` names it. */
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
   * With `secure: true` the browser sees `__Host-` before it, or `__Secure-` where `path` or `domain` is set (RFC
   * 6265bis, 4.1.3).
   *
   * @default 'visit'
   */
  name?: string;
  /** @default '/' */
  path?: string;
  /** Left out, the cookie goes to this host only. @default undefined */
  domain?: string;
  /**
   * Whether browsers send it over https only. `'auto'`: where the request came by https, as the framework sees it by
   * its trust-proxy setting; for applications that serve both, without a prefix of the name.
   *
   * @default true if `NODE_ENV` is `production`, else 'auto'
   */
  secure?: boolean | 'auto';
  /** @default 'lax' */
  sameSite?: 'strict' | 'lax' | 'none';
  /** @default true */
  httpOnly?: boolean;
  /**
   * A cookie of its own under each site that shows this one in a frame (CHIPS). Needs `secure: true`.
   *
   * @default false
   */
  partitioned?: boolean;
  /** Every visit outlives the browser's session, not only those made so. @default false */
  permanent?: boolean;
  /**
   * What else the browser is to forget when its visit ends or its user signs out; true: `cache` and `storage`.
   *
   * @default false
   */
  clearSiteData?: boolean | readonly SiteData[];
  /**
   * Without it, `secure: false` and `httpOnly: false` are refused at start where `NODE_ENV` is `production`.
   *
   * @default false
   */
  allowInsecure?: boolean;
}

/** What caches are told of responses that depend on a visit (RFC 9111). */
export interface VisitCacheOptions {
  /**
   * What caches are told of responses for a user who is signed in. `no-cache`: a browser may keep them, and asks before
   * it shows one again. `no-store`: nothing keeps them, unless the handler says `private` itself (ASVS 14.3.2).
   *
   * @default 'no-cache'
   */
  signedIn?: 'no-cache' | 'no-store';
}

/** How often the expiry of visits in use is written. */
export interface VisitTouchOptions {
  /** How long expiry updates are gathered before they are written. @default '30s' */
  interval?: Duration;
  /** An update that would move the expiry by less is skipped; never more than a tenth of the timeout. @default '60s' */
  resolution?: Duration;
}

/** What becomes of server-sent events when their visit ends. */
export interface VisitStreamsOptions {
  /**
   * Server-sent events (`@Sse()`), sockets of gateways and subscriptions end when their visit ends, expires, or belongs
   * to somebody else: at once where this process did it, otherwise within `interval`. A stream keeps no visit alive;
   * messages of a socket do.
   *
   * @default true
   */
  endWithVisit?: boolean;
  /**
   * How often the visits of all that is open are looked up, with one query: as long something may go on after its
   * visit.
   *
   * @default '5s'
   */
  interval?: Duration;
}

/** When stale visits are deleted, and how many at a time. */
export interface VisitExpungeOptions {
  /** A cron expression, or false for never. @default '0 3 * * *' */
  schedule?: string | false;
  /** Visits stay this many days after they expired or ended. @default 7 */
  keepDays?: number;
  /** Rows deleted by one statement, at most 500; more take less time, and keep requests waiting longer. @default 250 */
  batchSize?: number;
}

/** When session data of expired visits is deleted. */
export interface VisitWipeOptions {
  /** A cron expression, or false for never. @default '*\/5 * * * *' */
  schedule?: string | false;
}

/** The keys that session data is encrypted with, by AES-256-GCM. */
export interface VisitEncryptionOptions {
  /**
   * The first one encrypts, all decrypt: a new key goes in front. Each has 32 bytes; `openssl rand -base64 32` makes
   * one.
   */
  keys: readonly EncryptionKey[];
  /**
   * What becomes of data that is not encrypted: it is refused as unreadable; `read`, while all that is written is
   * encrypted; or `write`: all that is written is plain, and both are read. By these steps encryption is switched on
   * and off while several processes run.
   *
   * @default 'refuse'
   */
  plain?: PlainData;
}

/** How session data is encoded, and its limits. */
export interface VisitSessionOptions {
  /** The most bytes one encoded session may have. @default 1048576 */
  maxBytes?: number;
  /**
   * The longest that one request keeps its session to itself (`@ExclusiveSession()`), however long its handler runs.
   * After that, and within half a minute, others have their turn, and what the handler writes is refused. @default '5m'
   */
  maxExclusive?: Duration;
  /**
   * What happens to instances of classes of the application, such as entities and validated bodies: their own
   * enumerable properties are kept as a plain object, or the save fails with `SESSION_VALUE`. For the default
   * serializer.
   *
   * @default 'plain'
   */
  instances?: 'plain' | 'refuse';
  /** Turns session data into bytes and back. @default the format described in docs/session.md */
  serializer?: SessionSerializer;
  /**
   * What happens to data that cannot be read: the session starts empty with a warning, or the request fails.
   *
   * @default 'empty'
   */
  onUnreadable?: 'empty' | 'throw';
  /** Session data is stored encrypted, by AES-256-GCM. @default undefined */
  encryption?: VisitEncryptionOptions;
}

/** How many form tokens a visit keeps, and the field that carries one. */
export interface VisitFormTokensOptions {
  /** A visit keeps so many form tokens; the oldest goes first. @default 16 */
  max?: number;
  /** The name of the field that carries one. @default 'form_token' */
  field?: string;
}

/** What `CsrfGuard` goes by. */
export interface VisitCsrfOptions {
  /** Other origins whose pages may send requests here, such as `https://www.example.org`. @default [] */
  trustedOrigins?: readonly string[];
  /** A form token is needed besides, for every unsafe request. @default false */
  requireToken?: boolean;
  /** What would be refused is logged and let through: for the first days in production. @default false */
  reportOnly?: boolean;
}

/** Users: how many visits each may have, and how they are loaded. */
export interface VisitIdentityOptions {
  /**
   * How many live visits a user may have; `onLimit` decides what happens to a sign-in beyond it. False: any number,
   * which saves a sign-in one question to the store. A store that cannot list the visits of a user (`users`) has no
   * bound. @default 1000
   */
  maxVisitsPerUser?: number | false;
  /** The visits that were signed in first end, or the new sign-in is refused with 409. @default 'end-oldest' */
  onLimit?: 'end-oldest' | 'refuse';
  /**
   * Whether handlers find the user at `request.user`, too: what `loadUser` gives (a load for each request), or else
   * `{ id }`. Set before the handler runs, and so not for guards; what somebody else has put there stays.
   *
   * @default false
   */
  requestUser?: boolean;
  /** Gives the user of an id, for `IdentityService.user()`; called at most once per request. @default undefined */
  loadUser?: (userId: string) => unknown;
  /**
   * The id of a user whom Passport has signed in, from what its `serializeUser()` has given; such a user is signed in
   * as by `IdentityService.login()`. Undefined: the text or number itself, or the `id` of an object. False: Passport's
   * users are no business of visits.
   *
   * @default undefined
   */
  passportUserId?: ((user: unknown) => string | number) | false;
}

/** What is recorded of the client of a visit. */
export interface VisitRecordOptions {
  /** What is kept of the client's address; it respects the framework's trust-proxy setting. @default 'full' */
  remoteAddress?: 'full' | 'truncated' | false;
  /** Whether the User-Agent header is kept, cut to 255 characters. @default true */
  userAgent?: boolean;
}

/** Visits in TypeORM's tables. */
export interface VisitsInDataSource {
  /** A TypeORM data source that is open, or the options of one that the module opens and closes itself. */
  dataSource: OpenDataSource | NewDataSource;
  store?: undefined;
}

/** Visits somewhere else. */
export interface VisitsInStore {
  /** Another store of visits. */
  store: VisitStore;
  dataSource?: undefined;
}

/**
 * What `VisitModule.forRoot()` takes: where visits are kept, by exactly one of `dataSource` and `store`, and all the
 * rest.
 */
export type VisitModuleOptions = VisitSettings & (VisitsInDataSource | VisitsInStore);

/** All options but where visits are kept. */
export interface VisitSettings {
  /**
   * How long a request waits for the store, before whoever needs the visit gets 503. After three calls in a row that
   * took as long, requests are refused at once, and one at a time tries until the store answers again.
   *
   * @default '10s'
   */
  storeTimeout?: Duration;
  /** A visit expires this long after its last request. @default '20m' */
  timeout?: Duration;
  /** The same for permanent visits ("remember me"); their cookie lasts as long. @default '30d' */
  permanentTimeout?: Duration;
  /**
   * The longest a visit may live, whatever happens in it; counted anew when its user proves who they are.
   *
   * @default false
   */
  absoluteTimeout?: Duration | false;
  /**
   * Whether limits that are new or stricter hold at once for visits that exist: those that have been idle, or signed
   * in, for longer are over. A handler's own `timeout` counts where it is longer. Otherwise limits reach a visit at its
   * next change of rights.
   *
   * @default false
   */
  shortenExisting?: boolean;
  /**
   * A key of this age is replaced in the next request to a handler. The old one works until half a minute after the new
   * one was first used.
   *
   * @default false
   */
  renewAfter?: Duration | false;
  /**
   * A key that was replaced some time ago and is used again may be a stolen one: it opens nothing; or its visit ends,
   * too.
   *
   * @default 'refuse'
   */
  onRetiredKey?: 'refuse' | 'end';
  /**
   * Where the key is looked for, in this order: `'cookie, form'` or a list. One in the body is known from guards on,
   * and in middleware after the body parser. A client whose key comes in the header gets new ones in the header
   * `Visit-Key` of responses, and no cookie.
   *
   * @default 'cookie'
   */
  source?: string | readonly VisitSource[];
  /**
   * The parameter's name in query and body. Of several, the first is that of new links and fields; keys are found under
   * each, so that links with a former name go on working: `['visit_key', 'tg_visit']`. @default 'visit_key'
   */
  paramName?: string | readonly string[];
  cookie?: VisitCookieOptions;
  cache?: VisitCacheOptions;
  /**
   * `lazy`: a row and a cookie only when there is something to keep. `immediate`: from the first request to a handler
   * on.
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
   * Watches requests and calls of the store: `openTelemetry()` of `nest-visit/opentelemetry` makes metrics and spans of
   * it.
   *
   * @default undefined
   */
  telemetry?: VisitTelemetry;
  /**
   * How far the clock of this process may differ from the database's, where that has one. Beyond it, clean-up and the
   * end of all visits are refused with `VisitClockError`: a clock that is an hour ahead would empty the sessions of
   * live visits. False: any, for an application with a `clock` of its own that goes otherwise. @default '1m'
   */
  maxClockSkew?: Duration | false;
  /** @default Date */
  clock?: Clock;
}

/** The options, checked, complete and in milliseconds. */
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
