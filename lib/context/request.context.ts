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

/** The visit of a request, as far as the request knows it. A value: it is replaced, never modified. */
export interface VisitState {
  /**
   * `stored`: there is a row. `unsaved`: a new visit with nothing to store yet. `late`: the request came with a key
   * that another request has just replaced, or with cookies of different users. It is served as anonymous, and neither
   * writes nor changes the client's cookie (law 4).
   */
  readonly is: 'stored' | 'unsaved' | 'late';
  /** The stored record; for an unsaved visit, the record to store. */
  readonly record: VisitRecord;
  /** The key that the client has, or will receive. */
  readonly key: VisitKey;
  /** Whether the visit began with this request. */
  readonly isNew: boolean;
  /** Whether code relies on the key, so that an unsaved visit must be stored. */
  readonly isWanted: boolean;
}

/** The result of consuming a form token. `unknown`: it has expired, belongs to another visit, or is not a token. */
export type FormTokenOutcome = 'accepted' | 'missing' | 'used' | 'unknown';

/** The state of the look-up. */
export type Lookup =
  /** Pending: the key may be in the body, which has not been parsed. */
  | { readonly is: 'pending' }
  /** The look-up failed: code that needs the visit gets this error. */
  | { readonly is: 'failed'; readonly error: unknown }
  | { readonly is: 'done'; readonly resolution: Resolution };

/** The keys of the request, and the sources they were read from. */
export interface PresentedKeys {
  readonly sources: ResolvedVisitOptions['source'];
  readonly keys: readonly VisitKey[];
}

/** The headers of the visit in the response. They are written once, when the headers are sent. */
export interface Outgoing {
  /** `clear`: the client's cookie is no longer valid. */
  cookie: 'leave' | 'send' | 'clear';
  /** The lifetime of the cookie in milliseconds, if the application sets it; null: until the browser is closed. */
  lifetime: number | null | undefined;
  /** Whether the client's visit has ended or its user has signed out, so that the browser should delete its data. */
  clearSiteData: boolean;
  /**
   * Whether the key is in the page or in its URL: a link or field with it was created, or the request had a key in its
   * query.
   */
  keyInPage: boolean;
  /** Whether a failure was temporary. */
  retryAfter: boolean;
}

/** The part of a request's session that other folders use. */
export interface HeldSession {
  /** The object that the application uses. */
  readonly object: object;
  /** @throws SessionDataError for a value that cannot be stored */
  hasChanges(): boolean;
  /** Discards unsaved changes. */
  revert(): void;
  /** The current changes, for `restore`. Null: none. */
  mark(): unknown;
  /** Discards all unsaved changes except those of the mark. */
  restore(mark: unknown): void;
}

/** Exclusive access of this request to its session. */
export interface HeldLock {
  readonly visitId: string;
  readonly owner: string;
  /** The number of handlers of this request that rely on it: GraphQL calls several. */
  holders: number;
  release(): Promise<void>;
}

/** The values that all requests of an application share. */
export interface RequestEnvironment {
  readonly options: ResolvedVisitOptions;
  readonly requests: CurrentRequest;
  readonly life: SessionLife;
  /** Whether the store receives visits with the request, and returns them with the response. */
  readonly clientsKeepVisits: boolean;
  /** The session of the request; created at the first call. */
  sessionOf(context: RequestContext): HeldSession;
  /** Makes the response wait from now on, because there may be changes to save or headers to add. */
  watchResponse(context: RequestContext): void;
}

const CONTEXT = Symbol.for('nest-visit.context');
const PENDING: Lookup = { is: 'pending' };
const NOTHING: PresentedKeys = { sources: [], keys: [] };

/** Everything that belongs to one request, from its arrival until its response was sent. */
export class RequestContext {
  lookup: Lookup = PENDING;
  presented: PresentedKeys = NOTHING;
  /** The headers of the response; most requests have none. */
  private saying: Outgoing | undefined;
  /** The queue of writes; most requests write nothing. */
  private queue: TurnQueue | undefined;
  /** The scope of this request in the asynchronous context. */
  readonly scope: Scope = { context: this, isSkipped: false, turn: undefined };
  /**
   * The settings of the handler. Undefined before it is known. If a request has several handlers, those of the last
   * one.
   */
  policy: HandlerPolicy | undefined;
  /** The application of the policy, while it is running. */
  applyingPolicy: Promise<void> | undefined;
  /** Touch, plugins and `request.user` happen once, when the handler is known. */
  recording: 'due' | 'done' | Promise<void> = 'due';
  /** Refused keys are reported once, when the handler is known. */
  refusalsReported = false;
  /** Whether the only handler of this request has no visit. */
  isSkipped = false;
  /** The save of all changes, while it is running. */
  saving: Promise<void> | undefined;
  /** The number of running handlers. */
  handlers = 0;
  /** Whether the headers were sent. */
  private headersLeft = false;
  /** Whether the response waits for unsaved changes. */
  isWatched = false;
  /** Whether code has read the visit, session or user: the response depends on them, and caches are told so. */
  isRead = false;
  /** Only for a store that keeps visits in clients. */
  clientStorage: ClientStorage | undefined;
  lock: HeldLock | undefined;
  heldSession: HeldSession | undefined;
  /** The result for the form token of the request, which is consumed by the first guard that requires it. */
  formToken: Promise<FormTokenOutcome> | undefined;
  /** The user object, loaded when it is first used. */
  user: Promise<unknown> | undefined;
  /** What the library has set at `request.user`. */
  shownUser: unknown;
  private state: VisitState | undefined;
  private view: VisitView | undefined;

  constructor(
    readonly environment: RequestEnvironment,
    readonly exchange: Exchange,
    /** When the request arrived, in milliseconds since 1970. A sign-in is as old as its request. */
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

  /** Whether a write is running, or one that was not awaited has failed. */
  get isWriting(): boolean {
    return this.queue !== undefined && this.queue.isBusy;
  }

  /** The scope of a handler of this request without a visit. */
  get skippedScope(): Scope {
    return { context: this, isSkipped: true, turn: undefined };
  }

  /** Whether the response was sent and no handler is running. From then on, no code acts for this request. */
  get isOver(): boolean {
    return this.handlers === 0 && hasClosed(this.exchange.rawResponse);
  }

  /**
   * The visit.
   *
   * @throws VisitNotResolvedError while it is not known; VisitStoreUnavailableError if the look-up failed
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

  /** Called when the look-up has failed. */
  failLookup(error: unknown): void {
    this.lookup = { is: 'failed', error };
    this.state = undefined;
    this.noteFailure(error);
  }

  /** Adds `Retry-After` to the response if the failure is temporary. */
  noteFailure(error: unknown): void {
    if (!(error instanceof VisitHttpError) || ![423, 503].includes(error.getStatus())) return;
    this.outgoing.retryAfter = true;
    this.watchResponse();
  }

  /** The visit, or undefined if reading `visit` would throw. */
  get resolvedVisit(): VisitState | undefined {
    return this.state;
  }

  /** Continues with the same visit, with other values. */
  amend(record: Partial<VisitRecord>, state: Partial<Omit<VisitState, 'record'>> = {}): void {
    const { visit } = this;
    this.visit = { ...visit, ...state, record: { ...visit.record, ...record } };
  }

  /** @throws VisitNotResolvedError after the end of the request */
  requireOpen(): void {
    if (!this.isOver) return;
    throw new VisitNotResolvedError(
      'the request has ended, so its session, visit and user can no longer be used; read what you need before ' +
        'the response is sent (such as an id), or use visits.create()',
    );
  }

  /**
   * Called for everything that the application reads.
   *
   * @throws VisitNotResolvedError, VisitStoreUnavailableError
   */
  requireVisit(): VisitState {
    this.requireOpen();
    if (!this.isRead) this.noteRead();
    return this.visit;
  }

  /** Called when the response may depend on the visit from now on. */
  noteRead(): void {
    this.isRead = true;
    this.watchResponse();
  }

  /** The session. @throws like `requireVisit` */
  get session(): object {
    this.requireVisit();
    return this.environment.sessionOf(this).object;
  }

  /**
   * The visit, as the application uses it.
   *
   * @throws like `requireVisit`
   */
  get current(): VisitView {
    this.requireVisit();
    return this.unread;
  }

  /** The same, before it is read: only reading it makes the response depend on it. */
  get unread(): VisitView {
    return (this.view ??= new VisitView(this));
  }

  /** Whether the headers were sent. */
  get haveHeadersLeft(): boolean {
    return this.headersLeft || (!this.isWatched && this.exchange.rawResponse.headersSent);
  }

  noteHeadersLeft(): void {
    this.headersLeft = true;
  }

  /** @throws VisitHeadersSentError if the headers were sent; VisitNoResponseError if there is no response */
  requireHeaders(act: string): void {
    if (!this.haveHeadersLeft) return;
    throw this.exchange.isMessage ? new VisitNoResponseError(act) : new VisitHeadersSentError(act);
  }

  /**
   * For a change that is saved later. After the handler of a message, as in the events of a subscription, there is no
   * save.
   *
   * @throws like `requireHeaders`
   */
  requireSaveToCome(): void {
    this.requireChangeable();
    if (!this.exchange.isMessage || this.handlers > 0 || this.recording === 'due') return;
    throw new VisitHeadersSentError('The session cannot be changed');
  }

  /**
   * For a change of the session. A message can change a stored visit, because this needs no response.
   *
   * @throws like `requireHeaders`
   */
  requireChangeable(): void {
    if (this.exchange.isMessage && this.state?.is === 'stored' && !this.environment.clientsKeepVisits) return;
    this.requireHeaders('The session cannot be changed');
  }

  /** Makes the response set the key. */
  sendKey(): void {
    this.outgoing.cookie = 'send';
    this.watchResponse();
  }

  /** Called when code relies on the visit: an unsaved one must be stored. */
  noteWanted(): void {
    const { visit } = this;
    if (!visit.isWanted) this.visit = { ...visit, isWanted: true };
    this.watchResponse();
  }

  /** Called when the page contains the key: a client will return with it, and caches must not store the page. */
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

/** The applications that serve the messages of a connection, by its socket. */
const clients = new WeakMap<object, CurrentRequest>();

/** Registers that messages of this socket are served by this application. */
export function bindClient(client: object, requests: CurrentRequest): void {
  clients.set(client, requests);
}

/** Messages whose guards have run, by the object that all of their guards and interceptors share. */
const messages = new WeakMap<object, RequestContext>();

/** Makes guards and interceptors of this message find its context, whoever calls them. */
export function bindMessage(execution: ExecutionContext, context: RequestContext): void {
  messages.set(execution.getArgs(), context);
}

/**
 * The context of a handler, if it has one.
 *
 * @throws VisitNotResolvedError for a message that can only be identified by the asynchronous context, if that belongs
 * to another client (law 8)
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
 * The message that is being served, if it came from this client. Undefined: no message of this client is served with
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

/** GraphQL operations over a socket, by the object that their resolvers share. */
const operations = new WeakMap<object, RequestContext>();

/** Makes all resolvers that share this object find this context. */
export function bindOperation(shared: object, context: RequestContext): void {
  operations.set(shared, context);
}

export function findOperation(shared: unknown): RequestContext | undefined {
  return typeof shared === 'object' && shared !== null ? operations.get(shared) : undefined;
}

/** The framework's request of an execution context for HTTP or GraphQL, if there is one. */
export function findRequest(execution: ExecutionContext): FrameworkRequest | undefined {
  const type = execution.getType<string>();
  if (type === 'http') return execution.switchToHttp().getRequest<FrameworkRequest>();
  if (type !== 'graphql') return undefined;
  const context = execution.getArgByIndex<{ req?: FrameworkRequest; request?: FrameworkRequest } | undefined>(2);
  return context?.req ?? context?.request;
}

/**
 * The framework's request of any object that a caller has.
 *
 * @throws VisitNotResolvedError if there is none
 */
export function requestOf(source: FrameworkRequest | ExecutionContext): FrameworkRequest {
  if (!('getArgByIndex' in source)) return source;
  const request = findRequest(source);
  if (!request) throw new VisitNotResolvedError(`there is no request in this ${source.getType()} context`);
  return request;
}

/**
 * The context of a request or of a handler.
 *
 * @throws VisitNotResolvedError if there is no request, or if it did not pass the entry of the module
 */
export function contextOf(source: FrameworkRequest | ExecutionContext): RequestContext {
  // In a GraphQL context, for example, there may be no request. A text may be a key, and is not shown.
  if (typeof source !== 'object' || source === null)
    throw new VisitNotResolvedError(
      `a request or an execution context is needed, got ${source === null ? 'null' : typeof source}`,
    );
  const context = 'getArgByIndex' in source ? findContextIn(source) : findContext(source);
  if (context) return context;
  if (!('getArgByIndex' in source) || source.getType() !== 'ws') requestOf(source);
  throw new VisitNotResolvedError(
    'this request has no visit: is VisitModule imported by the application that serves it? The handshake of a socket ' +
      'is not a request: use visits.verify() for it',
  );
}

/**
 * The context of a handler, which must have a visit.
 *
 * @throws VisitNotResolvedError, VisitStoreUnavailableError
 */
export function requireContext(source: FrameworkRequest | ExecutionContext): RequestContext {
  const context = contextOf(source);
  return context.environment.requests.requireIn(context);
}
