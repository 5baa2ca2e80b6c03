import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import {
  Controller,
  Get,
  Header,
  Redirect,
  Req,
  Res,
  Sse,
  StreamableFile,
  UseGuards,
  type CanActivate,
  type INestApplication,
  type LoggerService,
} from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import {
  CurrentUserId,
  CurrentVisit,
  IdentityService,
  MemoryVisitStore,
  RequireIdentity,
  Session,
  SkipVisit,
  VisitPlugin,
  VisitService,
} from 'nest-visit';
import { of } from 'rxjs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Answer, Browser } from '../support/browser.js';

class Reader implements CanActivate {
  canActivate(): boolean {
    return true;
  }
}

@Controller()
class Pages {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('login') async login(@Req() request: { query: { user: string } }) {
    await this.identity.login(request.query.user);
  }

  // Reads, in each way.
  @Get('user') user() {
    return `of ${this.identity.userId}`;
  }
  @Get('user-id') userId(@CurrentUserId() id: string | null) {
    return `of ${id}`;
  }
  @Get('session') sessionPage(@Session() session: Session) {
    return `of ${session['name']}`;
  }
  @Get('injected') injected() {
    return `of ${this.session['name']}`;
  }
  @Get('size') size() {
    return `of ${this.session.size}`;
  }
  @Get('request') request(@Req() request: { session: Session }) {
    return `of ${request.session['name']}`;
  }
  @Get('visit') visit(@CurrentVisit() visit: CurrentVisit) {
    return `of ${visit.isNew}`;
  }
  @Get('current') current() {
    return `of ${this.visits.current().isNew}`;
  }
  @Get('guarded') @RequireIdentity() guarded() {
    return 'of somebody';
  }

  // Reads, and sends in each way.
  @Get('sent') sent(@Res() response: any) {
    response.send(`of ${this.identity.userId}`);
  }
  @Get('head') head(@Res() response: any) {
    const raw = response.raw ?? response;
    const user = this.identity.userId;
    raw.writeHead(200, { 'content-type': 'text/plain', 'Cache-Control': 'public, max-age=60', Vary: 'Accept' });
    raw.end(`of ${user}`);
  }
  @Get('written') written(@Res() response: any) {
    const raw = response.raw ?? response;
    const user = this.identity.userId;
    raw.write('of ');
    raw.end(user);
  }
  /** Only its template reads. */
  @Get('template') template(@Req() request: object, @Res() response: any) {
    response.render('page', { request });
  }
  @Get('redirected') @Redirect('/elsewhere') redirected() {
    return { url: `/of/${this.identity.userId}` };
  }
  @Get('file') file() {
    return new StreamableFile(Readable.from([`of ${this.identity.userId}`]));
  }
  @Get('events') @Header('Cache-Control', 'private, no-transform') @Sse() events() {
    return of({ data: `of ${this.identity.userId}` });
  }

  // Says something itself.
  @Get('says') says(@Req() request: any, @Res({ passthrough: true }) response: any) {
    for (const [name, value] of Object.entries(JSON.parse(request.query.headers) as object))
      response.header(name, value);
    return `of ${this.identity.userId}`;
  }

  // Reads nothing.
  @Get('plain') plain() {
    return 'of anybody';
  }
  @Get('public') @Header('Cache-Control', 'public, max-age=60') public() {
    return 'of anybody';
  }
  @Get('skipped') @SkipVisit() skipped() {
    return 'of anybody';
  }
  @Get('guards') @UseGuards(Reader) guards() {
    return 'of anybody';
  }
}

@VisitPlugin()
class Watcher {
  seen = 0;
  onRecordRequest(): void {
    this.seen++;
  }
}

const READS = [
  'user',
  'user-id',
  'session',
  'injected',
  'size',
  'request',
  'visit',
  'current',
  'sent',
  'written',
  'file',
];
const told = ({ headers }: Answer): (string | null)[] => [headers.get('cache-control'), headers.get('vary')];
const PRIVATE = ['private, no-cache', 'Cookie'];
const NOTHING = [null, null];

const lines: string[] = [];
const write = (...parts: unknown[]): void => void lines.push(parts.map(String).join(' '));
const logger: LoggerService = { log: write, error: write, warn: write, debug: write, verbose: write, fatal: write };
const middleware = (nest: INestApplication): void => {
  nest.useLogger(logger);
  if (nest.getHttpAdapter().getType() === 'express') {
    const express = nest as NestExpressApplication;
    express.engine('txt', (_: string, { request }: any, done: (error: null, page: string) => void) =>
      done(null, `of ${request.session.name}`),
    );
    express.setViewEngine('txt');
    express.setBaseViewsDir(fileURLToPath(new URL('../support/fixtures', import.meta.url)));
  }
  nest.use((request: any, response: any, next: () => void) => {
    if (request.url.startsWith('/middleware')) response.end(`of ${request.session.name}`);
    else if (request.url.startsWith('/static')) response.end('of anybody');
    else next();
  });
};

describe.each(platforms)('Caches under %s', (platform) => {
  const clock = Date;
  const running: RunningApp[] = [];
  const start = async (options: object): Promise<RunningApp> => {
    const parts = { controllers: [Pages], providers: [Watcher, Reader] };
    const app = await startApp(platform, { store: new MemoryVisitStore(), clock, ...options }, parts, middleware);
    running.push(app);
    return app;
  };
  let app: RunningApp;
  let anonymous: Browser;
  let ann: Browser;
  beforeAll(async () => {
    app = await start({ source: 'cookie, query' });
    ann = app.browser();
    await ann.get('/login?user=ann');
  });
  beforeEach(() => {
    anonymous = app.browser();
    lines.length = 0;
  });
  afterAll(() => Promise.all(running.map((one) => one.close())));

  const ask = (browser: Browser, headers: Record<string, string>): Promise<Answer> =>
    browser.get(`/says?headers=${encodeURIComponent(JSON.stringify(headers))}`);

  // Fastify has no templates of its own.
  test.each([...READS, 'middleware', ...(platform === 'express' ? ['template'] : [])])(
    'R100, B70, ASVS 14.2.2, 14.2.5: a response for which the visit was read is private: %s',
    async (path) => {
      for (const browser of [ann, anonymous]) {
        const answer = await browser.get(`/${path}`);
        expect([answer.text.startsWith('of '), answer.status]).toEqual([true, 200]);
        expect(told(answer)).toEqual(PRIVATE);
      }
    },
  );

  test('R100: so are a response of a denying guard, a redirect, an event stream, and a 304', async () => {
    expect(told(await anonymous.get('/guarded'))).toEqual(PRIVATE);
    expect(told(await ann.get('/guarded'))).toEqual(PRIVATE);
    const redirect = await ann.get('/redirected');
    expect([redirect.headers.get('location'), told(redirect)[0]]).toEqual(['/of/ann', PRIVATE[0]]);
    expect(redirect.headers.get('vary')).toMatch(/^(Accept, )?Cookie$/);
    expect((await ann.get('/events')).headers.get('cache-control')).toMatch(/private|no-store/);
    if (platform === 'fastify') return;
    const etag = (await ann.get('/user')).headers.get('etag')!;
    const unchanged = await ann.get('/user', { headers: { 'if-none-match': etag, 'cache-control': 'max-age=0' } });
    expect([unchanged.status, ...told(unchanged)]).toEqual([304, ...PRIVATE]);
  });

  test.each(['plain', 'skipped', 'guards', 'static', 'nowhere'])(
    'R100: a response that does not depend on a visit is not changed: %s',
    async (path) => {
      for (const browser of [ann, anonymous]) expect(told(await browser.get(`/${path}`))).toEqual(NOTHING);
    },
  );

  test('R100: a public response that reads nothing stays public', async () => {
    expect(told(await ann.get('/public'))).toEqual(['public, max-age=60', null]);
    expect(lines).toEqual([]);
  });

  test('B70: a response that shared caches could store becomes private, with one log line per route', async () => {
    const said = await ask(ann, { 'cache-control': 'public, max-age=60', vary: 'Accept' });
    expect(told(said)).toEqual(['private, max-age=60', 'Accept, Cookie']);
    await ask(ann, { 'cache-control': 's-maxage=9' });
    expect(told(await ann.get('/head'))).toEqual(['private, max-age=60', 'Accept, Cookie']);
    await ann.get('/head');
    expect(lines.map((line) => /GET \S+/.exec(line)?.[0])).toEqual(['GET /says', 'GET /head']);
    expect(lines.join('\n')).not.toContain('headers=');
  });

  test.each([
    ['PUBLIC', 'private'],
    ['max-age=60, s-maxage=600', 'private, max-age=60'],
    ['max-age=60', 'private, max-age=60'],
    ['no-cache', 'private, no-cache'],
    ['private="set-cookie, x-one", max-age=1', 'private, max-age=1'],
    ['no-cache="public, private", public', 'private, no-cache="public, private"'],
  ])('B70: Cache-Control %j becomes %j', async (said, leaves) => {
    expect(told(await ask(ann, { 'cache-control': said }))).toEqual([leaves, 'Cookie']);
  });

  test.each(['no-store', 'private', 'Private, max-age=60', 'max-age=0, no-store'])(
    'R100: %j is not changed',
    async (said) => {
      expect(told(await ask(ann, { 'cache-control': said }))).toEqual([said, null]);
      expect(lines).toEqual([]);
    },
  );

  test('R100: Vary is extended, once', async () => {
    for (const [said, leaves] of [
      ['*', '*'],
      ['cookie', 'cookie'],
      ['Accept, COOKIE', 'Accept, COOKIE'],
      ['X-Cookie', 'X-Cookie, Cookie'],
    ])
      expect(told(await ask(ann, { vary: said! }))).toEqual(['private, no-cache', leaves]);
  });

  test('R100: a lifetime by Expires is kept, but only for the browser', async () => {
    const { headers } = await ask(ann, { expires: 'Fri, 01 Jan 2100 00:00:00 GMT' });
    expect([headers.get('cache-control'), headers.get('expires')]).toEqual([
      'private',
      'Fri, 01 Jan 2100 00:00:00 GMT',
    ]);
  });

  test('B70: header fields for CDN caches are changed accordingly (RFC 9213)', async () => {
    const said = await ask(ann, {
      'cache-control': 'private',
      'cdn-cache-control': 'max-age=60',
      'surrogate-control': 'max-age=60',
    });
    expect(['cache-control', 'cdn-cache-control', 'surrogate-control'].map((name) => said.headers.get(name))).toEqual([
      'private',
      'private, max-age=60',
      'no-store',
    ]);
    const { headers } = await ann.get('/user');
    expect([headers.get('cdn-cache-control'), headers.get('surrogate-control')]).toEqual([null, null]);
  });

  test('ASVS 14.3.2: with the option, responses for signed-in users are not stored at all', async () => {
    const strict = await start({ cache: { signedIn: 'no-store' } });
    const browser = strict.browser();
    expect(told(await browser.get('/user'))).toEqual(PRIVATE);
    await browser.get('/login?user=ann');
    expect(told(await browser.get('/user'))[0]).toBe('no-store');
    expect(told(await ask(browser, { 'cache-control': 'public, max-age=60' }))[0]).toBe('no-store');
    expect(told(await ask(browser, { 'cache-control': 'private, max-age=60' }))).toEqual(['private, max-age=60', null]);
    expect(told(await browser.get('/plain'))).toEqual(NOTHING);
  });

  test('R100: with `identity.requestUser`, every handler depends on the user', async () => {
    const shown = await start({ identity: { requestUser: true } });
    expect(told(await shown.browser().get('/plain'))).toEqual(PRIVATE);
    expect(told(await shown.browser().get('/skipped'))).toEqual(NOTHING);
    expect(told(await shown.browser().get('/static'))).toEqual(NOTHING);
  });

  test('R14, ASVS 14.2.1, 14.2.2: a page with a key in its URL never discloses it, whoever responds', async () => {
    const key = ann.jar.get('visit')!;
    const forged = `${'0123456789abcdef'.repeat(2)}.${'A'.repeat(43)}`;
    for (const path of ['plain', 'user', 'skipped', 'static', 'middleware', 'nowhere', 'public', 'redirected']) {
      for (const value of [key, forged, 'nonsense']) {
        const { headers } = await anonymous.get(`/${path}?visit_key=${value}`);
        expect([path, headers.get('referrer-policy'), headers.get('cache-control')]).toEqual([
          path,
          'no-referrer',
          'no-store',
        ]);
      }
      expect((await anonymous.get(`/${path}?other=${key}`)).headers.get('referrer-policy')).toBeNull();
    }
  });
});
