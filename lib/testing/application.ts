import type { DynamicModule, INestApplicationContext } from '@nestjs/common';
import { parseDuration, type Duration } from '../options/duration.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { Clock, ResolvedVisitOptions, VisitSettings } from '../options/visit-options.interface.js';
import { MemoryVisitStore } from '../store/memory/memory-visit.store.js';
import { VisitModule } from '../visit.module.js';
import { VisitService, type CreateVisitOptions, type VisitSummary } from '../visit.service.js';

/** A clock that advances only when a test advances it: for the option `clock` of the module. */
export class TestClock implements Clock {
  private time: number;

  /** @param start milliseconds since 1970, or a date. @default the current time */
  constructor(start: Date | number = Date.now()) {
    this.time = Number(start);
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.time;
  }

  /**
   * Advances the clock.
   *
   * @param duration milliseconds, or text such as `'21m'`
   * @throws TypeError for an invalid duration
   */
  advance(duration: Duration): void {
    const milliseconds = parseDuration(duration);
    if (milliseconds === null)
      throw new TypeError(`[visit] a duration such as "21m" was expected, got ${JSON.stringify(duration)}`);
    this.time += milliseconds;
  }
}

/**
 * `VisitModule` for tests of a part of an application: visits in memory, no schedules. It accepts the options of the
 * module, which take precedence.
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

/** A cookie for Playwright's `context.addCookies([…])`. */
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
   * The headers of a request from the application's own pages: for `request(server).get('/').set(ada.headers)` of
   * supertest and `app.inject({ url: '/', headers: ada.headers })` of light-my-request. `CsrfGuard` allows it.
   */
  readonly headers: { readonly cookie: string; readonly 'sec-fetch-site': 'same-origin' };
  /**
   * The cookie for Playwright: `await context.addCookies([ada.cookieFor(baseURL)])`.
   *
   * @param baseUrl the URL of the application, such as `http://127.0.0.1:3000`
   */
  cookieFor(baseUrl: string): BrowserCookie;
}

/**
 * Signs a user in without the sign-in page of the application. Plugins are called as for every sign-in.
 *
 * @param app an initialized application, or a compiled testing module
 * @param options `authenticatedAt` for a sign-in that is no longer fresh, `permanent` for one with "remember me"
 * @throws the errors of `VisitService.create()`
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
