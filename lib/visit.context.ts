import type { IncomingMessage } from 'node:http';
import type { ExecutionContext } from '@nestjs/common';
import { VisitNotResolvedError } from './errors/visit.error.js';
import type { VisitKey } from './key/visit-key.js';
import type { Exchange, FrameworkRequest } from './platform/exchange.js';
import type { SessionDictionary } from './session/session.dictionary.js';
import { createSessionObject, type SessionActions, type SessionObject } from './session/session.object.js';
import type { Attendance, VisitRecord } from './store/visit.store.js';
import type { VisitView } from './visit/visit-view.js';

/** The visit of a request, as far as the request knows it. */
export interface VisitState {
  /** What the store has; for an unsaved visit, what it would get. */
  record: VisitRecord;
  /** The key the client holds, or will hold. */
  key: VisitKey;
  readonly isNew: boolean;
  /**
   * `stored`: there is a row. `unsaved`: a new visit with nothing to keep yet. `late`: the request came with a key that
   * another request has just replaced; it is served as anonymous, and neither writes nor touches the client's cookie (law 4).
   */
  standing: 'stored' | 'unsaved' | 'late';
  /** The client does not have the key yet. */
  sendKey: boolean;
  /** Somebody relies on the key, so that an unsaved visit has to be stored. */
  kept: boolean;
}

/** What the doors know about the handler that is to be called. */
export interface VisitPolicy {
  readonly skip: boolean;
  readonly passive: boolean;
  readonly timeout: number | undefined;
  readonly source: readonly ('cookie' | 'query' | 'body')[] | undefined;
  readonly path: string | undefined;
  /** How long to wait for exclusive access to the session, in milliseconds; undefined: it is not wanted. */
  readonly exclusive: number | undefined;
  /** It answers with server-sent events. */
  readonly events: boolean;
}

const CONTEXT = Symbol.for('nest-visit.context');

/** What one request carries from the moment it arrives until its response has left. */
export class VisitContext {
  visit: VisitState | undefined;
  /** The resolution under way or done, so that it happens once (R10). */
  resolving: Promise<void> | undefined;
  policy: VisitPolicy | undefined;
  /** The writes of this request follow one another. */
  writing: Promise<unknown> = Promise.resolve();
  /** The client's cookie leads nowhere any more and must go. */
  clearCookie = false;
  /** The client's visit has ended, or its user has signed out: what the browser keeps of it must go. */
  clearSiteData = false;
  /** A link or field with the key has been made for this response. */
  keyInPage = false;
  /** The request failed for a reason that passes. */
  retryLater = false;
  /** The handler is done; what is to be saved has been saved, or never will. */
  finished = false;
  headersWatched = false;
  /** Only with a store that keeps visits with their clients. */
  attendance: Attendance | undefined;
  /** The exclusive access of this request to its session. */
  lock: { readonly visitId: string; readonly owner: string; release(): Promise<void> } | undefined;
  /** Whether the request brought a form token, which is used up by the first guard that asks. */
  formToken: Promise<boolean> | undefined;
  /** The user object, loaded when first asked for. */
  user: Promise<unknown> | undefined;
  private sessionObject: SessionObject | undefined;
  private currentVisit: VisitView | undefined;

  constructor(
    readonly exchange: Exchange,
    /** When the request came in, in milliseconds since 1970. A sign-in is as old as its request. */
    public began: number,
    /** The lifecycle that opened this context: several applications in one process do not share any (R75). */
    readonly owner: object,
    private readonly actionsOf: (context: VisitContext) => SessionActions,
    private readonly currentOf: (context: VisitContext) => VisitView,
  ) {}

  /** The visit's state. @throws VisitNotResolvedError */
  get state(): VisitState {
    if (this.visit) return this.visit;
    throw new VisitNotResolvedError(
      this.policy?.skip
        ? 'this handler is marked with @SkipVisit(), so it has neither visit nor session'
        : 'the visit is not resolved yet; in a guard, `await visits.resolve(context)` first (VisitService)',
    );
  }

  /** The session. @throws VisitNotResolvedError */
  get session(): SessionObject {
    void this.state;
    return (this.sessionObject ??= createSessionObject(this.actions));
  }

  get current(): VisitView {
    void this.state;
    return (this.currentVisit ??= this.currentOf(this));
  }

  get dictionary(): SessionDictionary {
    return this.actions.dictionary;
  }

  /** Whether anybody has asked for the session. If not, there is nothing to compare, decode or save. */
  get sessionUsed(): boolean {
    return this.sessionActions !== undefined;
  }

  private sessionActions: SessionActions | undefined;
  /** The session without its rules on names, for what the library itself keeps in it. */
  get actions(): SessionActions {
    return (this.sessionActions ??= this.actionsOf(this));
  }
}

type Carrier = IncomingMessage & { [CONTEXT]?: VisitContext };

const carrierOf = (request: FrameworkRequest): Carrier => (request.raw ?? request) as Carrier;

export function attachContext(request: FrameworkRequest, context: VisitContext): void {
  carrierOf(request)[CONTEXT] = context;
}

export function findContext(request: FrameworkRequest): VisitContext | undefined {
  return carrierOf(request)[CONTEXT];
}

/** The framework's request in whatever a caller has at hand: a request, or an execution context of HTTP or GraphQL. */
export function requestOf(source: FrameworkRequest | ExecutionContext): FrameworkRequest {
  if (!('getArgByIndex' in source)) return source;
  if (source.getType<string>() === 'http') return source.switchToHttp().getRequest<FrameworkRequest>();
  const context = source.getArgByIndex<{ req?: FrameworkRequest; request?: FrameworkRequest } | undefined>(2);
  const request = context?.req ?? context?.request;
  if (!request) throw new VisitNotResolvedError(`there is no request in this ${source.getType()} context`);
  return request;
}

/** The context of the request. @throws VisitNotResolvedError if the request never passed the door */
export function contextOf(source: FrameworkRequest | ExecutionContext): VisitContext {
  const context = findContext(requestOf(source));
  if (!context) throw new VisitNotResolvedError('this request has no visit: is VisitModule imported by the application that serves it?');
  return context;
}
