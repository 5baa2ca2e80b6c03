import type { IncomingMessage } from 'node:http';
import type { ExecutionContext } from '@nestjs/common';
import {
  VisitHeadersSentError,
  VisitHttpError,
  VisitNoResponseError,
  VisitNotResolvedError,
} from '../errors/visit.error.js';
import type { VisitKey } from '../key/visit-key.js';
import type { Resolution } from '../key/visit.resolver.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { hasClosed, type Exchange, type FrameworkRequest } from '../platform/exchange.js';
import type { ClientStorage } from '../store/visit.facets.js';
import type { VisitRecord } from '../store/visit.store.js';
import type { CurrentRequest, Scope } from './current-request.js';
import type { HandlerPolicy } from './handler-policy.js';
import type { SessionLife } from './session-life.js';
import { TurnQueue } from './turn.js';
import { VisitView } from './visit-view.js';

/** Whose visit this is, as far as the request knows. A value: it is replaced, never changed. */
export interface VisitState {
  /**
   * `stored`: there is a row. `unsaved`: a new visit with nothing to keep yet. `late`: the request came with a key that
   * another request has just replaced, or with cookies of different users; it is served as anonymous, and neither
   * writes nor touches the client's cookie (law 4).
   */
  readonly is: 'stored' | 'unsaved' | 'late';
  /** What the store has; for an unsaved visit, what it would get. */
  readonly record: VisitRecord;
  /** The key the client holds, or will hold. */
  readonly key: VisitKey;
  /** Whether the visit began with this request. */
  readonly isNew: boolean;
  /** Somebody relies on the key, so that an unsaved visit has to be stored. */
  readonly isWanted: boolean;
}

/** What became of a form token. `unknown`: it is too old, or of another visit, or none at all. */
export type FormTokenOutcome = 'accepted' | 'missing' | 'used' | 'unknown';

/** What looking for the visit has come to. */
export type Lookup =
  /** Not done: the key may be in the body, which has not been parsed. */
  | { readonly is: 'pending' }
  /** The store did not answer: whoever needs the visit gets this error. */
  | { readonly is: 'failed'; readonly error: unknown }
  | { readonly is: 'done'; readonly resolution: Resolution };

/** The keys that came with the request, and where they were looked for. */
export interface PresentedKeys {
  readonly sources: ResolvedVisitOptions['source'];
  readonly keys: readonly VisitKey[];
}

/** What the response will say of the visit. Written into its headers once, when they leave. */
export interface Outgoing {
  /** `clear`: the client's cookie leads nowhere any more. */
  cookie: 'leave' | 'send' | 'clear';
  /**
   * How long the cookie lasts, in milliseconds, where the application says so; null: as long as the browser's session.
   */
  lifetime: number | null | undefined;
  /** The client's visit has ended, or its user has signed out: what the browser keeps of it must go. */
  clearSiteData: boolean;
  /**
   * The key is in the page or in its address: a link or field with it has been made, or the request came with one in
   * its query.
   */
  keyInPage: boolean;
  /** Something failed that may work in a moment. */
  retryAfter: boolean;
}

/** The session of one request, as far as others need to know it. */
export interface HeldSession {
  /** What the application sees. */
  readonly object: object;
  /** @throws SessionDataError for a value that cannot be kept */
  hasChanges(): boolean;
  /** Forgets what has not been saved. */
  revert(): void;
  /** What has changed by now, for `restore`. Null: nothing. */
  mark(): unknown;
  /** Forgets all unsaved changes but those of the mark. */
  restore(mark: unknown): void;
}

/** Exclusive access of this request to its session. */
export interface HeldLock {
  readonly visitId: string;
  readonly owner: string;
  /** Handlers of this request that rely on it: GraphQL calls several. */
  holders: number;
  release(): Promise<void>;
}

/** What all requests of an application share. */
export interface RequestEnvironment {
  readonly options: ResolvedVisitOptions;
  readonly requests: CurrentRequest;
  readonly life: SessionLife;
  /** The store knows visits by what comes with a request, and what is written of them reaches it with the response. */
  readonly clientsKeepVisits: boolean;
  /** The session of the request; made at the first call. */
  sessionOf(context: RequestContext): HeldSession;
  /** From now on the response asks before it leaves: something may have to be saved, or said in its headers. */
  watchResponse(context: RequestContext): void;
}

const CONTEXT = Symbol.for('nest-visit.context');
const PENDING: Lookup = { is: 'pending' };
const NOTHING: PresentedKeys = { sources: [], keys: [] };

/** What one request carries from the moment it arrives until its response has left. */
export class RequestContext {
  lookup: Lookup = PENDING;
  presented: PresentedKeys = NOTHING;
  /** What the response says; most say nothing. */
  private saying: Outgoing | undefined;
  /** The writes of this request follow one another; most requests write nothing. */
  private queue: TurnQueue | undefined;
  /** What runs for this request, for whoever does not name it. */
  readonly scope: Scope = { context: this, isSkipped: false, turn: undefined };
  /** What the handler asks for. Undefined before the handler is known. The last one, where a request has several. */
  policy: HandlerPolicy | undefined;
  /** Applying the policy, while it goes on. */
  applyingPolicy: Promise<void> | undefined;
  /** Touch, plugins and `request.user` happen once, when the handler is known. */
  recording: 'due' | 'done' | Promise<void> = 'due';
  /** Refused keys are reported once, when the handler is known. */
  refusalsReported = false;
  /** The only handler of this request wants no visit. */
  isSkipped = false;
  /** The save of all that is unsaved, while it runs. */
  saving: Promise<void> | undefined;
  /** Handlers that run. */
  handlers = 0;
  /** The headers are on their way to the client. */
  private headersLeft = false;
  /** The response asks before it leaves. */
  isWatched = false;
  /** Somebody has looked at visit, session or user: the response depends on them, and caches are told so. */
  isRead = false;
  /** Only with a store that keeps visits with their clients. */
  clientStorage: ClientStorage | undefined;
  lock: HeldLock | undefined;
  heldSession: HeldSession | undefined;
  /** What became of the form token that the request brought, which is used up by the first guard that asks. */
  formToken: Promise<FormTokenOutcome> | undefined;
  /** The user object, loaded when first asked for. */
  user: Promise<unknown> | undefined;
  /** What has been put at `request.user`; nothing else there is ours. */
  shownUser: unknown;
  private state: VisitState | undefined;
  private view: VisitView | undefined;

  constructor(
    readonly environment: RequestEnvironment,
    readonly exchange: Exchange,
    /** When the request came in, in milliseconds since 1970. A sign-in is as old as its request. */
    public began: number,
  ) {}

  get outgoing(): Outgoing {
    return (this.saying ??= {
      cookie: 'leave',
      lifetime: undefined,
      clearSiteData: false,
      keyInPage: false,
      retryAfter: false,
    });
  }

  get turns(): TurnQueue {
    return (this.queue ??= new TurnQueue(this));
  }

  /** Whether a write is under way, or one has failed that nobody waited for. */
  get isWriting(): boolean {
    return this.queue !== undefined && this.queue.isBusy;
  }

  /** What runs in a handler of this request that wants no visit. */
  get skippedScope(): Scope {
    return { context: this, isSkipped: true, turn: undefined };
  }

  /** The response has left and no handler runs any more: nothing acts for this request from here on. */
  get isOver(): boolean {
    return this.handlers === 0 && hasClosed(this.exchange.rawResponse);
  }

  /**
   * Whose visit this is.
   *
   * @throws VisitNotResolvedError while it is not known; VisitStoreUnavailableError when the store could not be asked
   */
  get visit(): VisitState {
    if (this.state) return this.state;
    if (this.lookup.is === 'failed') throw this.lookup.error;
    throw new VisitNotResolvedError(
      'the visit is not known yet: its key may be in the body, which has not been parsed; use it in a guard or ' +
        'handler, or after the body parser',
    );
  }

  set visit(visit: VisitState) {
    this.state = visit;
  }

  /** The store could not be asked. */
  failLookup(error: unknown): void {
    this.lookup = { is: 'failed', error };
    this.state = undefined;
    this.noteFailure(error);
  }

  /** Where the client may try again in a moment, the response says so. */
  noteFailure(error: unknown): void {
    if (!(error instanceof VisitHttpError) || ![423, 503].includes(error.getStatus())) return;
    this.outgoing.retryAfter = true;
    this.watchResponse();
  }

  /** The visit, or undefined where reading `visit` would throw. */
  get resolvedVisit(): VisitState | undefined {
    return this.state;
  }

  /** The request goes on with the same visit, of which something is otherwise. */
  amend(record: Partial<VisitRecord>, state: Partial<Omit<VisitState, 'record'>> = {}): void {
    const { visit } = this;
    this.visit = { ...visit, ...state, record: { ...visit.record, ...record } };
  }

  /** @throws VisitNotResolvedError when the request is over */
  requireOpen(): void {
    if (!this.isOver) return;
    throw new VisitNotResolvedError(
      'the request has ended, so its session, visit and user can no longer be used; read what you need before ' +
        'the response is sent (such as an id), or use visits.create()',
    );
  }

  /** For whatever the application reads. @throws VisitNotResolvedError, VisitStoreUnavailableError */
  requireVisit(): VisitState {
    this.requireOpen();
    if (!this.isRead) this.noteRead();
    return this.visit;
  }

  /** What the response says may depend on the visit from here on. */
  noteRead(): void {
    this.isRead = true;
    this.watchResponse();
  }

  /** The session. @throws like `requireVisit` */
  get session(): object {
    this.requireVisit();
    return this.environment.sessionOf(this).object;
  }

  /** The visit as the application sees it. @throws like `requireVisit` */
  get current(): VisitView {
    this.requireVisit();
    return this.unread;
  }

  /** The same, for whoever may not look at it: it is being read that counts. */
  get unread(): VisitView {
    return (this.view ??= new VisitView(this));
  }

  /** Whether the headers have left, so that nothing can be said in them any more. */
  get haveHeadersLeft(): boolean {
    return this.headersLeft || (!this.isWatched && this.exchange.rawResponse.headersSent);
  }

  noteHeadersLeft(): void {
    this.headersLeft = true;
  }

  /** @throws VisitHeadersSentError when the client cannot be told any more, VisitNoResponseError where it never can */
  requireHeaders(act: string): void {
    if (!this.haveHeadersLeft) return;
    throw this.exchange.isMessage ? new VisitNoResponseError(act) : new VisitHeadersSentError(act);
  }

  /**
   * For a change that is saved later. After the handler of a message, as in the events of a subscription, no save
   * comes.
   *
   * @throws like `requireHeaders`
   */
  requireSaveToCome(): void {
    this.requireChangeable();
    if (!this.exchange.isMessage || this.handlers > 0 || this.recording === 'due') return;
    throw new VisitHeadersSentError('The session cannot be changed');
  }

  /**
   * For a change of the session. What a message changes of a stored visit is stored with no word to its client.
   *
   * @throws like `requireHeaders`
   */
  requireChangeable(): void {
    if (this.exchange.isMessage && this.state?.is === 'stored' && !this.environment.clientsKeepVisits) return;
    this.requireHeaders('The session cannot be changed');
  }

  /** The response carries the key. */
  sendKey(): void {
    this.outgoing.cookie = 'send';
    this.watchResponse();
  }

  /** Somebody relies on the visit: an unsaved one has to be stored. */
  noteWanted(): void {
    const { visit } = this;
    if (!visit.isWanted) this.visit = { ...visit, isWanted: true };
    this.watchResponse();
  }

  /** Somebody will come back with the key, and the page is not for caches. */
  noteKeyInPage(): void {
    this.outgoing.keyInPage = true;
    this.noteWanted();
  }

  watchResponse(): void {
    if (!this.isWatched) this.environment.watchResponse(this);
  }
}

/** @internal */
export function skipped(): VisitNotResolvedError {
  return new VisitNotResolvedError(
    'this handler is marked with @SkipVisit(), so neither the handler nor its guards have a visit or a session',
  );
}

type Carrier = IncomingMessage & { [CONTEXT]?: RequestContext };

const carrierOf = (request: FrameworkRequest): Carrier => (request.raw ?? request) as Carrier;

export function attachContext(request: FrameworkRequest, context: RequestContext): void {
  carrierOf(request)[CONTEXT] = context;
}

export function findContext(request: FrameworkRequest): RequestContext | undefined {
  return carrierOf(request)[CONTEXT];
}

/** Whose messages come on a connection, by its socket: of which application. */
const clients = new WeakMap<object, CurrentRequest>();

/** Messages of this socket are served by this application. */
export function bindClient(client: object, requests: CurrentRequest): void {
  clients.set(client, requests);
}

/** Messages whose guards have been called, by what all of their guards and interceptors share. */
const messages = new WeakMap<object, RequestContext>();

/** From now on guards and interceptors of this message know it by itself, whoever calls them. */
export function bindMessage(execution: ExecutionContext, context: RequestContext): void {
  messages.set(execution.getArgs(), context);
}

/**
 * The context for which a handler is called, if it has one.
 *
 * @throws VisitNotResolvedError for a message that can be known only by its being served, when it is another client's
 *   that is (law 8)
 */
export function findContextIn(execution: ExecutionContext): RequestContext | undefined {
  if (execution.getType() === 'ws')
    return messages.get(execution.getArgs()) ?? servedFor(execution.getArgByIndex<object>(0));
  const operation = execution.getType<string>() === 'graphql' ? findOperation(execution.getArgByIndex(2)) : undefined;
  if (operation) return operation;
  const request = findRequest(execution);
  return request && findContext(request);
}

/**
 * The message that is being served, which must have come from this client. Undefined: no message of it is served with
 * visits.
 */
function servedFor(client: object): RequestContext | undefined {
  const requests = clients.get(client);
  if (!requests) return undefined;
  const context = requests.scope?.context;
  if (context?.exchange.client === client) return context;
  throw new VisitNotResolvedError(
    'this message is handled in a foreign asynchronous context, maybe that of another client: bind the callback ' +
      'to the context of its caller (AsyncResource.bind)',
  );
}

/** Operations of GraphQL that have come on a socket, by what their resolvers share. */
const operations = new WeakMap<object, RequestContext>();

/** From now on all resolvers that share this are called for this context. */
export function bindOperation(shared: object, context: RequestContext): void {
  operations.set(shared, context);
}

export function findOperation(shared: unknown): RequestContext | undefined {
  return typeof shared === 'object' && shared !== null ? operations.get(shared) : undefined;
}

/** The framework's request in an execution context of HTTP or GraphQL, if there is one. */
export function findRequest(execution: ExecutionContext): FrameworkRequest | undefined {
  const type = execution.getType<string>();
  if (type === 'http') return execution.switchToHttp().getRequest<FrameworkRequest>();
  if (type !== 'graphql') return undefined;
  const context = execution.getArgByIndex<{ req?: FrameworkRequest; request?: FrameworkRequest } | undefined>(2);
  return context?.req ?? context?.request;
}

/** The framework's request in whatever a caller has at hand. @throws VisitNotResolvedError if there is none */
export function requestOf(source: FrameworkRequest | ExecutionContext): FrameworkRequest {
  if (!('getArgByIndex' in source)) return source;
  const request = findRequest(source);
  if (!request) throw new VisitNotResolvedError(`there is no request in this ${source.getType()} context`);
  return request;
}

/**
 * The context of the request, or of the handler that is called.
 *
 * @throws VisitNotResolvedError if it never came by the entry of the module
 */
export function contextOf(source: FrameworkRequest | ExecutionContext): RequestContext {
  const context = 'getArgByIndex' in source ? findContextIn(source) : findContext(source);
  if (context) return context;
  if (!('getArgByIndex' in source) || source.getType() !== 'ws') requestOf(source);
  throw new VisitNotResolvedError(
    'this request has no visit: is VisitModule imported by the application that serves it?',
  );
}

/**
 * The context of the handler that is called, which must have a visit.
 *
 * @throws VisitNotResolvedError, VisitStoreUnavailableError
 */
export function requireContext(source: FrameworkRequest | ExecutionContext): RequestContext {
  const context = contextOf(source);
  return context.environment.requests.requireIn(context);
}
