/**
 * A store for express-session and @fastify/session that keeps sessions in a store of nest-visit.
 *
 * @module nest-visit/express-session
 */

import { createHash } from 'node:crypto';
import { SessionDataError, VisitOptionError, VisitStoreUnsupportedError } from './errors/visit.error.js';
import { reasonOf } from './errors/failure.js';
import { LONGEST_DURATION, LONGEST_TIMER, parseDuration, type Duration } from './options/duration.js';
import type { Clock } from './options/visit-options.interface.js';
import { DefaultSessionSerializer } from './session/session.codec.js';
import { StoreAccess } from './store/store-access.js';
import { created, isLive } from './store/visit.record.js';
import type { VisitPage } from './store/visit.facets.js';
import type { VisitRecord, VisitStore } from './store/visit.store.js';

/** Options of `visitSessionStore()`. */
export interface VisitSessionStoreOptions {
  /** The store: any store of nest-visit except sealed cookies. It is closed by the code that created it. */
  store: VisitStore;
  /**
   * How long a session lives after its last request if its cookie has neither `cookie.maxAge` nor `cookie.expires`.
   *
   * @default '1d'
   */
  timeout?: Duration;
  /** How long a call waits for the store before it fails. @default '10s' */
  storeTimeout?: Duration;
  /** @default Date */
  clock?: Clock;
}

/** The session data of express-session and @fastify/session. */
export interface StoredSession {
  /** Optional, for code that writes to the store directly. */
  cookie?: { expires?: Date | string | null; maxAge?: number | null; originalMaxAge?: number | null };
  [name: string]: any;
}

/**
 * The methods of a store that these libraries call. Each callback is called once, and never before the call has
 * returned.
 */
export interface VisitSessionStore {
  /** Gets the session, or null if it does not exist, has expired or was destroyed. */
  get(sessionId: string, callback: (error: unknown, session?: any) => void): void;
  /**
   * Stores the whole session. Of several concurrent calls, the last one wins. A session that has expired or was
   * destroyed is not stored again.
   */
  set(sessionId: string, session: any, callback?: (error?: any) => void): void;
  /** Ends a session permanently: no later save restores it. If it does not exist, nothing happens. */
  destroy(sessionId: string, callback?: (error?: any) => void): void;
  /** Moves the expiry of an existing session. */
  touch(sessionId: string, session: any, callback?: (error?: any) => void): void;
  /** Gets all live sessions, without their ids, because only hashes of the ids are stored. */
  all(callback: (error: unknown, sessions?: any) => void): void;
  /** Gets the number of live sessions. */
  length(callback: (error: unknown, length?: number) => void): void;
  /** Destroys all sessions. Visits of `VisitModule` in the same store are not affected. */
  clear(callback?: (error?: any) => void): void;
}

/**
 * A store for express-session or @fastify/session that keeps sessions as visits: of the ids only hashes are stored, and
 * a session that has been destroyed or has expired does not come back by a request that saves it late.
 *
 * @param Store the class of stores that the library brings: `session.Store`, `fastifySession.Store`
 * @throws VisitOptionError for an option that cannot be
 * @example
 * const store = visitSessionStore(session.Store, { store: new TypeOrmVisitStore(dataSource) });
 * app.use(session({ secret, resave: false, saveUninitialized: false, store }));
 */
export function visitSessionStore<Base extends new (...args: any[]) => object>(
  Store: Base,
  options: VisitSessionStoreOptions,
): InstanceType<Base> & VisitSessionStore {
  const sessions = new Sessions(options);
  class OnVisits extends (Store as new () => object) implements VisitSessionStore {
    get(sessionId: string, callback: (error: unknown, session?: any) => void): void {
      answer(sessions.get(sessionId), callback);
    }

    set(sessionId: string, session: any, callback?: (error?: any) => void): void {
      answer(sessions.set(sessionId, session as StoredSession), callback);
    }

    destroy(sessionId: string, callback?: (error?: any) => void): void {
      answer(sessions.destroy(sessionId), callback);
    }

    touch(sessionId: string, session: any, callback?: (error?: any) => void): void {
      answer(sessions.touch(sessionId, session as StoredSession), callback);
    }

    all(callback: (error: unknown, sessions?: any) => void): void {
      answer(
        sessions.all().then((all) => all.map(({ session }) => session)),
        callback,
      );
    }

    length(callback: (error: unknown, length?: number) => void): void {
      answer(
        sessions.all().then((all) => all.length),
        callback,
      );
    }

    clear(callback?: (error?: any) => void): void {
      answer(sessions.clear(), callback);
    }
  }
  return new OnVisits() as InstanceType<Base> & VisitSessionStore;
}

/** What it throws is thrown where nobody's promise is in between: once, and not as a failure of the store. */
function answer<T>(work: Promise<T>, callback: ((error: unknown, value?: T) => void) | undefined): void {
  work.then(
    (value) => setImmediate(() => (value === undefined ? callback?.(null) : callback?.(null, value))),
    (error: unknown) => setImmediate(() => callback?.(error)),
  );
}

/** The only entry of the data of such a visit, which distinguishes it from other visits. */
const ENTRY = 'express-session';
/** Saves of one session from several processes can conflict; within a process they are queued. */
const MOST_TRIES = 10;
const PAGE = 250;
/** A moment that two requests of one session may be apart says nothing of a shorter life. */
const SHORTER = 1000;

const serializer = new DefaultSessionSerializer();
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** What is stored in place of a session's id. That is random, so that nobody finds it by its hash. */
const namesOf = (sessionId: string) => ({ id: sha256(`id ${sessionId}`).slice(0, 32), keyHash: sha256(sessionId) });

class Sessions {
  private readonly store: VisitStore;
  private readonly access: StoreAccess;
  private readonly timeout: number;
  private readonly clock: Clock;
  private ready: Promise<void> | undefined;
  /** The last write of each session that is being written. */
  private readonly writing = new Map<string, Promise<unknown>>();

  constructor({ store, timeout = '1d', storeTimeout = '10s', clock = Date }: VisitSessionStoreOptions) {
    if (store?.clients) throw new VisitOptionError('option "store" must be a store that keeps visits on the server');
    if (typeof store?.find !== 'function') throw new VisitOptionError('option "store" must be a VisitStore');
    this.store = store;
    this.timeout = durationOf('timeout', timeout, LONGEST_DURATION);
    this.access = new StoreAccess(store, { storeTimeout: durationOf('storeTimeout', storeTimeout, LONGEST_TIMER) });
    this.clock = clock;
  }

  async get(sessionId: string): Promise<StoredSession | null> {
    const visit = await this.find(sessionId);
    return visit && sessionIn(visit);
  }

  /** In the order of the calls: the last one is the one that stays. */
  async set(sessionId: string, session: StoredSession): Promise<void> {
    const plain = plainOf(session);
    const before = this.writing.get(sessionId);
    const writing = (async () => {
      await before?.catch(() => undefined);
      await this.write(sessionId, plain);
    })();
    this.writing.set(sessionId, writing);
    try {
      await writing;
    } finally {
      if (this.writing.get(sessionId) === writing) this.writing.delete(sessionId);
    }
  }

  async destroy(sessionId: string): Promise<void> {
    await this.check();
    await this.end([namesOf(sessionId).id], true);
  }

  async touch(sessionId: string, { cookie }: StoredSession): Promise<void> {
    const visit = await this.find(sessionId);
    if (visit) await this.move(visit, cookie);
  }

  async all(): Promise<{ readonly id: string; readonly session: StoredSession }[]> {
    await this.check();
    const { pages } = this.store;
    if (!pages) throw new VisitStoreUnsupportedError('all', 'pages');
    const now = this.clock.now();
    const found = new Map<string, StoredSession>();
    for (let after: string | null = ''; after !== null;) {
      const page: { after: string; limit: number; now: number } = { after, limit: PAGE, now };
      const { visits, next }: VisitPage = await this.access.read(() => pages.liveVisits(page));
      // A page has no data; the look-ups go out together.
      for (const visit of await Promise.all(visits.map(({ id }) => this.access.find(id)))) {
        const session = visit && isLive(visit, now) ? sessionIn(visit) : null;
        if (session) found.set(visit!.id, session);
      }
      after = next;
    }
    return [...found].map(([id, session]) => ({ id, session }));
  }

  async clear(): Promise<void> {
    const all = await this.all();
    for (let start = 0; start < all.length; start += PAGE) {
      await this.end(
        all.slice(start, start + PAGE).map(({ id }) => id),
        false,
      );
    }
  }

  private async write(sessionId: string, session: StoredSession): Promise<void> {
    await this.check();
    const { id, keyHash } = namesOf(sessionId);
    const data = serializer.encode(new Map([[ENTRY, session]]));
    const stored = await this.access.find(id);
    const now = this.clock.now();
    if (!stored) {
      const expiry = this.expiryOf(session.cookie, now);
      return this.access.create(created({ id, keyHash, created: now, expiry, sessionData: data }));
    }
    if (!isLive(stored, now)) return;
    let version = stored.sessionVersion;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const result = await this.access.save({ id, keyHash, now, version, data });
      if (result.outcome === 'refused') return;
      if (result.outcome === 'saved') return this.move(stored, session.cookie);
      version = result.version;
    }
    throw new SessionDataError(
      'SESSION_VALUE',
      `other requests stored the session ${MOST_TRIES} times while this request tried to store it`,
    );
  }

  /** A touch moves an expiry forward only; an earlier one is set like that of a change of rights, by the same key. */
  private async move({ id, keyHash, expiry: before }: VisitRecord, cookie: StoredSession['cookie']): Promise<void> {
    const now = this.clock.now();
    const expiry = this.expiryOf(cookie, now);
    if (expiry > before) await this.access.call((store) => store.touch([{ id, accessed: now, expiry }]));
    else if (expiry < before - SHORTER) {
      const shorter = { id, keyHash, now, newKeyHash: keyHash, previousKeyUntil: null, expiry };
      await this.access.call((store) => store.rekey([shorter]));
    }
  }

  private expiryOf(cookie: StoredSession['cookie'], now: number): number {
    const { expires, originalMaxAge, maxAge } = cookie ?? {};
    const until = expires ? new Date(expires).getTime() : now + (originalMaxAge ?? maxAge ?? this.timeout);
    return Math.trunc(Number.isNaN(until) ? now + this.timeout : until);
  }

  /** The visit of a session that is there. */
  private async find(sessionId: string): Promise<VisitRecord | null> {
    await this.check();
    const { id, keyHash } = namesOf(sessionId);
    const visit = await this.access.find(id);
    return visit && visit.keyHash === keyHash && isLive(visit, this.clock.now()) ? visit : null;
  }

  private end(ids: readonly string[], retiresKey: boolean): Promise<string[]> {
    return this.access.end(ids, { reason: 'destroyed', at: this.clock.now(), retiresKey });
  }

  /** Once, before anything else; a failure is for whoever came first. */
  private check(): Promise<void> {
    this.ready ??= this.access
      .read((store) => store.check())
      .catch((error: unknown) => {
        this.ready = undefined;
        throw error;
      });
    return this.ready;
  }
}

/** As JSON gives it back, as other stores keep it. @throws SessionDataError */
function plainOf(session: StoredSession): StoredSession {
  try {
    return JSON.parse(JSON.stringify(session)) as StoredSession;
  } catch (error) {
    throw new SessionDataError('SESSION_VALUE', `the session cannot be written as JSON: ${reasonOf(error)}`);
  }
}

/** Null: the visit is not such a session, or its data has been wiped. */
function sessionIn({ sessionData, expiry }: VisitRecord): StoredSession | null {
  const session = sessionData && (serializer.decode(sessionData).get(ENTRY) as StoredSession | undefined);
  if (!session) return null;
  // Touches have moved it.
  if (session.cookie?.expires) session.cookie.expires = new Date(expiry);
  return session;
}

function durationOf(name: string, value: Duration, max: number): number {
  const parsed = parseDuration(value);
  if (parsed === null || parsed < 1 || parsed > max)
    throw new VisitOptionError(`option "${name}" must be a duration such as "1d", at most ${max} ms`);
  return parsed;
}
