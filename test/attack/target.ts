import { Body, Controller, Delete, Get, Param, Post, Req } from '@nestjs/common';
import {
  FormTokenService,
  IdentityService,
  RequireIdentity,
  Session,
  VisitPlugin,
  VisitService,
  type RefusedKey,
} from 'nest-visit';
import type { RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';

/** Hears of the keys that are refused. */
@VisitPlugin()
export class Alarm {
  readonly refused: RefusedKey[] = [];

  onKeyRefused(refused: RefusedKey): void {
    this.refused.push(refused);
  }
}

/** An application worth attacking. */
@Controller()
class TargetController {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly session: Session,
    private readonly formTokens: FormTokenService,
  ) {}

  @Post('login')
  async login(@Body() body: { user?: string } | null) {
    await this.identity.login(body?.user ?? 'somebody');
  }

  @Post('logout')
  async logout(@Body() body?: { keep?: boolean } | null) {
    await this.identity.logout({ keepVisit: body?.keep === true });
  }

  @Post('reauthenticate')
  reauthenticate() {
    return this.identity.reauthenticate();
  }

  @Post('renew')
  renew() {
    return this.visits.renew();
  }

  @Post('set')
  set(@Body() body: unknown) {
    for (const [name, value] of Object.entries(body as object)) this.session.set(name, value);
    return Object.keys(this.session);
  }

  @Get('me')
  me() {
    return {
      userId: this.identity.userId,
      isNew: this.visits.current().isNew,
      data: Object.fromEntries(this.session.entries()),
    };
  }

  @Get('secret')
  @RequireIdentity()
  secret() {
    return `the secret of ${this.identity.userId}`;
  }

  @Get('token')
  token() {
    return this.formTokens.create();
  }

  @Post('token')
  async consume(@Body() body: { token?: unknown }) {
    return { accepted: await this.formTokens.consume(body.token) };
  }

  @Delete('visits/:id')
  async end(@Param('id') id: string) {
    return String(await this.visits.end(id));
  }

  @Post('echo')
  echo(@Body() body: unknown, @Req() request: { query: unknown }) {
    return { body: body ?? null, query: request.query };
  }
}

export const target = { controllers: [TargetController], providers: [Alarm] };

/** Longer than a request whose key has just been replaced counts as late. */
export const LATE = 11_000;
export const TWENTY_MINUTES = 20 * 60_000;

let people = 0;
/** A user of this test alone. */
export const someone = (): string => `attacked ${++people}`;

export const keyOf = (browser: Browser, name = 'visit'): string => browser.jar.get(name)!;
export const idOf = (browser: Browser, name = 'visit'): string => keyOf(browser, name).slice(0, 32);

/** Of the right form, and nobody's. */
export const invented = (index = 0): string => `${index.toString(16).padStart(32, '0')}.${'A'.repeat(43)}`;

export interface Me {
  readonly userId: string | null;
  readonly isNew: boolean;
  readonly data: Record<string, unknown>;
}

/** Whom the application takes the holder of a Cookie header for. */
export async function seenAs(app: RunningApp, cookie: string): Promise<Me> {
  return JSON.parse((await app.browser().get('/me', { cookie })).text) as Me;
}

export const nobody: Me = { userId: null, isNew: true, data: {} };

/** A browser whose user is signed in and has something to lose. */
export async function victimOf(app: RunningApp, user = someone()): Promise<{ browser: Browser; user: string }> {
  const browser = app.browser();
  await browser.post('/login', { json: { user } });
  await browser.post('/set', { json: { private: user } });
  return { browser, user };
}
