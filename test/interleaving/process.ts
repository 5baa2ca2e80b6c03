import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { HttpException, type ExecutionContext } from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import {
  CurrentVisit,
  ExclusiveSession,
  ExpungeService,
  FormTokenService,
  IdentityService,
  PassiveVisit,
  Session,
  UseVisit,
  VisitError,
  VisitModule,
  VisitPlugin,
  VisitService,
  type EndedVisit,
  type VisitsInDataSource,
  type VisitsInStore,
} from 'nest-visit';
import { defer, lastValueFrom } from 'rxjs';
import { VisitInterceptor } from '../../lib/request/visit.interceptor.js';
import { findContext } from '../../lib/context/request.context.js';
import { RequestStory } from '../../lib/request/request.story.js';
import { TouchQueue } from '../../lib/visit/touch.queue.js';
import { ManualClock } from '../support/manual-clock.js';

const HOUR = 3_600_000;
/** How long a visit lives idle in these suites. */
export const TIMEOUT = 20 * HOUR;
/** How long a touch may wait. Longer than any suite takes, so that none is written behind a schedule's back. */
export const TOUCH_INTERVAL = HOUR;
export const TOUCH_RESOLUTION = 60_000;

/** What a request came to. */
export interface Answer<T = unknown> {
  readonly status: number;
  /** The code of the library's error, if that is how it ended; `unexpected: …` for any other error. */
  readonly error?: string;
  readonly value?: T;
  /** The key in `Set-Cookie`; null: the cookie was cleared; undefined: none was sent. */
  readonly key?: string | null;
  /** The visit that the request had in the end. */
  readonly visitId?: string;
}

export interface Ask {
  /** The key in the request's cookie. */
  readonly key?: string | undefined;
  /** As `@PassiveVisit()` says: the request is not recorded as use. */
  readonly passive?: boolean;
  /** As `@UseVisit({ timeout })` says, in milliseconds. */
  readonly timeout?: number;
  /** As `@ExclusiveSession()` says. */
  readonly exclusive?: boolean;
  /** The handler sends the response, as with `@Res()`. */
  readonly answersItself?: boolean;
  /** Called when the headers leave. */
  readonly leaves?: () => void;
}

/** What the plugins of a process were told. */
export interface Told {
  readonly event: 'new' | 'ended';
  readonly visitId: string;
}

@VisitPlugin()
class Listener {
  readonly told: Told[] = [];
  heard: () => void = () => {};

  onNewVisit({ id }: CurrentVisit): void {
    this.hear({ event: 'new', visitId: id });
  }

  onVisitEnded({ id }: EndedVisit): void {
    this.hear({ event: 'ended', visitId: id });
  }

  private hear(told: Told): void {
    this.told.push(told);
    this.heard();
  }
}

class SomeController {}

/**
 * One process of an application: a module of its own, with its own clock and touch queue. Its requests go the library's
 * whole way, from the door at the server to the headers of the response; only the server itself is left out.
 */
export class Process {
  readonly visits: VisitService;
  readonly identity: IdentityService;
  readonly session: Session;
  readonly formTokens: FormTokenService;
  readonly expunge: ExpungeService;
  readonly touches: TouchQueue;
  private readonly story: RequestStory;
  private readonly interceptor: VisitInterceptor;
  private readonly listener: Listener;

  private constructor(
    private readonly module: TestingModule,
    readonly clock: ManualClock,
  ) {
    const get = <T>(token: unknown): T => module.get<T>(token as never, { strict: false });
    this.visits = get(VisitService);
    this.identity = get(IdentityService);
    this.session = get(Session);
    this.formTokens = get(FormTokenService);
    // No order of statements depends on its rests, which last as long as the gate holds it.
    this.expunge = Object.assign(get<ExpungeService>(ExpungeService), { sleep: async () => {} });
    this.touches = get(TouchQueue);
    this.story = get(RequestStory);
    this.interceptor = get(VisitInterceptor);
    this.listener = get(Listener);
  }

  static async start(options: VisitsInDataSource | VisitsInStore): Promise<Process> {
    const clock = new ManualClock();
    const visit = VisitModule.forRoot({
      ...options,
      clock,
      maxClockSkew: false,
      timeout: TIMEOUT,
      // An order may hold a statement back for as long as it likes.
      storeTimeout: HOUR,
      touch: { interval: TOUCH_INTERVAL, resolution: TOUCH_RESOLUTION },
      expunge: { schedule: false },
      wipe: { schedule: false },
    });
    const module = await Test.createTestingModule({ imports: [visit], providers: [Listener] }).compile();
    module.useLogger(false);
    await module.init();
    return new Process(module, clock);
  }

  /** What the plugins were told here, since this was last asked. */
  takeTold(): Told[] {
    return this.listener.told.splice(0);
  }

  /** When the plugins are told something the next time. */
  hears(): Promise<void> {
    return new Promise((resolve) => (this.listener.heard = resolve));
  }

  request<T>(
    { key, passive, timeout, exclusive, answersItself, leaves }: Ask,
    work: (response: ServerResponse) => T | Promise<T>,
  ): Promise<Answer<T>> {
    const request = { method: 'POST', headers: key ? { cookie: `visit=${key}` } : {} };
    const response = new ServerResponse(new IncomingMessage(new Socket()));
    const handler = (): void => {};
    if (passive) PassiveVisit()(handler);
    if (timeout !== undefined) UseVisit({ timeout })(handler);
    if (exclusive) ExclusiveSession({ timeout: HOUR })(handler);
    const head = headOf(response, leaves);
    const execution = {
      getType: () => 'http',
      getClass: () => SomeController,
      getHandler: () => handler,
      getArgByIndex: () => undefined,
      switchToHttp: () => ({ getRequest: () => request }),
    } as unknown as ExecutionContext;
    const serve = async (): Promise<Answer<T>> => {
      let outcome: { status: number; error?: string; value?: T };
      try {
        const value = await lastValueFrom(
          this.interceptor.intercept(execution, { handle: () => defer(async () => work(response)) }),
        );
        outcome = { status: 200, value: value as T };
      } catch (error) {
        outcome = { status: error instanceof HttpException ? error.getStatus() : 500, error: codeOf(error) };
      }
      // The application's own answer leaves before any other, or is replaced.
      if (answersItself) outcome = { status: await head };
      else response.writeHead(outcome.status);
      await head;
      const sent = keyIn(response.getHeader('Set-Cookie') as string[] | undefined);
      const visitId = findContext(request)?.resolvedVisit?.record.id;
      return { ...outcome, ...(sent === undefined ? {} : { key: sent }), ...(visitId ? { visitId } : {}) };
    };
    return new Promise((resolve, reject) => {
      this.story.enter(request, response, () => void serve().then(resolve, reject));
    });
  }

  close(): Promise<void> {
    return this.module.close();
  }
}

/** The status of the response, when its headers have left. */
function headOf(response: ServerResponse, leaves: () => void = () => {}): Promise<number> {
  return new Promise((resolve) => {
    const writeHead = response.writeHead.bind(response) as (...args: unknown[]) => ServerResponse;
    // The response's own method: whatever holds headers back lies around it.
    response.writeHead = (...args: unknown[]) => {
      leaves();
      resolve(response.statusCode);
      return writeHead(...args);
    };
  });
}

/** How an error is told from others: by its code, if it is one that the library promises. */
export function codeOf(error: unknown): string {
  if (error instanceof VisitError) {
    const cause = error.code === 'VISIT_STORE_UNAVAILABLE' ? `: ${(error.cause as Error | undefined)?.message}` : '';
    return `${error.code}${cause}`;
  }
  return `unexpected: ${(error as Error).stack ?? String(error)}`;
}

function keyIn(headers: string[] | undefined): string | null | undefined {
  if (!headers) return undefined;
  if (headers.length > 1) throw new Error(`more than one cookie was sent: ${headers.join(' and ')}`);
  return /^visit=([^;]*)/.exec(headers[0]!)![1] || null;
}
