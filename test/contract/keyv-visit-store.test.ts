import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { KeyvMemcache } from '@keyv/memcache';
import { Controller, Get, Post } from '@nestjs/common';
import { Keyv } from 'keyv';
import { KeyvFile } from 'keyv-file';
import { IdentityService, Session, VisitService } from 'nest-visit';
import { KeyvVisitStore, type KeyvVisitStoreOptions } from 'nest-visit/keyv';
import { describeVisitStore } from 'nest-visit/testing';
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { bytes, identityOf, newVisit, NOW, saveOf, textOf } from '../../lib/testing/samples.js';
import { platforms, startApp } from '../support/app.js';
import { describeWith, memcachedUrl } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { startMemcached, temporaryFolder } from '../support/servers.mjs';
import { ofToday } from '../support/today.js';

const runner = { describe, test };
const namespace = (): string => `nest-visit-test-${randomBytes(8).toString('hex')}`;

const inMemory = { shared: false, durable: false, evicts: false };
const inFile = { shared: false, durable: true, evicts: false };
const inMemcached = { shared: true, durable: false, evicts: true };

function memoryKeyv(): Keyv {
  return new Keyv({ throwOnErrors: true, namespace: namespace() });
}

function memcachedKeyv(space = namespace(), url = memcachedUrl!): Keyv {
  // The client's own timeout is half a second, which a busy machine may need.
  const store = new KeyvMemcache(url, { timeout: PATIENCE / 1000 });
  return new Keyv({ store, throwOnErrors: true, namespace: space });
}

function describeInMemory(): void {
  describeVisitStore('Keyv in memory', () => ({ store: new KeyvVisitStore({ keyv: memoryKeyv(), ...inMemory }) }), {
    runner,
  });
}

function describeInFile(): void {
  const folder = temporaryFolder('keyv');
  afterAll(() => folder.remove());
  describeVisitStore(
    'Keyv with a file',
    () => {
      const filename = join(folder.path, `${namespace()}.json`);
      const open = (): KeyvVisitStore => {
        const store = new KeyvFile({ filename, writeDelay: 0 });
        return new KeyvVisitStore({ keyv: new Keyv({ store, throwOnErrors: true }), ...inFile });
      };
      return { store: open(), reopen: open, close: () => rmSync(filename, { force: true }) };
    },
    { runner },
  );
}

// The store does the same with both: one a day.
for (const describeKeyv of ofToday([describeInMemory, describeInFile], 0)) describe('Keyv', describeKeyv);

describeWith('memcached', 'Keyv with memcached', () => {
  const opened: Keyv[] = [];
  afterAll(() => Promise.all(opened.map((keyv) => keyv.disconnect())));
  const open = (space: string, options: Partial<KeyvVisitStoreOptions> = {}): KeyvVisitStore => {
    const keyv = memcachedKeyv(space);
    opened.push(keyv);
    return new KeyvVisitStore({ keyv, ...inMemcached, ...options });
  };

  for (const evicts of [true, false]) {
    describeVisitStore(
      `memcached, ${evicts ? 'which may forget' : 'with room for all'}`,
      () => {
        const space = namespace();
        return { store: open(space, { evicts }), second: open(space, { evicts }) };
      },
      { runner },
    );
  }

  test('an ended visit stays ended when another process writes what it had read before', async () => {
    const space = namespace();
    const [one, other] = [open(space, { evicts: false }), open(space, { evicts: false })];
    const visit = newVisit({ sessionData: bytes('data') });
    await one.create([visit]);
    // The other one has looked, and writes when the end is done.
    const keyv = opened.at(-1)!;
    const get = keyv.get.bind(keyv);
    let ending: Promise<unknown> | undefined;
    keyv.get = (async (key: string) => {
      const value = await get(key);
      // Both values have been read by then, as they were before.
      if (key.startsWith('ended:')) await (ending ??= one.end([visit.id], { reason: 'logout', at: NOW }));
      return value;
    }) as typeof keyv.get;
    expect(await other.save([saveOf(visit, { data: bytes('late') })])).toEqual([
      { outcome: 'refused', reason: 'ended' },
    ]);
    keyv.get = get;
    // Also where the end has been forgotten by then: what was written later would live longer.
    expect(JSON.parse((await get(`visit:${visit.id}`)) as string)).toMatchObject({ endReason: 'logout' });
    for (const store of [one, other])
      expect((await store.find([visit.id]))[0]).toMatchObject({ endReason: 'logout', sessionData: null });
    expect(await other.save([saveOf(visit, { version: 1 })])).toEqual([{ outcome: 'refused', reason: 'ended' }]);
  });

  test('of two concurrent processes, one may overwrite the other: this is what "not atomic" means', async () => {
    const space = namespace();
    const [one, other] = [open(space), open(space)];
    const visit = newVisit();
    await one.create([visit]);
    const results = await Promise.all(
      [one, other].map((store, index) => store.save([saveOf(visit, { data: bytes(String(index)) })])),
    );
    expect(results.flat().filter(({ outcome }) => outcome === 'saved').length).toBeGreaterThanOrEqual(1);
    expect(['0', '1']).toContain(textOf((await one.find([visit.id]))[0]!));
  });

  test('a visit that memcached has evicted no longer exists', async () => {
    const server = await startMemcached();
    onTestFinished(() => server.stop());
    const keyv = memcachedKeyv(namespace(), server.url);
    const store = new KeyvVisitStore({ keyv, ...inMemcached, owned: true });
    onTestFinished(() => store.close());
    const visit = newVisit();
    await store.create([visit]);
    await keyv.clear();
    expect(await store.find([visit.id])).toEqual([null]);
    expect(await store.save([saveOf(visit)])).toEqual([{ outcome: 'refused', reason: 'unknown' }]);
    await server.stop();
    await expect(store.find([visit.id])).rejects.toThrow(/No servers|connect|ECONN|socket/i);
    expect(await store.save([saveOf(visit)])).toMatchObject([{ outcome: 'failed' }]);
  });
});

test('a default ttl of the Keyv does not shorten visits', async () => {
  const keyv = new Keyv({ throwOnErrors: true, namespace: namespace(), ttl: 1 });
  const store = new KeyvVisitStore({ keyv, ...inMemory });
  const [month, day] = [newVisit({ expiry: NOW + 40 * 86_400_000 }), newVisit({ expiry: NOW + 86_400_000 })];
  await store.create([month, day]);
  vi.useFakeTimers({ now: Date.now() + 3_600_000, toFake: ['Date'] });
  onTestFinished(() => void vi.useRealTimers());
  expect((await store.find([month.id, day.id])).map((visit) => visit?.id)).toEqual([month.id, day.id]);
});

test('values that are not JSON are not visits, and do not fail other visits', async () => {
  const values = new Map<string, unknown>();
  const store = new KeyvVisitStore({ keyv: new Keyv({ store: values, throwOnErrors: true }), ...inMemory });
  const [whole, spoiled, halfEnded] = [newVisit(), newVisit(), newVisit()];
  await store.create([whole, spoiled, halfEnded]);
  const placeOf = (key: string): string => [...values.keys()].find((one) => one.endsWith(key))!;
  values.set(placeOf(`visit:${spoiled.id}`), '{ no JSON');
  // Where an end would be: nobody can tell that the visit has not ended.
  values.set(placeOf(`visit:${halfEnded.id}`).replace('visit:', 'ended:'), '{ no JSON');
  const ids = [spoiled.id, whole.id, halfEnded.id];
  expect((await store.find(ids)).map((visit) => visit?.id)).toEqual([undefined, whole.id, undefined]);
  expect(await store.save([spoiled, whole, halfEnded].map((visit) => saveOf(visit)))).toEqual([
    { outcome: 'refused', reason: 'unknown' },
    { outcome: 'saved', version: 1 },
    { outcome: 'refused', reason: 'unknown' },
  ]);
});

test('values that are not visits are ignored', async () => {
  const keyv = memoryKeyv();
  const store = new KeyvVisitStore({ keyv, ...inMemory });
  const visit = newVisit({ identity: identityOf('ann'), sessionData: bytes('x') });
  await store.create([visit]);
  const whole = JSON.parse((await keyv.get(`visit:${visit.id}`))!) as Record<string, unknown>;
  const spoiled = [
    { format: 2 },
    { id: 'other' },
    { expiry: '1' },
    { expiry: 1.5 },
    { keyHash: null },
    { sessionData: 7 },
    { identity: {} },
    { permanent: 1 },
  ];
  for (const value of [
    7,
    'text',
    '',
    'null',
    '[]',
    '{}',
    ...spoiled.map((change) => JSON.stringify({ ...whole, ...change })),
  ]) {
    await keyv.set(`visit:${visit.id}`, value);
    expect(await store.find([visit.id]), JSON.stringify(value)).toEqual([null]);
  }
  await keyv.set(`visit:${visit.id}`, JSON.stringify({ ...whole, __proto__: { polluted: 1 }, more: 1 }));
  expect((await store.find([visit.id]))[0]).toEqual({
    ...visit,
    previousKeyHash: null,
    previousKeyUntil: null,
    keyChanged: NOW,
    sessionVersion: 0,
    endedAt: null,
    endReason: null,
    sessionData: Buffer.from('x'),
  });
});

test.each<[string, Partial<KeyvVisitStoreOptions>]>([
  ['must be made with throwOnErrors: true', { keyv: new Keyv() }],
  ['needs a "keyv"', { keyv: {} as never }],
  ['"evicts" of KeyvVisitStore must be true or false', { evicts: undefined }],
])('R74: an option that %s', (text, options) => {
  expect(() => new KeyvVisitStore({ keyv: memoryKeyv(), ...inMemory, ...options })).toThrow(text);
});

@Controller()
class KeyvController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Post('add')
  add() {
    return this.session.update('count', (count: number | undefined) => (count ?? 0) + 1);
  }

  @Post('login')
  login() {
    return this.identity.login('ann');
  }

  @Post('logout')
  logout() {
    return this.identity.logout();
  }

  @Get('see')
  see() {
    return { count: this.session.get('count', 0), user: this.identity.userId };
  }

  @Get('list')
  async list() {
    return this.visits.listForUser('ann').catch(({ code }: { code: string }) => ({ code }));
  }
}

test.each(platforms)(
  'R67: an application under %s: sign-in, session, sign-out, and the error of unsupported calls',
  async (platform) => {
    const app = await startApp(
      platform,
      { store: new KeyvVisitStore({ keyv: memoryKeyv(), ...inMemory }) },
      { controllers: [KeyvController] },
    );
    onTestFinished(() => app.close());
    const browser = app.browser();
    await browser.post('/add');
    await browser.post('/login');
    const stolen = browser.clone();
    const answers = await Promise.all([1, 2, 3, 4].map(() => browser.clone().post('/add')));
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201, 201]);
    expect(JSON.parse((await browser.get('/see')).text)).toEqual({ count: 5, user: 'ann' });
    expect(JSON.parse((await browser.get('/list')).text)).toEqual({ code: 'VISIT_STORE_UNSUPPORTED' });
    await browser.post('/logout');
    expect(JSON.parse((await stolen.get('/see')).text)).toEqual({ count: 0, user: null });
  },
);
