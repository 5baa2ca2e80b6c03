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
import type { SessionActions } from './session.object.js';

/** After so many conflicts in a row something is wrong. */
const MOST_TRIES = 50;

/** What a write would store, made from what is stored. Null: nothing to do. */
type Plan = (stored: ReadonlyMap<string, unknown>) => Map<string, unknown> | null | Promise<Map<string, unknown> | null>;

/** Loads session data, and writes it by compare-and-set: on a conflict the changes are replayed on the newer data (law 3). */
@Injectable()
export class SessionSaver {
  private readonly logger = new Logger('Visit');

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(VisitKeeper) private readonly keeper: VisitKeeper,
  ) {}

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
      await this.write(context, async (current) => {
        const data = applyChanges(current, own);
        value = await change(data.get(key));
        if (value === undefined) data.delete(key);
        else data.set(key, value);
        return data;
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
  private async write(context: VisitContext, plan: Plan): Promise<ReadonlyMap<string, unknown> | null> {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const state = context.state;
      if (state.standing === 'late') throw new VisitKeyRetiredError();
      const data = await plan(this.decode(state.record));
      if (data === null) return null;
      const sessionData = this.encode(data);
      if (state.standing === 'unsaved') {
        await this.keeper.storeCurrent(context, { sessionData });
        return data;
      }
      const version = state.record.sessionVersion;
      const lockOwner = context.lock?.visitId === state.record.id ? context.lock.owner : undefined;
      const guard = { id: state.record.id, keyHash: state.key.hash, now: this.options.clock.now() };
      const result = await this.store.save({ ...guard, version, data: sessionData, lockOwner });
      if (result.outcome === 'refused') throw refusalError(result.reason);
      if (result.outcome === 'saved') {
        state.record = { ...state.record, sessionData, sessionVersion: result.version };
        return data;
      }
      state.record = { ...state.record, sessionData: result.data, sessionVersion: result.version };
      if (tries > 2) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(tries * 2, 30)));
    }
    throw new VisitWriteConflictError(MOST_TRIES);
  }

  private decode(record: VisitRecord): Map<string, unknown> {
    if (record.sessionData === null) return new Map();
    try {
      return this.options.session.serializer.decode(record.sessionData);
    } catch (error) {
      const text = `session data of visit ${record.id} cannot be read: ${(error as Error).message}`;
      if (this.options.session.onUnreadable === 'throw')
        throw new SessionDataError('SESSION_UNREADABLE', text, undefined, { cause: error });
      this.logger.warn(`The ${text}; the session starts empty`);
      return new Map();
    }
  }

  private encode(data: ReadonlyMap<string, unknown>): Uint8Array | null {
    if (data.size === 0) return null;
    const bytes = this.options.session.serializer.encode(data);
    const { maxBytes } = this.options.session;
    if (bytes.length > maxBytes) {
      throw new SessionDataError(
        'SESSION_TOO_LARGE',
        `the session has ${bytes.length} bytes, ${maxBytes} are allowed (option "session.maxBytes"); keep less in it, or an id that leads to the rest`,
      );
    }
    return bytes;
  }
}
