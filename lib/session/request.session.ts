import { createHash } from 'node:crypto';
import { Logger } from '@nestjs/common';
import type { HeldSession, RequestContext, VisitState } from '../context/request.context.js';
import { SessionDataError } from '../errors/visit.error.js';
import { Turn } from '../context/turn.js';
import {
  showSession,
  type CompatibleActions,
  type CompatibleSession,
  type ShownSession,
} from './compatible.session.js';
import { SessionCookie, type PermanentVisit } from './session.cookie.js';
import { SessionDictionary, type Mark } from './session.dictionary.js';
import { createSessionObject, requireShown, type SessionActions, type SessionObject } from './session.object.js';
import type { SessionSaver } from './session.saver.js';

const logger = new Logger('Visit');

/** The changes at a point in time. */
interface SessionMark {
  readonly data: Mark | null;
  readonly permanence: boolean | undefined;
}

/** The session of one request: its data, its changes, and its writes, each of which takes its turn. */
export class RequestSession implements HeldSession, SessionActions, CompatibleActions, PermanentVisit {
  /** Without the checks for application code: for reads and writes of the library itself. */
  readonly data: SessionDictionary;
  private own: SessionObject | undefined;
  /** The object at `request.session`, after it was first read. Null: it was destroyed. */
  private shown: ShownSession | null | undefined;
  private ownCookie: SessionCookie | undefined;
  /** Whether the stored visit should outlive the browser session, if that must change. */
  permanence: boolean | undefined;

  constructor(
    private readonly context: RequestContext,
    private readonly saver: SessionSaver,
  ) {
    this.data = saver.dictionaryOf(context, (kind) => {
      if (kind === 'change') context.requireSaveToCome();
      context.watchResponse();
    });
  }

  /** The object that the application gets from `@Session()` and by injection. */
  get object(): SessionObject {
    return (this.own ??= createSessionObject(this));
  }

  /** The object at `request.session`. */
  get compatible(): CompatibleSession | undefined {
    if (this.shown === undefined) this.shown = showSession(this, this.context.exchange.style);
    return this.shown?.object;
  }

  /**
   * The data for application code.
   *
   * @throws VisitNotResolvedError after the end of the request
   */
  get dictionary(): SessionDictionary {
    this.context.requireVisit();
    return this.data;
  }

  change<T>(make: (dictionary: SessionDictionary) => T): T | undefined {
    if (!this.context.isOver) return make(this.dictionary);
    logger.error(
      'A session was changed after the end of its request, and the change is lost; await session.update() before ' +
        'the response is sent',
      new Error().stack,
    );
    return undefined;
  }

  hasChanges(): boolean {
    return this.permanence !== undefined || this.data.changes() !== null;
  }

  revert(): void {
    this.data.revert();
    this.permanence = undefined;
  }

  mark(): SessionMark {
    return { data: this.data.mark(), permanence: this.permanence };
  }

  restore(mark: SessionMark | null): void {
    this.data.restore(mark?.data ?? null);
    this.permanence = mark?.permanence;
  }

  save(): Promise<void> {
    return Turn.take(this.context, 'session.save()', (turn) => this.context.environment.life.save(turn));
  }

  reload(): Promise<void> {
    return Turn.take(this.context, 'session.reload()', (turn) => this.saver.reload(turn));
  }

  update(key: string, change: (value: unknown) => unknown): Promise<unknown> {
    return Turn.take(this.context, 'session.update()', async (turn) => {
      requireShown(key);
      return this.saver.update(turn, key, change);
    });
  }

  take(key: string): Promise<unknown> {
    return Turn.take(this.context, 'session.take()', async (turn) => {
      requireShown(key);
      return this.saver.take(turn, key);
    });
  }

  get id(): string {
    const { context } = this;
    // Whoever asks for it will look for it in the next request.
    if (context.requireVisit().is === 'unsaved' && !context.haveHeadersLeft) context.noteWanted();
    return idOf(context.visit);
  }

  get request(): unknown {
    return this.context.exchange.request;
  }

  get cookie(): SessionCookie {
    return (this.ownCookie ??= new SessionCookie(this.context, this));
  }

  get isPermanent(): boolean {
    return this.permanence ?? this.context.requireVisit().record.permanent;
  }

  set isPermanent(permanent: boolean) {
    const { is, record } = this.context.requireVisit();
    if (is === 'stored') this.permanence = permanent === record.permanent ? undefined : permanent;
    else this.context.amend({ permanent });
    this.context.watchResponse();
  }

  noteOtherLife(): void {
    this.saver.noteOtherLife();
  }

  regenerate(keep: readonly string[]): Promise<void> {
    return Turn.take(this.context, 'session.regenerate()', async (turn) => {
      const contents = this.dictionary.contents();
      const detach = this.shown?.freeze(idOf(this.context.visit));
      await this.context.environment.life.regenerate(turn);
      detach?.();
      this.shown = undefined;
      for (const key of keep) if (contents.has(key)) this.data.set(key, contents.get(key));
    });
  }

  destroy(): Promise<void> {
    if (!this.context.isOver) {
      // At once: who does not wait for it finds nothing either.
      this.shown?.freeze(idOf(this.context.visit))();
      this.shown = null;
    }
    return Turn.take(this.context, 'session.destroy()', (turn) => this.context.environment.life.destroy(turn));
  }

  /** Called for `request.session = value`: null or undefined deletes all data; an object replaces the data. */
  assign(value: unknown): void {
    if (value && (value === this.own || value === this.shown?.object)) return;
    if (value !== null && value !== undefined && typeof value !== 'object') {
      throw new SessionDataError('SESSION_VALUE', `request.session takes an object or null, got ${typeof value}`);
    }
    this.change((dictionary) => {
      dictionary.clear();
      if (!value) return;
      if (this.shown === null) this.shown = undefined;
      for (const [key, entry] of Object.entries(value)) {
        // That of another session, which has come with it.
        if (key === 'cookie' && isCookie(entry)) continue;
        requireShown(key);
        dictionary.set(key, entry);
      }
    });
  }
}

/**
 * A different id after each change of rights: what other libraries attach to it, such as a form token, must not survive
 * one (CWE-384).
 */
function idOf({ record: { id, identity } }: VisitState): string {
  if (!identity) return id;
  return createHash('sha256').update(`${id} ${identity.userId} ${identity.authenticatedAt}`).digest('hex').slice(0, 32);
}

const isCookie = (value: unknown): boolean => typeof value === 'object' && value !== null && 'maxAge' in value;
