import { createHash, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createRequire } from 'node:module';
import type { INestApplication } from '@nestjs/common';
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey, type JWK } from 'jose';
import { MemoryVisitStore } from 'nest-visit';
import * as client from 'openid-client';
import { Strategy } from 'openid-client/passport';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Browser } from '../support/browser.js';
import { InlineApp } from '../support/inline-handlers.js';

const passport = createRequire(import.meta.url)('passport');

const CALLBACK = 'http://app.invalid/callback';
const JSON_HEADERS = { 'content-type': 'application/json' };

/** A provider on loopback: discovery, codes that are bound to a challenge, and signed ID tokens with the nonce. */
class Provider {
  issuer = '';
  private readonly codes = new Map<string, { challenge: string; nonce: string | null }>();
  private keys!: { privateKey: CryptoKey; jwk: JWK };
  private readonly server: Server = createServer((request, response) => {
    void this.answer(new URL(request.url!, this.issuer), request).then(
      ({ status = 200, headers = JSON_HEADERS, body }) =>
        response.writeHead(status, headers).end(JSON.stringify(body ?? {})),
    );
  });

  async start(): Promise<void> {
    const { privateKey, publicKey } = await generateKeyPair('ES256');
    this.keys = { privateKey, jwk: { ...(await exportJWK(publicKey)), kid: 'one', alg: 'ES256' } };
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.issuer = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.server.close();
  }

  /** A configuration as an application gets it. PKCE is not announced, so a client sends a state, too. */
  configuration(): Promise<client.Configuration> {
    return client.discovery(new URL(this.issuer), 'client', 'secret', undefined, {
      execute: [client.allowInsecureRequests],
    });
  }

  /** What the browser comes back with from a visit to the provider. */
  async signIn(address: string | null): Promise<string> {
    const { headers } = await fetch(address!, { redirect: 'manual' });
    return new URL(headers.get('location')!).search;
  }

  private async answer(
    { pathname, searchParams }: URL,
    request: AsyncIterable<Buffer>,
  ): Promise<{ status?: number; headers?: Record<string, string>; body?: object }> {
    const { issuer } = this;
    if (pathname === '/.well-known/openid-configuration') {
      const [authorization_endpoint, token_endpoint, jwks_uri] = ['authorize', 'token', 'keys'].map(
        (name) => `${issuer}/${name}`,
      );
      return {
        body: {
          issuer,
          authorization_endpoint,
          token_endpoint,
          jwks_uri,
          id_token_signing_alg_values_supported: ['ES256'],
        },
      };
    }
    if (pathname === '/keys') return { body: { keys: [this.keys.jwk] } };
    if (pathname === '/authorize') {
      const code = randomBytes(8).toString('hex');
      this.codes.set(code, { challenge: searchParams.get('code_challenge')!, nonce: searchParams.get('nonce') });
      const state = searchParams.get('state');
      const back = new URLSearchParams({ code, iss: issuer, ...(state && { state }) });
      return { status: 302, headers: { location: `${searchParams.get('redirect_uri')}?${back.toString()}` } };
    }
    let text = '';
    for await (const part of request) text += part.toString();
    const form = new URLSearchParams(text);
    const asked = this.codes.get(form.get('code')!);
    this.codes.delete(form.get('code')!);
    const challenge = createHash('sha256').update(form.get('code_verifier')!).digest('base64url');
    if (asked?.challenge !== challenge) return { status: 400, body: { error: 'invalid_grant' } };
    const claims = new SignJWT({ ...(asked.nonce && { nonce: asked.nonce }) })
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .setIssuer(issuer)
      .setSubject('ada')
      .setAudience('client')
      .setIssuedAt()
      .setExpirationTime('5m');
    return { body: { access_token: 'token', token_type: 'Bearer', id_token: await claims.sign(this.keys.privateKey) } };
  }
}

const provider = new Provider();
let configuration: client.Configuration;
beforeAll(async () => {
  await provider.start();
  configuration = await provider.configuration();
});
afterAll(() => provider.close());

/** An application with nothing but what `main.ts` adds. */
function withMain(main: (app: INestApplication) => void = () => {}) {
  const suite = { app: undefined as unknown as InlineApp, browser: undefined as unknown as Browser };
  beforeAll(async () => {
    suite.app = await InlineApp.start('express', { store: new MemoryVisitStore() }, {}, main);
  });
  afterAll(() => suite.app.close());
  beforeEach(() => (suite.browser = suite.app.browser()));
  return suite;
}

describe('openid-client in handlers', () => {
  const suite = withMain();

  /** Begins a sign-in as its documentation does: the verifier, state and nonce are kept in the session. */
  const begin = (browser: Browser): Promise<string> =>
    suite.app.ask(browser, async ({ request }) => {
      const [verifier, state, nonce] = [client.randomPKCECodeVerifier(), client.randomState(), client.randomNonce()];
      request.session.oidc = { verifier, state, nonce };
      const parameters = {
        redirect_uri: CALLBACK,
        scope: 'openid',
        code_challenge: await client.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        state,
        nonce,
      };
      return client.buildAuthorizationUrl(configuration, parameters).href;
    });

  /** What the page does that the browser comes back to: the id of the user, or why there is none. */
  const finish = (browser: Browser, search: string): Promise<string> =>
    suite.app.ask(browser, async ({ request, identity }) => {
      const { verifier, state, nonce } = request.session.oidc ?? {};
      delete request.session.oidc;
      const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce };
      try {
        const tokens = await client.authorizationCodeGrant(configuration, new URL(CALLBACK + search), checks);
        await identity.login(tokens.claims()!.sub);
        return identity.userId!;
      } catch (error) {
        return (error as { code: string }).code;
      }
    });

  test('signs in by code with state, nonce and PKCE, and leaves none of them', async () => {
    const { app, browser } = suite;
    const search = await provider.signIn(await begin(browser));
    const before = browser.jar.get('visit');
    expect(await finish(browser, search)).toBe('ada');
    expect(browser.jar.get('visit')).not.toBe(before);
    expect(await app.ask(browser, ({ session }) => session.keys())).toEqual([]);
  });

  test('the callback is useless in another browser, and a second time', async () => {
    const { app, browser } = suite;
    const search = await provider.signIn(await begin(browser));
    const thief = app.browser();
    await begin(thief);
    expect(await finish(thief, search)).toBe('OAUTH_INVALID_RESPONSE');
    expect(await finish(browser, search)).toBe('ada');
    expect(await finish(browser, search)).not.toBe('ada');
  });
});

describe("openid-client's strategy for Passport", () => {
  const suite = withMain((app) => {
    const options = { name: 'oidc', config: configuration, scope: 'openid', callbackURL: CALLBACK };
    passport.use(new Strategy(options, (tokens, done) => done(null, { id: tokens.claims()!.sub })));
    passport.serializeUser((user: { id: string }, done: (error: null, id: string) => void) => done(null, user.id));
    passport.deserializeUser((id: string, done: (error: null, user: object) => void) => done(null, { id }));
    app.use('/callback', passport.authenticate('oidc', { successRedirect: '/', failureRedirect: '/failed' }));
  });
  afterAll(() => passport.unuse('oidc'));

  test('stores state and verifier before the redirect, and signs in the user of the visit', async () => {
    const { app, browser } = suite;
    const away = await browser.get('/callback');
    expect(away.status).toBe(302);
    const location = away.headers.get('location');
    expect(new URL(location!).searchParams.get('state')).toMatch(/.{40}/);
    expect(await app.ask(browser, ({ session }) => session.keys())).toEqual([new URL(provider.issuer).host]);
    const search = await provider.signIn(location);
    expect((await browser.get(`/callback${search}`)).headers.get('location')).toBe('/');
    expect(await app.ask(browser, ({ identity, session }) => [identity.userId, session.keys()])).toEqual([
      'ada',
      ['passport'],
    ]);
    expect((await browser.get(`/callback${search}`)).headers.get('location')).toBe('/failed');
  });

  test('fails in a browser that did not begin it', async () => {
    const search = await provider.signIn((await suite.browser.get('/callback')).headers.get('location'));
    const other = await suite.app.browser().get(`/callback${search}`);
    expect(other.headers.get('location')).toBe('/failed');
  });
});
