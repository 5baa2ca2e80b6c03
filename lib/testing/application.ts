import type { DynamicModule, INestApplicationContext } from '@nestjs/common';
import { parseDuration, type Duration } from '../options/duration.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { Clock, ResolvedVisitOptions, VisitSettings } from '../options/visit-options.interface.js';
import { MemoryVisitStore } from '../store/memory/memory-visit.store.js';
import { VisitModule } from '../visit.module.js';
import { VisitService, type CreateVisitOptions, type VisitSummary } from '../visit.service.js';

/** A clock that only goes on when it is told to: the option `clock` of the module. */
export class TestClock implements Clock {
  private time: number;

  /** @param start milliseconds since 1970, or a date. @default the time of the computer */
  constructor(start: Date | number = Date.now()) {
    this.time = Number(start);
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.time;
  }

  /**
   * Goes on by that much.
   *
   * @param duration milliseconds, or text such as `'21m'`
   * @throws TypeError when it is neither
   */
  advance(duration: Duration): void {
    const milliseconds = parseDuration(duration);
    if (milliseconds === null)
      throw new TypeError(`[visit] a duration such as "21m" was expected, got ${JSON.stringify(duration)}`);
    this.time += milliseconds;
  }
}

/**
 * `VisitModule` for tests of a part of an application: visits in memory, no schedules. It takes the module's options;
 * what they say counts.
 *
 * ```ts
 * Test.createTestingModule({ imports: [VisitTestingModule.forRoot()], controllers: [OrdersController] })
 * ```
 */
export class VisitTestingModule {
  static forRoot(options: VisitSettings = {}): DynamicModule {
    const visits = {
      store: new MemoryVisitStore(),
      expunge: { schedule: false },
      wipe: { schedule: false },
      ...options,
    } as const;
    return { module: VisitTestingModule, imports: [VisitModule.forRoot(visits)] };
  }
}

/** A cookie as Playwright's `context.addCookies([…])` takes it. */
export interface BrowserCookie {
  name: string;
  value: string;
  url: string;
  httpOnly: boolean;
}

/** A browser in which a user is signed in. */
export interface SignedInBrowser {
  readonly visit: VisitSummary;
  /** The visit key. */
  readonly key: string;
  /**
   * What such a browser sends with a request of the application's own pages: for
   * `request(server).get('/').set(ada.headers)` of supertest and `app.inject({ url: '/', headers: ada.headers })` of
   * light-my-request. `CsrfGuard` lets it through.
   */
  readonly headers: { readonly cookie: string; readonly 'sec-fetch-site': 'same-origin' };
  /**
   * For Playwright: `await context.addCookies([ada.cookieFor(baseURL)])`.
   *
   * @param baseUrl where the application is served, such as `http://127.0.0.1:3000`
   */
  cookieFor(baseUrl: string): BrowserCookie;
}

/**
 * Signs a user in without the application's sign-in page. Plugins hear of it as of any other sign-in.
 *
 * @param app an application that has been initialized, or a module that has been compiled
 * @param options `authenticatedAt` for a sign-in that is not fresh any more, `permanent` for one with "remember me"
 * @throws what `VisitService.create()` throws
 */
export async function signIn(
  app: INestApplicationContext,
  userId: string | number,
  options: Omit<CreateVisitOptions, 'userId'> = {},
): Promise<SignedInBrowser> {
  const { visit, key } = await app.get(VisitService, { strict: false }).create({ ...options, userId });
  const { name } = app.get<ResolvedVisitOptions>(VISIT_OPTIONS, { strict: false }).cookie;
  return {
    visit,
    key,
    headers: { cookie: `${name}=${key}`, 'sec-fetch-site': 'same-origin' },
    cookieFor: (baseUrl) => ({ name, value: key, url: baseUrl, httpOnly: true }),
  };
}
