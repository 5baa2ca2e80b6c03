import { createHash, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createRequire } from 'node:module';
import {
  Controller,
  Get,
  Injectable,
  Module,
  Post,
  Req,
  UseGuards,
  type ExecutionContext,
  type INestApplication,
  type MiddlewareConsumer,
} from '@nestjs/common';
import { AuthGuard, PassportModule, PassportSerializer, PassportStrategy } from '@nestjs/passport';
import { VisitError, VisitLimitError, type VisitSettings } from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { WatchedStore } from '../support/ways.js';

// None of these has types, and nothing of them is used that would need some.
const load = createRequire(import.meta.url);
const passport = load('passport');
const { Strategy: LocalStrategy } = load('passport-local');
const { Strategy: OAuth2Strategy } = load('passport-oauth2');
const { Authenticator, Strategy: FastifyStrategy } = load('@fastify/passport');

const PASSWORD = 'open sesame';

interface User {
  readonly id: string;
}

@Injectable()
class Local extends PassportStrategy(LocalStrategy, 'local') {
  validate(username: string, password: string): User | null {
    return password === PASSWORD ? { id: username } : null;
  }
}

@Injectable()
class UserSerializer extends PassportSerializer {
  serializeUser(user: User, done: (error: null, id: unknown) => void) {
    done(null, user.id === 'whole' ? user : user.id === 'nameless' ? { email: 'a@example.org' } : user.id);
  }

  deserializeUser(kept: string | User, done: (error: null, user: User | false) => void) {
    const id = typeof kept === 'string' ? kept : kept.id;
    done(null, gone.has(id) ? false : { id });
  }
}

/** Users who have been deleted. */
const gone = new Set<string>();

@Injectable()
class LoginGuard extends AuthGuard('local') {
  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const passed = (await super.canActivate(context)) as boolean;
    await super.logIn(context.switchToHttp().getRequest());
    return passed;
  }
}

@Controller()
class PassportController {
  @UseGuards(LoginGuard)
  @Post('login')
  login(@Req() request: { user: User }) {
    return request.user.id;
  }

  @UseGuards(AuthGuard('local'))
  @Post('check')
  check(@Req() request: { user: User }) {
    return request.user.id;
  }

  @UseGuards(AuthGuard('oauth2'))
  @Get('callback')
  callback(@Req() request: { user: User }) {
    return request.user.id;
  }
}

@Module({})
class SessionModule {
  configure(consumer: MiddlewareConsumer) {
    consumer.apply(passport.session()).forRoutes('{*path}');
  }
}

const inMain = (app: INestApplication): void => void app.use(passport.initialize(), passport.session());

/** Passport's own, as a promise. */
const logIn = (request: any, user: User, options: object = {}): Promise<void> =>
  new Promise((resolve, reject) =>
    request.logIn(user, options, (error: unknown) => (error ? reject(error) : resolve())),
  );
const logOut = (request: any, options: object = {}): Promise<void> =>
  new Promise((resolve, reject) => request.logout(options, (error: unknown) => (error ? reject(error) : resolve())));

const seen = ({ request, identity, visits }: Tools) => ({
  user: (request.user as User | undefined)?.id ?? null,
  isAuthenticated: request.isAuthenticated() as boolean,
  userId: identity.userId,
  isCurrent:
    identity.userId === null
      ? null
      : visits.listForUser(identity.userId).then((all) => all.map(({ isCurrent }) => isCurrent)),
});

const NOBODY = { user: null, isAuthenticated: false, userId: null };
const somebody = (id: string) => ({ user: id, isAuthenticated: true, userId: id });

/** The applications of a suite, with a store of which it can be told what was asked. */
function startEach(
  options: VisitSettings,
  parts: Parameters<typeof InlineApp.start>[2],
  main?: (app: INestApplication) => void,
) {
  const clock = new ManualClock();
  const store = new WatchedStore();
  const suite = { clock, store, app: undefined as unknown as InlineApp, browser: undefined as unknown as Browser };
  beforeAll(async () => {
    suite.app = await InlineApp.start(
      parts?.imports ? 'express' : 'fastify',
      { store, clock, ...options },
      parts,
      main,
    );
  });
  afterAll(() => suite.app.close());
  beforeEach(() => {
    clock.advance(1000);
    suite.browser = suite.app.browser();
    store.calls.length = 0;
  });
  return suite;
}

describe.each(['main.ts', 'a module'] as const)('Passport, with passport.session() in %s,', (place) => {
  const suite = startEach(
    { identity: { maxVisitsPerUser: 2, onLimit: 'refuse' } },
    {
      imports: [PassportModule.register({ session: true }), ...(place === 'a module' ? [SessionModule] : [])],
      controllers: [PassportController],
      providers: [Local, UserSerializer],
    },
    place === 'main.ts' ? inMain : undefined,
  );
  const login = (username: string, password = PASSWORD) =>
    suite.browser.post('/login', { json: { username, password } });
  const look = async () => {
    const { isCurrent: _, ...rest } = await suite.app.ask(suite.browser, seen);
    return rest;
  };

  test('signs a user in to the visit, too: one new visit, one key', async () => {
    const { app, store } = suite;
    await app.ask(suite.browser, ({ session }) => (session['cart'] = ['apple']));
    const before = suite.browser.clone();
    store.calls.length = 0;

    const answer = await login('ann');

    expect([answer.status, answer.text]).toEqual([201, 'ann']);
    expect(answer.cookies).toHaveLength(1);
    expect(store.calls.filter((call) => ['create', 'rekey', 'save', 'end'].includes(call))).toEqual(['end', 'create']);
    expect(await look()).toEqual(somebody('ann'));
    expect(await (await app.ask(suite.browser, seen)).isCurrent).toEqual([true]);
    expect(await app.ask(suite.browser, ({ session }) => session.keys())).toEqual(['passport']);
    suite.browser = before;
    expect(await look()).toEqual(NOBODY);
  });

  test('a wrong password signs nobody in', async () => {
    expect((await login('ann', 'x')).status).toBe(401);
    expect(await look()).toEqual(NOBODY);
  });

  test('signs out: the key is invalid, and nothing is left', async () => {
    await login('bob');
    const before = suite.browser.clone();
    await suite.app.ask(suite.browser, ({ request }) => logOut(request));
    expect(suite.browser.jar.size).toBe(0);
    expect(await look()).toEqual(NOBODY);
    suite.browser = before;
    expect(await look()).toEqual(NOBODY);
  });

  test('keepSessionInfo keeps the session at sign-in and sign-out', async () => {
    const { app, browser } = suite;
    await app.ask(browser, ({ session }) => (session['cart'] = ['apple']));
    await app.ask(browser, ({ request }) => logIn(request, { id: 'cy' }, { keepSessionInfo: true }));
    expect(await look()).toEqual(somebody('cy'));
    expect(await app.ask(browser, ({ session }) => session['cart'] as unknown)).toEqual(['apple']);
    await app.ask(browser, ({ request }) => logOut(request, { keepSessionInfo: true }));
    expect(await look()).toEqual(NOBODY);
    expect(await app.ask(browser, ({ session }) => session['cart'] as unknown)).toEqual(['apple']);
  });

  test('another user replaces the first one', async () => {
    await login('dan');
    await login('eve');
    expect(await look()).toEqual(somebody('eve'));
    expect(await suite.app.ask(suite.browser, ({ visits }) => visits.listForUser('dan'))).toEqual([]);
  });

  test('the end of all visits of a user signs them out of Passport', async () => {
    await login('fay');
    const other = suite.app.browser();
    await suite.app.ask(other, ({ visits }) => visits.endAllForUser('fay'));
    expect(await look()).toEqual(NOBODY);
  });

  test('a sign-in beyond the limit is refused, and signs nobody in', async () => {
    for (let count = 0; count < 2; count++) {
      suite.browser = suite.app.browser();
      await login('gus');
    }
    suite.browser = suite.app.browser();
    const answer = await login('gus');
    expect(answer.status).toBe(409);
    // Nor does a later save of the request sign them in, where the application takes the error for done.
    const error = await suite.app.ask(suite.browser, ({ request }) =>
      logIn(request, { id: 'gus' }).catch((reason: unknown) => reason),
    );
    expect(error).toBeInstanceOf(VisitLimitError);
    expect(await look()).toEqual(NOBODY);
    expect(await suite.app.ask(suite.browser, ({ visits }) => visits.listForUser('gus'))).toHaveLength(2);
  });

  test('a user whom Passport no longer finds is signed out of the visit, too', async () => {
    await login('hal');
    gone.add('hal');
    try {
      await look();
      expect(await look()).toEqual(NOBODY);
    } finally {
      gone.delete('hal');
    }
  });

  test('a user who signs out of the visit, and keeps it, is signed out of Passport', async () => {
    await login('ida');
    await suite.app.ask(suite.browser, ({ identity, session }) => {
      session['cart'] = ['apple'];
      return identity.logout({ keepVisit: true });
    });
    expect(await look()).toEqual(NOBODY);
    expect(await suite.app.ask(suite.browser, ({ session }) => session.keys())).toEqual(['cart']);
  });

  test('a user whom older versions put into the session without regenerate() is signed in with a new key', async () => {
    const { app, browser } = suite;
    await app.ask(browser, ({ session }) => (session['cart'] = ['apple']));
    const [key] = [...browser.jar.values()];
    await app.ask(browser, ({ request }) => void (request.session.passport = { user: 'jim' }));
    expect([...browser.jar.values()][0]).not.toBe(key);
    expect(await look()).toEqual(somebody('jim'));
    expect(await app.ask(browser, ({ session }) => session['cart'] as unknown)).toEqual(['apple']);
    await app.ask(browser, ({ request }) => void (request.session.passport = { user: 'kim' }));
    expect(await look()).toEqual(somebody('kim'));
    expect(await app.ask(browser, ({ session }) => session.keys())).toEqual(['passport']);
  });

  test('a user who is stored as an object is identified by its id', async () => {
    await login('whole');
    expect(await look()).toEqual(somebody('whole'));
  });

  test('a user without a known id is not signed in, and the error says what to do', async () => {
    const outcome = await suite.app.ask(suite.browser, async ({ request, session }) => {
      const error = await logIn(request, { id: 'nameless' }).catch((reason: unknown) => reason);
      session.revert();
      return error;
    });
    expect(outcome).toBeInstanceOf(VisitError);
    expect((outcome as VisitError).message).toContain('"identity.passportUserId"');
    expect((await login('nameless')).status).toBe(500);
    expect(await look()).toEqual(NOBODY);
  });

  test('a strategy without a session signs nobody in, and handlers see its user', async () => {
    const answer = await suite.browser.post('/check', { json: { username: 'lee', password: PASSWORD } });
    expect(answer.text).toBe('lee');
    expect(await look()).toEqual(NOBODY);
  });
});

describe('Passport with OAuth2, state and PKCE,', () => {
  const codes = new Map<string, string>();
  let provider: Server;
  let address: string;

  beforeAll(async () => {
    provider = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://provider.invalid');
      if (pathname === '/authorize') {
        const code = randomBytes(8).toString('hex');
        codes.set(code, searchParams.get('code_challenge')!);
        const back = new URL(searchParams.get('redirect_uri')!);
        back.searchParams.set('code', code);
        back.searchParams.set('state', searchParams.get('state')!);
        response.writeHead(302, { location: back.href }).end();
        return;
      }
      let body = '';
      request.on('data', (part: Buffer) => (body += part.toString()));
      request.on('end', () => {
        const form = new URLSearchParams(body);
        const challenge = createHash('sha256').update(form.get('code_verifier')!).digest('base64url');
        const isRight = codes.get(form.get('code')!) === challenge;
        response.writeHead(isRight ? 200 : 400, { 'content-type': 'application/json' });
        response.end(
          JSON.stringify(isRight ? { access_token: 'token', token_type: 'Bearer' } : { error: 'invalid_grant' }),
        );
      });
    });
    await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
    const strategy = new OAuth2Strategy(
      {
        authorizationURL: `${address}/authorize`,
        tokenURL: `${address}/token`,
        clientID: 'client',
        clientSecret: 'secret',
        callbackURL: 'http://app.invalid/callback',
        state: true,
        pkce: true,
      },
      (_access: string, _refresh: string, _profile: object, done: (error: null, user: User) => void) =>
        done(null, { id: 'oauth-user' }),
    );
    passport.use('oauth2', strategy);
  });
  afterAll(() => {
    passport.unuse('oauth2');
    provider.close();
  });

  const suite = startEach(
    {},
    { imports: [PassportModule], controllers: [PassportController], providers: [Local] },
    inMain,
  );

  test('the state is stored before the redirect, and deleted after its use', async () => {
    const { app, browser } = suite;
    const away = await browser.get('/callback');
    expect(away.status).toBe(302);
    const back = await fetch(away.headers.get('location')!, { redirect: 'manual' });
    const { pathname, search } = new URL(back.headers.get('location')!);
    const answer = await browser.get(pathname + search);
    expect([answer.status, answer.text]).toEqual([200, 'oauth-user']);
    expect(await app.ask(browser, ({ session }) => session.keys())).toEqual([]);
    expect((await browser.get(pathname + search)).status).toBe(401);
  });

  test('the state of another visitor is refused', async () => {
    const away = await suite.browser.get('/callback');
    const back = await fetch(away.headers.get('location')!, { redirect: 'manual' });
    const { pathname, search } = new URL(back.headers.get('location')!);
    expect((await suite.app.browser().get(pathname + search)).status).toBe(401);
  });
});

describe('@fastify/passport, registered in main.ts,', () => {
  const authenticator = new Authenticator();
  class Password extends (FastifyStrategy as new (name: string) => object) {
    authenticate(this: any, request: { body: { username: string; password: string } }) {
      const { username, password } = request.body;
      return password === PASSWORD ? this.success({ id: username }) : this.fail();
    }
  }
  authenticator.use('password', new Password('password'));
  authenticator.registerUserSerializer((user: User) => Promise.resolve({ id: user.id, role: 'member' }));
  authenticator.registerUserDeserializer(({ id }: User) => Promise.resolve(gone.has(id) ? false : { id }));

  const suite = startEach({ identity: { passportUserId: (user) => (user as User).id } }, {}, (app) => {
    const fastify = app.getHttpAdapter().getInstance() as { register(plugin: unknown): void };
    fastify.register(authenticator.initialize());
    fastify.register(authenticator.secureSession());
  });
  const login = (id: string, options?: object) =>
    suite.app.ask(suite.browser, ({ request }) => request.logIn({ id }, options) as Promise<void>);
  const look = async () => {
    const { isCurrent: _, ...rest } = await suite.app.ask(suite.browser, seen);
    return rest;
  };

  test('signs a user in to the visit, too: one new visit, one key', async () => {
    const { app, store } = suite;
    await app.ask(suite.browser, ({ session }) => (session['cart'] = ['apple']));
    const before = suite.browser.clone();
    store.calls.length = 0;
    await login('ann');
    expect(store.calls.filter((call) => ['create', 'rekey', 'save', 'end'].includes(call))).toEqual(['end', 'create']);
    expect(await look()).toEqual(somebody('ann'));
    expect(await app.ask(suite.browser, ({ session }) => session.keys())).toEqual(['passport']);
    suite.browser = before;
    expect(await look()).toEqual(NOBODY);
  });

  test('keepSessionInfo keeps the session', async () => {
    await suite.app.ask(suite.browser, ({ session }) => (session['cart'] = ['apple']));
    await login('bob', { keepSessionInfo: true });
    expect(await suite.app.ask(suite.browser, ({ session }) => session['cart'] as unknown)).toEqual(['apple']);
    expect(await look()).toEqual(somebody('bob'));
  });

  test('signs out', async () => {
    await login('cy');
    const before = suite.browser.clone();
    await suite.app.ask(suite.browser, ({ request }) => request.logOut() as Promise<void>);
    expect(suite.browser.jar.size).toBe(0);
    suite.browser = before;
    expect(await look()).toEqual(NOBODY);
  });

  test('a user who is no longer found is signed out, and the end of all visits signs out of Passport', async () => {
    await login('dan');
    gone.add('dan');
    try {
      await look();
      expect(await look()).toEqual(NOBODY);
    } finally {
      gone.delete('dan');
    }
    await login('eve');
    await suite.app.ask(suite.app.browser(), ({ visits }) => visits.endAllForUser('eve'));
    expect(await look()).toEqual(NOBODY);
  });
});
