import { Controller, Get, Post, type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import {
  ExpungeService,
  IdentityService,
  MemoryVisitStore,
  Session,
  VisitError,
  VisitService,
  VisitStore,
  VisitStoreUnsupportedError,
  type Ending,
  type VisitRecord,
  type Rekey,
  type SessionSave,
  type Touch,
} from 'nest-visit';
import { afterEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';

/** Has nothing that a store may be without. */
class ModestStore extends VisitStore {
  override readonly capabilities = { atomic: false, revocable: false, shared: true, durable: false };
  private readonly store = new MemoryVisitStore();

  check() {
    return this.store.check();
  }
  find(ids: readonly string[]) {
    return this.store.find(ids);
  }
  create(visits: readonly VisitRecord[]) {
    return this.store.create(visits);
  }
  save(saves: readonly SessionSave[]) {
    return this.store.save(saves);
  }
  touch(touches: readonly Touch[]) {
    return this.store.touch(touches);
  }
  rekey(changes: readonly Rekey[]) {
    return this.store.rekey(changes);
  }
  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    if (!ending.retiresKey) throw new VisitStoreUnsupportedError('end', 'revocable');
    return this.store.end(ids, ending);
  }
  close() {
    return this.store.close();
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

describe.each(platforms)('A store without any optional feature, under %s', (platform) => {
  let app: RunningApp;
  afterEach(() => app.close());

  test('R66: serves sessions, sign-in and sign-out, and no other method is called', async () => {
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
    expect(others.text).toContain('endOthers() needs a store that supports \\"users\\"');

    expect((await browser.post('/logout')).status).toBe(201);
    expect(browser.jar.has('visit')).toBe(false);
    expect(await count()).toEqual({ count: 1, userId: null });
    expect(await app.app.get(ExpungeService).run()).toMatchObject({ visits: 0 });
  });
});
