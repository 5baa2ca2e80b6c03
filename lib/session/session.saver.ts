import { Inject, Injectable, Logger } from '@nestjs/common';
import { SessionDataError, VisitKeyRetiredError, VisitWriteConflictError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitRecord } from '../store/visit.store.js';
import { refusalOf } from '../store/write-guard.js';
import { refusalError, VisitKeeper } from '../visit/visit.keeper.js';
import type { VisitContext } from '../visit.context.js';
import { applyChanges } from './session.changes.js';
import { SessionDictionary } from './session.dictionary.js';
import { SessionEncryption } from './session.encryption.js';
import type { SessionActions } from './session.object.js';

/** After so many conflicts in a row something is wrong. */
const MOST_TRIES = 50;

type Data = ReadonlyMap<string, unknown>;

/** What a write would store, made from what is stored. Null: nothing to do. */
type Plan = (stored: Data) => Data | null | Promise<Data>;

type Stored = Pick<VisitRecord, 'sessionData' | 'sessionVersion'>;

/** Loads session data, and writes it by compare-and-set: on a conflict the changes are replayed on the newer data (law 3). */
@Injectable()
export class SessionSaver {
  private readonly logger = new Logger('Visit');
  /** The last save in line of each visit that is being saved: it gives what is stored then, as far as it knows. Never rejected. */
  private readonly lines = new Map<string, Promise<Stored | undefined>>();
  private readonly encryption: SessionEncryption | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(VisitKeeper) private readonly keeper: VisitKeeper,
  ) {
    const { encryption } = options.session;
    if (encryption) this.encryption = new SessionEncryption(encryption);
  }

  /** The session of one request. */
  actionsOf(context: VisitContext): SessionActions {
    const dictionary = new SessionDictionary(this.options.session.serializer, () => this.decode(context.state.record));
    return {
      dictionary,
      save: () => this.save(context),
      reload: () => this.reload(context),
      update: (key, change) => this.update(context, key, change),
      take: (key) => this.take(context, key),
    };
  }

  /**
   * Saves what the request has changed.
   *
   * @throws VisitEndedError, VisitKeyRetiredError, VisitWriteConflictError, VisitStoreUnavailableError, SessionDataError; nothing is saved then
   */
  save(context: VisitContext): Promise<void> {
    return this.inTurn(context, async () => {
      const changes = context.sessionUsed ? context.dictionary.changes() : null;
      if (changes) {
        const stored = await this.write(context, (current) => applyChanges(current, changes));
        context.dictionary.saved(changes, stored!);
      } else if (context.state.standing === 'unsaved' && context.state.kept) {
        await this.keeper.storeCurrent(context);
      }
    });
  }

  private update(context: VisitContext, key: string, change: (value: unknown) => unknown): Promise<unknown> {
    return this.inTurn(context, async () => {
      const own = context.dictionary.changesOf(key);
      let value: unknown;
      await this.write(context, (current) => {
        const data = applyChanges(current, own);
        const put = (changed: unknown): Data => {
          value = changed;
          if (value === undefined) data.delete(key);
          else data.set(key, value);
          return data;
        };
        const changed = change(data.get(key));
        return isThenable(changed) ? Promise.resolve(changed).then(put) : put(changed);
      });
      context.dictionary.replace(key, value);
      return value;
    });
  }

  private take(context: VisitContext, key: string): Promise<unknown> {
    return this.inTurn(context, async () => {
      const own = context.dictionary.changesOf(key);
      let value: unknown;
      await this.write(context, (current) => {
        const data = applyChanges(current, own);
        value = data.get(key);
        data.delete(key);
        // A value that was never stored is taken from this request's own changes; there is nothing to write.
        return current.has(key) ? data : null;
      });
      context.dictionary.replace(key, undefined);
      return value;
    });
  }

  private reload(context: VisitContext): Promise<void> {
    return this.inTurn(context, async () => {
      const state = context.state;
      if (state.standing === 'stored') {
        const record = await this.store.find(state.record.id);
        const guard = { id: state.record.id, keyHash: state.key.hash, now: this.options.clock.now() };
        const reason = refusalOf(record, guard);
        if (!record || reason) throw refusalError(reason ?? 'unknown');
        state.record = { ...state.record, sessionData: record.sessionData, sessionVersion: record.sessionVersion };
      }
      context.dictionary.revert();
    });
  }

  /** One write of a request after the other: two at once would only be each other's conflicts. */
  private inTurn<T>(context: VisitContext, work: () => Promise<T>): Promise<T> {
    const result = context.writing.then(work);
    context.writing = result.catch(() => undefined);
    return result;
  }

  /** Writes what the plan makes of the stored data, as often as others are faster. What is stored then, or null if the plan had nothing to do. */
  private async write(context: VisitContext, plan: Plan): Promise<Data | null> {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const state = context.state;
      if (state.standing === 'late') throw new VisitKeyRetiredError();
      const planned = plan(this.decode(state.record));
      const isAsync = planned instanceof Promise;
      const data = isAsync ? await planned : planned;
      if (data === null) return null;
      if (state.standing === 'unsaved') {
        // While the plan was made, the handler may have gone on with another visit.
        await this.keeper.storeCurrent(context, { sessionData: this.encode(data, context.state.record.id) });
        return data;
      }
      const saved = await this.inLine(context, async (latest) => {
        if (!latest || latest.sessionVersion <= state.record.sessionVersion) return this.attempt(context, data);
        state.record = { ...state.record, ...latest };
        // The application's own code may wait for anything, and nobody shall wait in line for it.
        if (isAsync) return undefined;
        const again = plan(this.decode(state.record)) as Data | null;
        return again && this.attempt(context, again);
      });
      if (saved !== undefined) return saved;
      if (tries > 2) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(tries * 2, 30)));
    }
    throw new VisitWriteConflictError(MOST_TRIES);
  }

  /** Tries to store the data. Undefined: others were faster; what they have stored is known then. */
  private async attempt(context: VisitContext, data: Data): Promise<Data | undefined> {
    const { state, lock } = context;
    const { id, sessionVersion: version } = state.record;
    const sessionData = this.encode(data, id);
    const guard = { id, keyHash: state.key.hash, now: this.options.clock.now() };
    const lockOwner = lock?.visitId === id ? lock.owner : undefined;
    const result = await this.store.save({ ...guard, version, data: sessionData, lockOwner });
    if (result.outcome === 'refused') throw refusalError(result.reason);
    const isSaved = result.outcome === 'saved';
    state.record = { ...state.record, sessionData: isSaved ? sessionData : result.data, sessionVersion: result.version };
    return isSaved ? data : undefined;
  }

  /**
   * Requests of one visit that meet in this process save one after the other, and each goes on from what the one before it
   * has stored: at once, they would be each other's conflicts. Other processes are met by compare-and-set alone.
   */
  private inLine(
    context: VisitContext,
    work: (latest: Stored | undefined) => Promise<Data | null | undefined>,
  ): Promise<Data | null | undefined> {
    const { state } = context;
    const { id } = state.record;
    const before = this.lines.get(id);
    const result = before ? before.then(work) : work(undefined);
    const known = (): Stored => ({ sessionData: state.record.sessionData, sessionVersion: state.record.sessionVersion });
    const own = result.then(known, known);
    this.lines.set(id, own);
    void own.then(() => this.lines.get(id) === own && this.lines.delete(id));
    return result;
  }

  private decode({ id, sessionData }: VisitRecord): Map<string, unknown> {
    if (sessionData === null) return new Map();
    try {
      return this.options.session.serializer.decode(this.encryption ? this.encryption.decrypt(sessionData, id) : sessionData);
    } catch (error) {
      const text = `session data of visit ${id} cannot be read: ${(error as Error).message}`;
      if (this.options.session.onUnreadable === 'throw')
        throw new SessionDataError('SESSION_UNREADABLE', text, undefined, { cause: error });
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
        `the session has ${bytes.length} bytes, ${maxBytes} are allowed (option "session.maxBytes"); keep less in it, or an id that leads to the rest`,
      );
    }
    return this.encryption ? this.encryption.encrypt(bytes, id) : bytes;
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function';
}
