import { Inject, Injectable, Logger } from '@nestjs/common';
import { SessionDataError, VisitError, VisitKeyRetiredError, VisitWriteConflictError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitRecord } from '../store/visit.store.js';
import { refusalOf } from '../store/visit.record.js';
import type { RequestContext } from '../context/request.context.js';
import type { Turn } from '../context/turn.js';
import { refusalError, VisitWriter, type FirstContent } from '../visit/visit.writer.js';
import { isHidden } from './hidden-entries.js';
import { RequestSession } from './request.session.js';
import { applyChanges } from './session.changes.js';
import { SessionDictionary } from './session.dictionary.js';
import { SessionEncryption } from './session.encryption.js';
import { reasonOf } from '../errors/failure.js';

/** The maximum number of conflicts in a row; with more, something is wrong. */
const MOST_TRIES = 50;

type Data = ReadonlyMap<string, unknown>;

/** Computes the data to store from the stored data. Null: nothing to do. */
type Plan = (stored: Data) => Data | null | Promise<Data>;

/** The stored session, and the key that had the right to read it. */
type Stored = Pick<VisitRecord, 'sessionData' | 'sessionVersion'> & { readonly keyHash: string };

/**
 * Loads session data, and writes it by compare-and-set: after a conflict, the changes are applied to the newer data
 * (law 3).
 */
@Injectable()
export class SessionSaver {
  private readonly logger = new Logger('Visit');
  /**
   * The last save of each visit that is being saved in this process: it gives what is stored then, as far as it knows.
   * Never rejected.
   */
  private readonly queues = new Map<string, Promise<Stored | undefined>>();
  private readonly encryption: SessionEncryption | undefined;
  private hasWarnedOfLife = false;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
  ) {
    const { encryption } = options.session;
    if (encryption) this.encryption = new SessionEncryption(encryption);
  }

  /** The session of one request. */
  sessionOf(context: RequestContext): RequestSession {
    return (context.heldSession ??= new RequestSession(context, this)) as RequestSession;
  }

  /**
   * Logged once: the lifetime of a single cookie is not stored, and the cookies of later responses have another one.
   */
  noteOtherLife(): void {
    if (this.hasWarnedOfLife) return;
    this.hasWarnedOfLife = true;
    this.logger.warn(
      'session.cookie.maxAge differs from the option "permanentTimeout", which decides how long the visit lives ' +
        'on the server and how long later cookies last; set that option to the time for which the application ' +
        'remembers its users',
    );
  }

  /** The session of a visit as one request sees it. */
  dictionaryOf(context: RequestContext, notice: ConstructorParameters<typeof SessionDictionary>[2]): SessionDictionary {
    return new SessionDictionary(this.options.session.serializer, () => this.decode(context.visit.record), notice);
  }

  /**
   * Saves what the request has changed.
   *
   * @param first what a visit that is not stored yet begins with, wanted or not; its key is withheld then
   * @throws VisitEndedError, VisitKeyRetiredError, VisitWriteConflictError, VisitStoreUnavailableError,
   *   SessionDataError; nothing is saved then
   */
  async save(turn: Turn, first?: FirstContent): Promise<void> {
    const { context } = turn;
    const dictionary = context.heldSession && this.sessionOf(context).data;
    const changes = dictionary?.changes() ?? null;
    if (dictionary && changes) {
      const stored = await this.write(turn, (current) => applyChanges(current, changes), first);
      dictionary.saved(changes, stored!);
    } else if (context.visit.is === 'unsaved' && (first || context.visit.isWanted)) {
      await this.writer.storeCurrent(turn, first, first ? 'withhold' : 'send');
    }
  }

  /**
   * A copy of the session data of a visit; changes to it are not stored.
   *
   * @throws SessionDataError with `session.onUnreadable: 'throw'`
   */
  snapshot(record: VisitRecord): Record<string, unknown> {
    const entries = [...this.decode(record)].filter(([key]) => !isHidden(key));
    return Object.fromEntries(entries);
  }

  /** Changes one key atomically and returns its new value. */
  async update(turn: Turn, key: string, change: (value: unknown) => unknown): Promise<unknown> {
    const { data: dictionary } = this.sessionOf(turn.context);
    const own = dictionary.changesOf(key);
    const unsaved = own.written.get(key);
    let value: unknown;
    await this.write(turn, (current) => {
      const data = applyChanges(current, own);
      // The callback may change it in place, and be called again, or throw.
      if (unsaved) data.set(key, dictionary.copyOf(key, unsaved.snapshot));
      const put = (changed: unknown): Data => {
        value = changed;
        if (value === undefined) data.delete(key);
        else data.set(key, value);
        return data;
      };
      const changed = change(data.get(key));
      return isThenable(changed) ? Promise.resolve(changed).then(put) : put(changed);
    });
    dictionary.replace(key, value);
    return value;
  }

  /**
   * Takes away what the library itself keeps under this key, if there is anything. Data that cannot be read has
   * nothing.
   */
  async drop(turn: Turn, key: string): Promise<void> {
    const { visit } = turn.context;
    if (visit.is !== 'stored') return;
    let isThere = false;
    try {
      isThere = this.decode(visit.record).has(key);
    } catch {
      return;
    }
    if (isThere) await this.update(turn, key, () => undefined);
  }

  /** Gets and deletes one key atomically; exactly one of several callers gets the value. */
  async take(turn: Turn, key: string): Promise<unknown> {
    const { data: dictionary } = this.sessionOf(turn.context);
    const own = dictionary.changesOf(key);
    let value: unknown;
    await this.write(turn, (current) => {
      const data = applyChanges(current, own);
      value = data.get(key);
      data.delete(key);
      // A value that was never stored is taken from this request's own changes; there is nothing to write.
      return current.has(key) ? data : null;
    });
    dictionary.replace(key, undefined);
    return value;
  }

  /**
   * Loads the stored data again, and discards unsaved changes.
   *
   * @throws VisitEndedError, VisitKeyRetiredError
   */
  async reload({ context }: Turn): Promise<void> {
    const { is, record, key } = context.visit;
    if (is === 'stored') {
      const stored = await this.store.find(record.id);
      const guard = { id: record.id, keyHash: key.hash, now: this.options.clock.now() };
      // Whose key is dead by now must not see what has been stored since.
      const reason = refusalOf(stored, guard);
      if (!stored || reason) throw refusalError(reason ?? 'unknown');
      context.amend({ sessionData: stored.sessionData, sessionVersion: stored.sessionVersion });
    }
    context.heldSession?.revert();
  }

  /**
   * Writes the result of the plan, and repeats it after conflicts. Returns the stored state, or null if the plan had
   * nothing to do.
   */
  private async write(turn: Turn, plan: Plan, first?: FirstContent): Promise<Data | null> {
    const { context } = turn;
    if (context.exchange.isMessage) context.requireChangeable();
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const { visit } = context;
      if (visit.is === 'late') throw new VisitKeyRetiredError();
      const planned = plan(this.decode(visit.record));
      const isAsync = planned instanceof Promise;
      const data = isAsync ? await planned : planned;
      if (data === null) return null;
      if (visit.is === 'unsaved') {
        const sessionData = this.encode(data, visit.record.id);
        await this.writer.storeCurrent(turn, { ...first, sessionData }, first ? 'withhold' : 'send');
        return data;
      }
      const saved = await this.enqueue(context, async (latest) => {
        if (!latest || latest.sessionVersion <= visit.record.sessionVersion) return this.attempt(context, data);
        context.amend({ sessionData: latest.sessionData, sessionVersion: latest.sessionVersion });
        // The application's own code may wait for anything, and nobody shall wait in the queue for it.
        if (isAsync) return undefined;
        const again = plan(this.decode(context.visit.record)) as Data | null;
        return again && this.attempt(context, again);
      });
      if (saved !== undefined) return saved;
      if (tries > 2) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(tries * 2, 30)));
    }
    throw new VisitWriteConflictError(MOST_TRIES);
  }

  /** Tries to store the data. Undefined: there was a conflict, and the newer data is known now. */
  private async attempt(context: RequestContext, data: Data): Promise<Data | undefined> {
    const { visit, lock } = context;
    const { id, sessionVersion: version } = visit.record;
    const sessionData = this.encode(data, id);
    const lockOwner = lock?.visitId === id ? lock.owner : undefined;
    // A request that takes longer than the grace of a renewal keeps what it wrote: its key was good when it came. A
    // change of rights has no grace, so it is refused whenever it came. A lease is judged by the time that it is.
    const guard = {
      id,
      keyHash: visit.key.hash,
      now: lockOwner === undefined ? context.began : this.options.clock.now(),
    };
    const result = await this.store.save({ ...guard, version, data: sessionData, lockOwner });
    if (result.outcome === 'refused') throw refusalError(result.reason);
    const isSaved = result.outcome === 'saved';
    context.amend({ sessionData: isSaved ? sessionData : result.data, sessionVersion: result.version });
    return isSaved ? data : undefined;
  }

  /**
   * Within a process, saves of the same visit are queued; each starts from the version the previous one stored, if it
   * came with the same key: another key may have lost its rights meanwhile, and only the store knows. Other processes
   * are met by compare-and-set alone.
   */
  private enqueue(
    context: RequestContext,
    work: (latest: Stored | undefined) => Promise<Data | null | undefined>,
  ): Promise<Data | null | undefined> {
    const { id } = context.visit.record;
    const keyHash = context.visit.key.hash;
    const before = this.queues.get(id);
    const result = before
      ? before.then((latest) => work(latest?.keyHash === keyHash ? latest : undefined))
      : work(undefined);
    const known = (): Stored => {
      const { sessionData, sessionVersion } = context.visit.record;
      return { sessionData, sessionVersion, keyHash };
    };
    const own = result.then(known, known);
    this.queues.set(id, own);
    void own.then(() => this.queues.get(id) === own && this.queues.delete(id));
    return result;
  }

  private decode({ id, sessionData }: VisitRecord): Map<string, unknown> {
    if (sessionData === null) return new Map();
    try {
      return this.options.session.serializer.decode(
        this.encryption ? this.encryption.decrypt(sessionData, id) : sessionData,
      );
    } catch (error) {
      const text = `session data of visit ${id} cannot be read: ${reasonOf(error)}`;
      if (this.options.session.onUnreadable === 'throw')
        // The text of a serializer's own error may quote the data.
        throw new SessionDataError(
          'SESSION_UNREADABLE',
          text,
          undefined,
          error instanceof VisitError ? { cause: error } : undefined,
        );
      this.logger.warn(`The ${text}; the session starts empty`);
      return new Map();
    }
  }

  /** @param id of the visit with which it will be stored */
  private encode(data: Data, id: string): Uint8Array | null {
    if (data.size === 0) return null;
    const bytes = this.options.session.serializer.encode(data);
    const { maxBytes } = this.options.session;
    if (bytes.length > maxBytes) {
      throw new SessionDataError(
        'SESSION_TOO_LARGE',
        `the session has ${bytes.length} bytes, but the option "session.maxBytes" allows ${maxBytes}; store less ` +
          'in it, or store an id and keep the data elsewhere',
      );
    }
    return this.encryption ? this.encryption.encrypt(bytes, id) : bytes;
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function';
}
