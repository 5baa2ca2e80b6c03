import { Logger } from '@nestjs/common';
import type { HeldSession, RequestContext } from '../context/request.context.js';
import { SessionDataError } from '../errors/visit.error.js';
import { Turn } from '../context/turn.js';
import { SessionDictionary, type Mark } from './session.dictionary.js';
import { createSessionObject, requireShown, type SessionActions, type SessionObject } from './session.object.js';
import type { SessionSaver } from './session.saver.js';

const logger = new Logger('Visit');

/** The session of one request: what it has seen and changed of it, and the writes that it may call, each of which takes its turn. */
export class RequestSession implements HeldSession, SessionActions {
  /** Without the rules of the library's users: for what is read and written while their code is not involved. */
  readonly data: SessionDictionary;
  readonly object: SessionObject;

  constructor(
    private readonly context: RequestContext,
    private readonly saver: SessionSaver,
  ) {
    this.data = saver.dictionaryOf(context, (kind) => {
      if (kind === 'change') context.requireHeaders('The session cannot be changed');
      context.watchResponse();
    });
    this.object = createSessionObject(this);
  }

  /** What the application reads and changes. @throws VisitNotResolvedError when the request is over */
  get dictionary(): SessionDictionary {
    this.context.requireVisit();
    return this.data;
  }

  change<T>(make: (dictionary: SessionDictionary) => T): T | undefined {
    if (!this.context.isOver) return make(this.dictionary);
    logger.error(
      'A session was changed after its request was over, and nothing of that is kept; await session.update() before the response is sent',
      new Error().stack,
    );
    return undefined;
  }

  hasChanges(): boolean {
    return this.data.changes() !== null;
  }

  revert(): void {
    this.data.revert();
  }

  mark(): Mark | null {
    return this.data.mark();
  }

  restore(mark: Mark | null): void {
    this.data.restore(mark);
  }

  save(): Promise<void> {
    return Turn.take(this.context, 'session.save()', (turn) => this.saver.save(turn));
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

  /** `request.session = value`: null empties the session, an object takes the place of what was in it. */
  assign(value: unknown): void {
    if (value === this.object) return;
    if (value !== null && value !== undefined && typeof value !== 'object') {
      throw new SessionDataError('SESSION_VALUE', `request.session takes an object or null, got ${typeof value}`);
    }
    this.object.clear();
    for (const [key, entry] of Object.entries(value ?? {})) this.object.set(key, entry);
  }
}
