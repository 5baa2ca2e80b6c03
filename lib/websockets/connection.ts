import { Logger } from '@nestjs/common';
import { isObservable, Observable } from 'rxjs';
import type { CurrentRequest } from '../context/current-request.js';
import type { RequestContext } from '../context/request.context.js';
import { reasonOf } from '../errors/failure.js';
import type { VisitKey } from '../key/visit-key.js';
import type { FrameworkRequest } from '../platform/exchange.js';
import { MessageExchange, type MessageConnection } from '../platform/handshake.js';
import type { RequestStory } from '../request/request.story.js';
import type { VisitVerifier } from '../request/visit.verifier.js';
import type { VisitRecord } from '../store/visit.store.js';
import { refusalOf } from '../store/visit.record.js';
import type { OpenStream, OpenStreams } from '../visit/open-streams.js';

/** What all connections of an application share. */
export interface ConnectionTools {
  readonly clock: { now(): number };
  readonly requests: CurrentRequest;
  readonly story: RequestStory;
  readonly verifier: VisitVerifier;
  readonly streams: OpenStreams;
}

/**
 * The close codes of connections (RFC 6455, 7.4.2: 4000 to 4999 are for applications; 1013 is IANA's "try again
 * later").
 */
export const CLOSE_CODES = {
  ended: { code: 4401, reason: 'The visit of this connection has ended' },
  foreign: { code: 4403, reason: 'This connection was opened from another site' },
  away: { code: 1013, reason: 'The session store is unavailable' },
} as const;

export type CloseCause = keyof typeof CLOSE_CODES;

/** The owner of a connection. */
type Owner =
  /** It is being looked up, and messages wait for it. */
  | { readonly is: 'unknown'; readonly known: Promise<void> }
  /** It was opened without a valid key. */
  | { readonly is: 'nobody' }
  | { readonly is: 'visit'; readonly key: VisitKey; readonly unfollow: () => void };

/**
 * One connection of a client. Its handshake determines its visit, and every message is served with the current state of
 * that visit. It ends with its key: when the visit ends, or when its rights change.
 */
export class Connection implements MessageConnection {
  private static readonly logger = new Logger('Visit');
  private owner: Owner = { is: 'nobody' };
  isClosed = false;
  /** The start of the previous message: messages start in the order of their arrival, whichever look-up is faster. */
  private before: Promise<void> | undefined;

  /**
   * @param errorFor converts an error to an answer to a message
   * @param close notifies the client and closes its connection
   */
  constructor(
    private readonly tools: ConnectionTools,
    readonly client: object,
    private readonly handshake: FrameworkRequest,
    readonly errorFor: (error: unknown) => unknown,
    private readonly close: (cause: CloseCause) => void,
  ) {
    const exchange = new MessageExchange(handshake, this);
    const keys = tools.verifier.keysIn(exchange);
    if (tools.verifier.isForeign(exchange)) this.end('foreign');
    else if (keys.length > 0) this.owner = { is: 'unknown', known: this.lookUp(exchange, keys) };
  }

  /** Called when the connection was closed, by either side. */
  noteClosed(): void {
    this.isClosed = true;
    if (this.owner.is === 'visit') this.owner.unfollow();
  }

  /** Serves a message: calls `handle` in its context, after all earlier messages have started. */
  async serve(handle: () => unknown): Promise<unknown> {
    const { before } = this;
    let started!: () => void;
    this.before = new Promise((resolve) => (started = resolve));
    const { exchange, context, ready } = this.begin();
    let result: unknown;
    try {
      await ready;
      await before;
      if (this.isClosed) return undefined;
      result = this.tools.requests.run(context.scope, handle);
    } finally {
      started();
    }
    return this.closeAfter(exchange, context, result);
  }

  /** The context of a message. When `ready` has resolved, its visit is known, or the connection is closed. */
  begin(): { exchange: MessageExchange; context: RequestContext; ready: Promise<void> } {
    const exchange = new MessageExchange(this.handshake, this);
    const context = this.tools.story.open(exchange);
    return { exchange, context, ready: this.find(context) };
  }

  /**
   * Looks up the current state of the visit, and discards what the context has seen of its session. Closes the
   * connection if the visit has ended.
   */
  async find(context: RequestContext): Promise<void> {
    if (this.owner.is === 'unknown') await this.owner.known;
    const key = this.owner.is === 'visit' ? this.owner.key : undefined;
    await this.tools.story.find(context, key ? [key] : []);
    context.heldSession?.revert();
    if (key && context.lookup.is === 'done' && context.lookup.resolution.outcome !== 'found') this.end('ended');
  }

  /** Closes the connection, because its visit is unknown. */
  giveUp(error: unknown): void {
    if (this.isClosed) return;
    Connection.logger.warn(`Closing a connection because its visit could not be looked up: ${reasonOf(error)}`);
    this.end('away');
  }

  /** The message is over when its handler is done: with its last answer, if there are several. */
  private async closeAfter(exchange: MessageExchange, context: RequestContext, result: unknown): Promise<unknown> {
    let isOver = true;
    try {
      const answers = await result;
      if (!isObservable(answers)) return answers;
      isOver = false;
      // Interceptors and handler run when this is subscribed to, which the adapter does outside of the message.
      return new Observable((subscriber) => {
        const running = this.tools.requests.run(context.scope, () => answers.subscribe(subscriber));
        return () => {
          running.unsubscribe();
          exchange.close();
        };
      });
    } finally {
      if (isOver) exchange.close();
    }
  }

  private async lookUp(exchange: MessageExchange, keys: readonly VisitKey[]): Promise<void> {
    const context = this.tools.story.open(exchange);
    try {
      await this.tools.story.find(context, keys);
      if (context.lookup.is === 'failed') throw context.lookup.error;
      if (context.lookup.is !== 'done' || this.isClosed) return;
      const { resolution } = context.lookup;
      // Its key has been replaced while it was on its way: the client has a better one by now.
      if (resolution.outcome === 'late' && !resolution.hasEnded) return this.end('ended');
      if (resolution.outcome === 'found') this.follow(resolution.key, resolution.record);
      else {
        this.owner = { is: 'nobody' };
        await this.tools.story.reportRefusals(context);
      }
    } catch (error) {
      this.giveUp(error);
    } finally {
      exchange.close();
    }
  }

  private follow(key: VisitKey, record: VisitRecord): void {
    const { clock, story, streams } = this.tools;
    const stream: OpenStream = {
      visitId: record.id,
      storedIn: story.clientsKeepVisits ? 'client' : 'store',
      record,
      isForeign: (stored) => refusalOf(stored, { id: stored.id, keyHash: key.hash, now: clock.now() }) !== null,
      end: () => this.end('ended'),
    };
    this.owner = { is: 'visit', key, unfollow: streams.add(stream) };
  }

  private end(cause: CloseCause): void {
    if (this.isClosed) return;
    this.noteClosed();
    this.close(cause);
  }
}
