import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { HttpException, type ExecutionContext } from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import { IdentityService, MemoryVisitStore, Session, VisitModule, VisitService, type VisitSettings } from 'nest-visit';
import { defer, lastValueFrom } from 'rxjs';
import { VisitInterceptor } from '../../lib/request/visit.interceptor.js';
import type { FrameworkRequest } from '../../lib/platform/exchange.js';
import { RequestStory } from '../../lib/request/request.story.js';
import { ManualClock } from '../support/manual-clock.js';

/** Counts what it is asked to write. */
export class CountingStore extends MemoryVisitStore {
  readonly writes: string[] = [];
  found = 0;

  override async find(...args: Parameters<MemoryVisitStore['find']>) {
    this.found += args[0].length;
    return super.find(...args);
  }

  override create(...args: Parameters<MemoryVisitStore['create']>) {
    this.writes.push('create');
    return super.create(...args);
  }

  override save(...args: Parameters<MemoryVisitStore['save']>) {
    this.writes.push('save');
    return super.save(...args);
  }

  override touch(...args: Parameters<MemoryVisitStore['touch']>) {
    this.writes.push('touch');
    return super.touch(...args);
  }

  override rekey(...args: Parameters<MemoryVisitStore['rekey']>) {
    this.writes.push('rekey');
    return super.rekey(...args);
  }

  override end(...args: Parameters<MemoryVisitStore['end']>) {
    this.writes.push('end');
    return super.end(...args);
  }
}

/** A request as a platform hands it over, its parameters parsed. */
export interface Knock {
  readonly cookie?: string | undefined;
  readonly headers?: Record<string, string>;
  readonly query?: unknown;
  readonly body?: unknown;
  readonly ip?: string | undefined;
}

export interface Seen {
  readonly isNew: boolean;
  readonly userId: string | null;
  readonly size: number;
}

export interface KnockAnswer<T> {
  readonly status: number;
  readonly error?: unknown;
  readonly value?: T;
  readonly cookies: readonly string[];
  /** What the handler found in them. */
  readonly query: unknown;
  readonly body: unknown;
}

class SomeController {}
const someHandler = (): void => {};

/**
 * The library's whole way of a request, from the door at the server to the headers of the response, without a server.
 */
export class Door {
  readonly visits: VisitService;
  readonly identity: IdentityService;
  readonly session: Session;
  private readonly story: RequestStory;
  private readonly interceptor: VisitInterceptor;

  private constructor(
    private readonly module: TestingModule,
    readonly store: CountingStore,
    readonly clock: ManualClock,
  ) {
    const get = <T>(token: unknown): T => module.get<T>(token as never, { strict: false });
    this.visits = get(VisitService);
    this.identity = get(IdentityService);
    this.session = get(Session);
    this.story = get(RequestStory);
    this.interceptor = get(VisitInterceptor);
  }

  static async open(options: VisitSettings): Promise<Door> {
    const clock = new ManualClock();
    const store = new CountingStore();
    const visit = VisitModule.forRoot({
      store,
      clock,
      maxClockSkew: false,
      source: 'cookie, form',
      expunge: { schedule: false },
      wipe: { schedule: false },
      ...options,
    });
    const module = await Test.createTestingModule({ imports: [visit] })
      .setLogger(false as never)
      .compile();
    module.useLogger(false);
    await module.init();
    return new Door(module, store, clock);
  }

  /** What a page would show of the visit. */
  see(): Seen {
    return { isNew: this.visits.current().isNew, userId: this.identity.userId, size: this.session.size };
  }

  knock<T>(
    { cookie, headers = {}, query, body, ip }: Knock,
    platform: 'express' | 'fastify',
    work: (request: FrameworkRequest) => T | Promise<T>,
  ): Promise<KnockAnswer<T>> {
    const length: Record<string, string> = body === undefined ? {} : { 'content-length': '1' };
    const all = cookie === undefined ? { ...length, ...headers } : { ...length, ...headers, cookie };
    const rawResponse = new ServerResponse(new IncomingMessage(new Socket()));
    const request: FrameworkRequest =
      platform === 'fastify'
        ? { raw: {} as IncomingMessage, method: 'POST', headers: all, query, body, ip }
        : expressRequest(all, query, body, ip);
    const execution = {
      getType: () => 'http',
      getClass: () => SomeController,
      getHandler: () => someHandler,
      getArgByIndex: () => undefined,
      switchToHttp: () => ({ getRequest: () => request }),
    } as unknown as ExecutionContext;
    const serve = async (): Promise<KnockAnswer<T>> => {
      let outcome: { status: number; error?: unknown; value?: T };
      let found: { query: unknown; body: unknown } = { query: undefined, body: undefined };
      try {
        const handle = () =>
          defer(async () => {
            found = { query: request.query, body: request.body };
            return work(request);
          });
        outcome = { status: 200, value: (await lastValueFrom(this.interceptor.intercept(execution, { handle }))) as T };
      } catch (error) {
        outcome = { status: error instanceof HttpException ? error.getStatus() : 500, error };
      }
      rawResponse.writeHead(outcome.status);
      return { ...outcome, ...found, cookies: (rawResponse.getHeader('Set-Cookie') as string[] | undefined) ?? [] };
    };
    return new Promise((resolve, reject) => {
      const response = platform === 'fastify' ? { raw: rawResponse } : rawResponse;
      this.story.enter(request, response, () => this.story.reenter(request, () => void serve().then(resolve, reject)));
    });
  }

  close(): Promise<void> {
    return this.module.close();
  }
}

/** As with Express 5, where the query is parsed anew at every look. */
function expressRequest(
  headers: Record<string, string>,
  query: unknown,
  body: unknown,
  ip: string | undefined,
): FrameworkRequest {
  const prototype = Object.defineProperty({}, 'query', { get: () => query, configurable: true });
  return Object.assign(Object.create(prototype) as FrameworkRequest, { method: 'POST', headers, body, ip });
}
