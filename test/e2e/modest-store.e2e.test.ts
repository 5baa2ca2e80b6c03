import { Controller, Get, Post, type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import {
  ExpungeService,
  IdentityService,
  MemoryVisitStore,
  Session,
  VisitError,
  VisitService,
  VisitStoreUnsupportedError,
  type Ending,
  type LockResult,
  type StaleCounts,
  type VisitRecord,
} from 'nest-visit';
import { afterEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';

/** Refuses all that a store may refuse. */
class ModestStore extends MemoryVisitStore {
  override readonly capabilities = { atomic: false, revocable: false, listable: false, shared: true, durable: false };

  override async lock(): Promise<LockResult> {
    throw new VisitStoreUnsupportedError('lock', 'atomic');
  }
  override async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    if (!ending.retiresKey) throw new VisitStoreUnsupportedError('end', 'revocable');
    return super.end(ids, ending);
  }
  override async listForUser(): Promise<VisitRecord[]> {
    throw new VisitStoreUnsupportedError('listForUser', 'listable');
  }
  override async endAllForUser(): Promise<string[]> {
    throw new VisitStoreUnsupportedError('endAllForUser', 'listable');
  }
  override async endEverything(): Promise<number> {
    throw new VisitStoreUnsupportedError('endEverything', 'listable');
  }
  override async endedAllAt(): Promise<null> {
    return null;
  }
  override async expunge(): Promise<StaleCounts> {
    return { visits: 0, identities: 0 };
  }
}

@Controller()
class ModestController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('count')
  count() {
    this.session['count'] = ((this.session['count'] as number | undefined) ?? 0) + 1;
    return { count: this.session['count'], userId: this.identity.userId };
  }

  @Post('alice')
  alice() {
    return this.identity.login('alice');
  }

  @Post('bob')
  bob() {
    return this.identity.login('bob');
  }

  @Post('renew')
  renew() {
    return this.visits.renew();
  }

  @Post('logout')
  logout() {
    return this.identity.logout();
  }

  @Post('others')
  others() {
    return this.visits.endOthers();
  }
}

/** Shows what a client is never told. */
@Catch(VisitError)
class ShowingFilter implements ExceptionFilter {
  constructor(private readonly host: HttpAdapterHost) {}

  catch({ code, message }: VisitError, host: ArgumentsHost): void {
    this.host.httpAdapter.reply(host.switchToHttp().getResponse(), { code, message }, 500);
  }
}

describe.each(platforms)('A store that lacks all it may, under %s', (platform) => {
  let app: RunningApp;
  afterEach(() => app.close());

  test('R66: serves sessions, sign-in and sign-out, and is asked for nothing else', async () => {
    app = await startApp(platform, { store: new ModestStore() }, { controllers: [ModestController] }, (nest) =>
      nest.useGlobalFilters(new ShowingFilter(nest.get(HttpAdapterHost))),
    );
    const browser = app.browser();
    const count = async () => JSON.parse((await browser.get('/count')).text) as unknown;
    expect(await count()).toEqual({ count: 1, userId: null });
    expect((await browser.post('/alice')).status).toBe(201);
    expect(await count()).toEqual({ count: 2, userId: 'alice' });
    expect((await browser.post('/renew')).status).toBe(201);
    expect((await browser.post('/bob')).status).toBe(201);
    expect(await count()).toEqual({ count: 1, userId: 'bob' });

    const others = await browser.post('/others');
    expect(others.status).toBe(500);
    expect(others.text).toContain('VISIT_STORE_UNSUPPORTED');
    expect(others.text).toContain('endOthers() needs a store of visits that is \\"listable\\"');

    expect((await browser.post('/logout')).status).toBe(201);
    expect(browser.jar.has('visit')).toBe(false);
    expect(await count()).toEqual({ count: 1, userId: null });
    expect(await app.app.get(ExpungeService).run()).toMatchObject({ visits: 0 });
  });
});
