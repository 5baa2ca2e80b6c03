import { createHash, randomBytes } from 'node:crypto';
import { createClient } from 'redis';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { RedisVisitStore, type RedisVisitStoreOptions } from 'nest-visit/redis';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import type { VisitPage } from '../../lib/store/visit.facets.js';
import type { VisitRecord, Rekey, SessionSave } from '../../lib/store/visit.store.js';
import { countStale, countUnwiped, expungeAll } from '../../lib/testing/cleanup.js';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { describeRedis, uniquePrefix } from '../support/redis.js';
import { isSoak } from '../support/soak.js';
import { isForToday } from '../support/today.js';
import { findRedis, startRedis, startRedisCluster, type TestServer } from '../support/servers.mjs';
import { endAll, endAllOf, listAll } from '../../lib/testing/many.js';
import { created } from '../../lib/store/visit.record.js';

const NOW = Date.UTC(2026, 5, 1, 12);
const MINUTE = 60_000;
const DAY = 86_400_000;
const NEVER = 8_640_000_000_000_000;
/** What a command may take until its key's life is asked for. */
const SOON = 10_000;

describeRedis('R67: RedisVisitStore', (redis) => {
  let clients: Awaited<ReturnType<typeof redis.connect>>[];
  beforeAll(async () => {
    clients = [await redis.connect(), await redis.connect(), await redis.connect()];
  });
  const all = { atomic: true, revocable: true, shared: true, durable: true };
  const fixtureOf = (prefix: string): VisitStoreFixture => {
    const [store, second, again] = clients.map((client) => new RedisVisitStore({ client, prefix }));
    return { store: store!, second: second!, reopen: () => again! };
  };
  // A cluster runs the same scripts, each on one of its nodes.
  const rounds = isSoak || redis.name === 'redis' ? 15 : 5;
  describeVisitStore(redis.name, () => fixtureOf(uniquePrefix()), {
    runner: { describe, test },
    capabilities: all,
    rounds,
  });

  describe('stores in Redis', () => {
    let prefix: string;
    let store: RedisVisitStore;
    let second: RedisVisitStore;
    beforeAll(async () => {
      prefix = uniquePrefix();
      store = await redis.open({ prefix });
      second = await redis.open({ prefix });
    });

    const keyOf = (id: string): string => `${prefix}visit:{${id}}`;
    const currentOf = (id: string): string => `${prefix}current:{${id[0]!}}`;
    const pastOf = (id: string): string => `${prefix}past:{${id[0]!}}`;
    const userKeyOf = (userId: string): string =>
      `${prefix}user:{${createHash('sha256').update(userId).digest('hex')}}`;
    const send = async (key: string, command: string, ...args: string[]): Promise<unknown> =>
      redis.send(key, command, key, ...args);
    const lifeOf = async (key: string): Promise<number> => Number(await send(key, 'PTTL'));
    const scoreOf = async (key: string, id: string): Promise<number | null> => {
      const score = await send(key, 'ZSCORE', id);
      return score === null ? null : Number(score);
    };
    const made = async (given: Partial<VisitRecord> = {}): Promise<VisitRecord> => {
      const visit = newVisit(given);
      await store.create([visit]);
      return visit;
    };
    const read = async (id: string): Promise<VisitRecord | null> => (await second.find([id]))[0] ?? null;
    const expectLife = async (key: string, life: number): Promise<void> => {
      const left = await lifeOf(key);
      expect(left).toBeLessThanOrEqual(life);
      expect(left).toBeGreaterThan(life - SOON);
    };

    describe('for how long', () => {
      test('a visit until a day after its expiry, counted by the clock of the application', async () => {
        const { id } = await made({ expiry: NOW + 20 * MINUTE });
        await expectLife(keyOf(id), DAY + 20 * MINUTE);
      });

      test('one that expired before it was created, a day', async () => {
        const { id } = await made({ expiry: NOW - 30 * DAY });
        await expectLife(keyOf(id), DAY);
      });

      test('one that never expires, for the longest time that Redis supports', async () => {
        const { id } = await made({ expiry: NEVER, identity: identityOf('eternal') });
        expect(await lifeOf(keyOf(id))).toBeGreaterThan(200_000 * 365 * DAY);
        expect(await lifeOf(userKeyOf('eternal'))).toBeGreaterThan(200_000 * 365 * DAY);
      });

      test('a touch moves it forward, never back, together with the set of the user', async () => {
        const userId = uniqueUser();
        const { id } = await made({ identity: identityOf(userId) });
        await store.touch([{ id, accessed: NOW + MINUTE, expiry: NOW + 5 * DAY }]);
        await expectLife(keyOf(id), 6 * DAY - MINUTE);
        await expectLife(userKeyOf(userId), 6 * DAY - MINUTE);
        await store.touch([{ id, accessed: NOW + 2 * MINUTE, expiry: NOW + 2 * MINUTE }]);
        await expectLife(keyOf(id), 6 * DAY - MINUTE);
        expect(await read(id)).toMatchObject({ accessed: NOW + 2 * MINUTE, expiry: NOW + 5 * DAY });
      });

      test('and so does a change of rights', async () => {
        const userId = uniqueUser();
        const visit = await made();
        await store.rekey([rekeyOf(visit, { identity: identityOf(userId), expiry: NOW + 9 * DAY })]);
        await expectLife(keyOf(visit.id), 10 * DAY);
        await expectLife(userKeyOf(userId), 10 * DAY);
      });

      test('after a link alone, the set of the user lasts as long as the visit', async () => {
        const userId = uniqueUser();
        const visit = await made({ expiry: NOW + 9 * DAY });
        await store.rekey([rekeyOf(visit, { identity: identityOf(userId) })]);
        await expectLife(keyOf(visit.id), 10 * DAY);
        await expectLife(userKeyOf(userId), 10 * DAY);
      });

      test('an ended one is known as ended for one more day, without its data, even if it never expired', async () => {
        const visits = [
          await made({ expiry: NEVER, sessionData: bytes('x') }),
          await made({ expiry: NOW - 30 * DAY, sessionData: bytes('x') }),
        ];
        await store.end(
          visits.map(({ id }) => id),
          { reason: 'logout', at: NOW },
        );
        for (const { id } of visits) {
          await expectLife(keyOf(id), DAY);
          expect(await read(id)).toMatchObject({ endedAt: NOW, sessionData: null });
          expect(await send(keyOf(id), 'HEXISTS', 'sessionData')).toBe(0);
        }
      });

      test('a save does not move it', async () => {
        const visit = await made({ expiry: NOW + DAY });
        await store.save([saveOf(visit, { data: bytes('x') })]);
        await expectLife(keyOf(visit.id), 2 * DAY);
      });

      test('the end of all visits of a user is remembered for a day', async () => {
        await endAllOf(store, uniqueUser(), { reason: 'admin', at: NOW });
        await expectLife(`${prefix}revoked`, DAY);
      });

      test('keepFor determines how long a visit is kept afterwards', async () => {
        const keeping = await redis.open({ prefix, keepFor: '3d' });
        const visit = newVisit();
        await keeping.create([visit]);
        await expectLife(keyOf(visit.id), 3 * DAY + 20 * MINUTE);
        await keeping.end([visit.id], { reason: 'logout', at: NOW });
        await expectLife(keyOf(visit.id), 3 * DAY);
      });
    });

    describe('sets of ids', () => {
      test('R42: an entry that was lost comes back with the next touch', async () => {
        const userId = uniqueUser();
        const { id } = await made({ identity: identityOf(userId) });
        await send(userKeyOf(userId), 'DEL');
        await send(currentOf(id), 'ZREM', id);
        expect(await listAll(store, userId, NOW)).toEqual([]);
        await store.touch([{ id, accessed: NOW + MINUTE, expiry: NOW + DAY }]);
        expect((await listAll(store, userId, NOW)).map((visit) => visit.id)).toEqual([id]);
        expect(await scoreOf(currentOf(id), id)).toBe(NOW + DAY);
      });

      test('R42: surplus entries of a user are not listed; only those of deleted visits are removed', async () => {
        const userId = uniqueUser();
        const mine = await made({ identity: identityOf(userId) });
        const ended = await made({ identity: identityOf(userId) });
        const theirs = await made({ identity: identityOf(uniqueUser()) });
        const gone = newId();
        const coming = newId();
        await store.end([ended.id], { reason: 'logout', at: NOW });
        const set = userKeyOf(userId);
        await send(set, 'ZADD', String(NOW), theirs.id, String(NOW - 1), gone, String(NOW + DAY), coming);
        expect((await listAll(store, userId, NOW)).map(({ id }) => id)).toEqual([mine.id]);
        // The one of somebody else may be of this user again by now; the one that is not there may be about to be made;
        // the one that ended tells of a device.
        expect(((await send(set, 'ZRANGE', '0', '-1')) as string[]).toSorted()).toEqual(
          [theirs.id, ended.id, mine.id, coming].toSorted(),
        );
        expect(await endAllOf(store, userId, { reason: 'admin', at: NOW })).toEqual([mine.id]);
        expect(await read(theirs.id)).toMatchObject({ endedAt: null });
      });

      test('the set of a returning user does not grow with deleted visits', async () => {
        const userId = uniqueUser();
        const visits = Array.from({ length: 60 }, (_, index) =>
          newVisit({ expiry: NOW + 200 * DAY, identity: identityOf(userId), accessed: NOW + index }),
        );
        for (const visit of visits) {
          await store.create([visit]);
          await store.end([visit.id], { reason: 'logout', at: visit.accessed });
          await send(keyOf(visit.id), 'DEL');
        }
        expect(Number(await send(userKeyOf(userId), 'ZCARD'))).toBeLessThan(40);
        expect(await lifeOf(userKeyOf(userId))).toBeGreaterThan(0);
      });

      test('R61: clean-up detects an expiry that has moved', async () => {
        const { id } = await made({ expiry: NOW });
        await store.touch([{ id, accessed: NOW, expiry: NOW + 3 * DAY }]);
        await send(currentOf(id), 'ZADD', String(NOW), id);
        await expungeAll({ store }, { before: NOW + DAY, limit: 100 });
        expect(await read(id)).toMatchObject({ expiry: NOW + 3 * DAY });
        expect(await scoreOf(currentOf(id), id)).toBe(NOW + 3 * DAY);
      });

      test('R61: entries whose visits Redis has evicted are removed, without being counted', async () => {
        const visit = await made({ expiry: NOW - 40 * DAY, identity: identityOf(uniqueUser()) });
        await expungeAll({ store }, { before: NOW - 41 * DAY, limit: 100 });
        await send(keyOf(visit.id), 'DEL');
        expect(await countStale({ store }, NOW - 39 * DAY)).toEqual({ visits: 0, identities: 0 });
        expect(await store.expunge({ before: NOW - 39 * DAY, limit: 100 })).toEqual({
          visits: 0,
          identities: 0,
          next: null,
        });
        expect(await scoreOf(currentOf(visit.id), visit.id)).toBeNull();
      });

      test('R62: data saved after the visit was wiped is wiped, too', async () => {
        const visit = await made({ expiry: NOW - 50 * DAY, sessionData: bytes('x') });
        const before = NOW - 49 * DAY;
        expect(await store.wipe({ before, limit: 10 })).toEqual({ visits: 1, next: null });
        expect(await scoreOf(pastOf(visit.id), visit.id)).toBe(visit.expiry);
        expect(await store.save([saveOf(visit, { version: 1, data: bytes('late') })])).toEqual([
          { outcome: 'saved', version: 2 },
        ]);
        expect(await countUnwiped({ store }, before)).toBe(1);
        expect(await second.wipe({ before, limit: 10 })).toEqual({ visits: 1, next: null });
        expect(await read(visit.id)).toMatchObject({ sessionData: null, sessionVersion: 3 });
      });

      test('R27, R42: a visit that is touched after it was wiped is live, and is ended by endAll', async () => {
        const visit = await made({ expiry: NOW - 60 * DAY, sessionData: bytes('x') });
        await store.wipe({ before: NOW - 59 * DAY, limit: 10 });
        await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]);
        expect(await scoreOf(currentOf(visit.id), visit.id)).toBe(NOW + DAY);
        expect(await endAll(store, { reason: 'incident', at: NOW })).not.toEqual([]);
        expect(await read(visit.id)).toMatchObject({ endedAt: NOW });
      });

      test('R42: endAll finds visits that are only listed as past', async () => {
        const visit = await made({ expiry: NOW - DAY });
        await store.wipe({ before: NOW, limit: 10_000 });
        expect(await scoreOf(currentOf(visit.id), visit.id)).toBeNull();
        await endAll(store, { reason: 'incident', at: NOW });
        expect(await read(visit.id)).toMatchObject({ endedAt: NOW });
      });
    });

    if (isForToday(redis.name === 'redis' ? 0 : 1, 2))
      test('R42, B7: the sets lose no live visit, whatever happens concurrently', async () => {
        const prefixOfItsOwn = uniquePrefix();
        const stores = [await redis.open({ prefix: prefixOfItsOwn }), await redis.open({ prefix: prefixOfItsOwn })];
        const users = ['ada', 'grace', 'joan'];
        const ids: string[] = [];
        let clock = NOW;
        /** The n-th thing that somebody does, the same in each run; how they meet is left to chance. */
        const act = async (who: number, step: number, own: Map<string, string>): Promise<void> => {
          const one = stores[who % 2]!;
          const now = clock++;
          const user = users[(who + step) % 3]!;
          const any = ids[ids.length - 1 - ((who * 31 + step * 17) % Math.min(60, ids.length || 1))];
          const [id, keyHash] = [...own][step % (own.size || 1)] ?? [];
          switch ((who + step * 5) % 9) {
            case 0:
            case 1: {
              const visit = newVisit({
                accessed: now,
                expiry: now + 200,
                identity: step % 2 ? identityOf(user) : null,
                sessionData: bytes('x'),
              });
              await one.create([visit]);
              own.set(visit.id, visit.keyHash);
              ids.push(visit.id);
              break;
            }
            case 2:
            case 3: {
              if (!id || !keyHash) break;
              const change = rekeyOf(newVisit({ id, keyHash }), {
                identity: step % 4 ? identityOf(user) : null,
                now,
                expiry: now + 200,
              });
              const [result] = await one.rekey([change]);
              if (result!.outcome === 'done') own.set(id, change.newKeyHash);
              break;
            }
            case 4:
              if (any) await one.touch([{ id: any, accessed: now, expiry: now + 200 }]);
              break;
            case 5:
              await listAll(one, user, now);
              break;
            case 6:
              if (any && step % 3 === 0) await one.end([any], { reason: 'x', at: now });
              break;
            case 7:
              await one.wipe({ before: now, limit: 3 });
              break;
            case 8:
              await one.expunge({ before: now - 50, limit: 3 });
          }
        };
        await Promise.all(
          Array.from({ length: 12 }, async (_, who) => {
            const own = new Map<string, string>();
            for (let step = 0; step < 120; step++) await act(who, step, own);
          }),
        );
        const left = (await stores[0]!.find(ids)).filter((visit) => visit !== null);
        const live = left.filter(({ endedAt }) => endedAt === null);
        expect(live.length).toBeGreaterThan(20);
        for (const user of users) {
          const expected = live
            .filter(({ identity, expiry }) => identity?.userId === user && expiry > clock)
            .map(({ id }) => id);
          expect(expected.length).toBeGreaterThan(0);
          expect((await listAll(stores[1]!, user, clock)).map(({ id }) => id).toSorted()).toEqual(expected.toSorted());
        }
        const stale = left.filter(({ expiry, endedAt }) => expiry < clock || (endedAt !== null && endedAt < clock));
        // One that ended while clean-up was looking at it may have to wait for its expiry, or for Redis to forget it.
        const { visits: counted } = await countStale({ store: stores[0]! }, clock);
        expect(counted).toBeLessThanOrEqual(stale.length);
        expect(counted).toBeGreaterThan(stale.length * 0.8);
        expect(await endAll(stores[1]!, { reason: 'incident', at: NOW })).toHaveLength(live.length);
      });

    test('liveVisits finds all visits page by page, even those that are only listed as past', async () => {
      const fresh = await redis.open();
      const visits = Array.from({ length: 1_200 }, () => newVisit());
      await fresh.create(visits);
      const moved = newVisit({ expiry: NOW - 1 });
      await fresh.create([moved]);
      await fresh.wipe({ before: NOW, limit: 10 });
      const seen: string[] = [];
      for (let after: string | null = ''; after !== null;) {
        const page: VisitPage = await fresh.liveVisits({ after, limit: 350, now: NOW - 2 });
        seen.push(...page.visits.map(({ id }) => id));
        after = page.next;
      }
      expect([...new Set(seen)].toSorted()).toEqual([...visits, moved].map(({ id }) => id).toSorted());
    });

    test('of visits that move in, none is stored if one already exists', async () => {
      const there = await made();
      const moved = newVisit({
        sessionVersion: 7,
        previousKeyHash: newHash(),
        previousKeyUntil: NOW + 1,
        keyChanged: NOW,
      });
      await expect(store.create([moved, there])).rejects.toThrow(/exists/);
      expect(await read(moved.id)).toBeNull();
      await store.create([moved]);
      expect(await read(moved.id)).toMatchObject({ sessionVersion: 7, previousKeyUntil: NOW + 1 });
    });
    describe('scripts', () => {
      test('are sent again to a server that has lost them', async () => {
        const visit = await made();
        await redis.send(keyOf(visit.id), 'SCRIPT', 'FLUSH');
        const results = await store.save(
          Array.from({ length: 3 }, (_, version) => saveOf(visit, { version, data: bytes(String(version)) })),
        );
        expect(results.map(({ outcome }) => outcome)).toEqual(['saved', 'saved', 'saved']);
        await redis.send(keyOf(visit.id), 'SCRIPT', 'FLUSH');
        expect(await store.rekey([rekeyOf(visit)])).toEqual([{ outcome: 'done' }]);
      });

      test('R51: of two stores that save based on the same version, exactly one wins', async () => {
        for (let round = 0; round < 30; round++) {
          const visit = await made();
          const results = await Promise.all(
            Array.from({ length: 8 }, (_, index) =>
              (index % 2 ? store : second).save([saveOf(visit, { data: bytes(String(index)) })]),
            ),
          );
          const winners = results.flatMap(([result], index) => (result!.outcome === 'saved' ? [index] : []));
          expect(winners).toHaveLength(1);
          expect(Buffer.from((await read(visit.id))!.sessionData!).toString()).toBe(String(winners[0]));
        }
      });

      test('of two stores that create the same visit, one succeeds, and the other leaves no data', async () => {
        for (let round = 0; round < 10; round++) {
          const shared = newVisit();
          const others = [newVisit({ identity: identityOf('x') }), newVisit({ identity: identityOf('x') })];
          const results = await Promise.allSettled([
            store.create([others[0]!, { ...shared, userAgent: '0' }]),
            second.create([{ ...shared, userAgent: '1' }, others[1]!]),
          ]);
          const winner = results.findIndex(({ status }) => status === 'fulfilled');
          expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
          expect(await read(shared.id)).toMatchObject({ userAgent: String(winner) });
          expect(await read(others[1 - winner]!.id)).toBeNull();
          expect(await read(others[winner]!.id)).not.toBeNull();
        }
      });
    });

    describe('damaged data', () => {
      /** All that may be asked of a visit that is none. */
      const expectNoVisit = async (visit: VisitRecord): Promise<void> => {
        expect(await read(visit.id)).toBeNull();
        expect(await store.save([saveOf(visit)])).toEqual([{ outcome: 'refused', reason: 'unknown' }]);
        expect(await store.rekey([rekeyOf(visit)])).toEqual([{ outcome: 'refused', reason: 'unknown' }]);
        expect(await store.lock({ ...guardOf(visit), owner: newId(), until: NOW + 1 })).toEqual({
          outcome: 'refused',
          reason: 'unknown',
        });
        await store.unlock(visit.id, newId());
        await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + 1 }]);
        expect(await store.end([visit.id], { reason: 'admin', at: NOW })).toEqual([]);
      };

      test('nothing, text, a list and a foreign hash are not visits, and are not changed', async () => {
        await expectNoVisit(newVisit());
        for (const command of [
          ['SET', 'text'],
          ['RPUSH', 'a', 'b'],
          ['ZADD', '1', 'a'],
          ['HSET', 'name', 'Ada', 'keyHash', newHash()],
        ]) {
          const visit = newVisit();
          await send(keyOf(visit.id), command[0]!, ...command.slice(1));
          const before = await send(keyOf(visit.id), 'DUMP');
          await expectNoVisit(visit);
          await expect(store.create([visit])).rejects.toThrow(/exists/);
          expect(await send(keyOf(visit.id), 'DUMP')).toEqual(before);
        }
      });

      test.each(['keyHash', 'expiry', 'accessed', 'sessionVersion'])('without %s it is not a visit', async (field) => {
        const visit = await made({ sessionData: bytes('x') });
        await send(keyOf(visit.id), 'HDEL', field);
        await expectNoVisit(visit);
      });

      test.each(['created', 'keyChanged'])('without %s it is not found', async (field) => {
        const visit = await made();
        await send(keyOf(visit.id), 'HDEL', field);
        expect(await read(visit.id)).toBeNull();
      });

      test.each([
        ['expiry', 'never'],
        ['expiry', ''],
        ['expiry', '0x7fffffff'],
        ['expiry', '1e999'],
        ['expiry', 'nan'],
        ['accessed', '12.5'],
        ['sessionVersion', 'one'],
        ['sessionVersion', '1 '],
      ])('with %s "%s" it is not a visit', async (field, value) => {
        const visit = await made();
        await send(keyOf(visit.id), 'HSET', field, value);
        await expectNoVisit(visit);
      });

      test.each([
        ['endedAt', 'x'],
        ['absoluteExpiry', '99999999999999999999'],
        ['previousKeyUntil', '-'],
        ['linked', ''],
      ])('with %s "%s" it is not found, and nothing fails', async (field, value) => {
        const visit = await made({ identity: identityOf('x'), absoluteExpiry: NOW + DAY });
        await send(keyOf(visit.id), 'HSET', field, value);
        expect(await read(visit.id)).toBeNull();
        await store.rekey([rekeyOf(visit, { absoluteExpiry: NOW + 2 * DAY })]);
        await store.touch([{ id: visit.id, accessed: NOW + 1, expiry: NOW + DAY }]);
        await store.end([visit.id], { reason: 'admin', at: NOW });
      });

      test('an incomplete identity is not found; unknown fields are ignored', async () => {
        const visit = await made({ identity: identityOf('x') });
        await send(keyOf(visit.id), 'HSET', '__proto__', 'x', 'constructor', 'y', 'tenant', 'z');
        expect(await read(visit.id)).toMatchObject({ identity: identityOf('x') });
        await send(keyOf(visit.id), 'HDEL', 'authenticatedAt');
        expect(await read(visit.id)).toBeNull();
      });

      test('other visits beside it are found, saved and listed', async () => {
        const userId = uniqueUser();
        const visits = [newVisit(), newVisit({ identity: identityOf(userId) })];
        await store.create([visits[1]!]);
        await send(keyOf(visits[0]!.id), 'SET', 'text');
        await send(userKeyOf(userId), 'ZADD', String(NOW), visits[0]!.id);
        expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit?.id)).toEqual([
          undefined,
          visits[1]!.id,
        ]);
        expect((await store.save(visits.map((visit) => saveOf(visit)))).map(({ outcome }) => outcome)).toEqual([
          'refused',
          'saved',
        ]);
        expect((await listAll(store, userId, NOW)).map(({ id }) => id)).toEqual([visits[1]!.id]);
      });

      test('a foreign set is an error, not a crash, and prevents no end of a visit and no sign-in', async () => {
        const userId = uniqueUser();
        const visit = await made({ identity: identityOf(userId) });
        await send(userKeyOf(userId), 'SET', 'text');
        const renewal = rekeyOf(visit, { previousKeyUntil: NOW, expiry: NOW + DAY });
        expect(await store.rekey([renewal])).toEqual([{ outcome: 'done' }]);
        await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + 2 * DAY }]);
        expect(await store.end([visit.id], { reason: 'admin', at: NOW })).toEqual([visit.id]);
        await expect(listAll(store, userId, NOW)).rejects.toThrow('WRONGTYPE');
        await expect(store.create([newVisit({ identity: identityOf(userId) })])).rejects.toThrow('WRONGTYPE');
      });

      test.each(['{', '}', '{}', '}{', 'a\r\nDEL x', '\0', '*', ':', 'x'.repeat(255)])(
        'user id %j is an ordinary user id',
        async (userId) => {
          const { id } = await made({ identity: identityOf(userId) });
          expect((await listAll(store, userId, NOW)).map((visit) => visit.id)).toEqual([id]);
          expect(await endAllOf(store, userId, { reason: 'admin', at: NOW })).toEqual([id]);
        },
      );

      test('user id "*" does not mean all users', async () => {
        const fresh = await redis.open();
        await endAllOf(fresh, '*', { reason: 'admin', at: NOW });
        expect(await fresh.revokedAt('*')).toBe(NOW);
        expect(await fresh.revokedAt('ada')).toBeNull();
      });

      test.each(['', '{', '}', '{}', 'x}{y', '\r\n', '__proto__'])('id %j is not found', async (id) => {
        await expectNoVisit(newVisit({ id }));
      });
    });
  });
});

describe('Options of RedisVisitStore', () => {
  const client = { isReady: false, sendCommand: () => Promise.reject(new Error('not connected')) };

  test.each<[string, unknown, string]>([
    ['neither', {}, 'needs either a "client" or a "connection"'],
    ['both', { client, connection: 'redis://127.0.0.1' }, 'needs either a "client" or a "connection"'],
    ['braces', { client, prefix: 'a{b}:' }, '"prefix" of RedisVisitStore must be without braces, got "a{b}:"'],
    [
      'too short a time',
      { client, keepFor: '1h' },
      '"keepFor" of RedisVisitStore must be a duration of at least "1d" and at most "36500d", got "1h"',
    ],
    ['a time beyond all dates', { client, keepFor: '36501d' }, 'at most "36500d", got "36501d"'],
    ['no time', { client, keepFor: 'long' }, 'must be a duration of at least "1d" and at most "36500d", got "long"'],
  ])('R74: %s is refused', (_, options, text) => {
    expect(() => new RedisVisitStore(options as RedisVisitStoreOptions)).toThrow(text);
  });

  test('R74: a version of the package redis that cannot return bytes is refused', async () => {
    vi.resetModules();
    vi.doMock('redis', () => ({ RESP_TYPES: undefined }));
    onTestFinished(() => {
      vi.doUnmock('redis');
      // Files share processes: none that comes later may meet what has been loaded with this one.
      vi.resetModules();
    });
    const old = await import('nest-visit/redis');
    await expect(new old.RedisVisitStore({ client }).check()).rejects.toThrow(
      'needs the package redis in version 5.12 or later',
    );
  });

  test('R74: a client that is not connected is refused at startup, and never used', async () => {
    const store = new RedisVisitStore({ client });
    await expect(store.check()).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message: expect.stringContaining('client.connect()') as string,
    });
    await expect(store.find([newId()])).rejects.toThrow('there is no connection to Redis');
  });
});

describeUnlessMissing(findRedis() ? [] : ['redis-server or valkey-server'], 'R67: A Redis server of its own', () => {
  const servers: TestServer[] = [];
  const stores: RedisVisitStore[] = [];
  afterEach(async () => {
    await Promise.all(stores.splice(0).map((store) => store.close()));
  });
  afterAll(() => Promise.all(servers.map((server) => server.stop())));

  const started = async (...args: string[]): Promise<TestServer> => {
    const server = await startRedis({ args });
    servers.push(server);
    return server;
  };
  const opened = (options: RedisVisitStoreOptions): RedisVisitStore => {
    const store = new RedisVisitStore(options);
    stores.push(store);
    return store;
  };

  test('the store opens and closes a connection of its own', async () => {
    const { url } = await started();
    for (const connection of [url, { url }]) {
      const store = opened({ connection });
      const visit = newVisit();
      await store.create([visit]);
      expect((await store.find([visit.id]))[0]?.id).toBe(visit.id);
      await store.check();
      await store.close();
      await expect(store.find([visit.id])).rejects.toThrow('the store is closed');
    }
  });

  test('a client of the application stays open', async () => {
    const { url } = await started();
    const client = await createClient({ url }).connect();
    const store = new RedisVisitStore({ client });
    await store.check();
    await store.close();
    expect(await client.sendCommand(['PING'])).toBe('PONG');
    client.destroy();
  });

  test.each([2, 3] as const)('a client with version %i of the protocol and its own types works', async (RESP) => {
    const { url } = await started();
    const { RESP_TYPES } = await import('redis');
    const typeMapping = { [RESP_TYPES.NUMBER]: String, [RESP_TYPES.DOUBLE]: String };
    const client = await createClient({ url, RESP, commandOptions: { typeMapping } }).connect();
    const store = new RedisVisitStore({ client });
    await store.check();
    const visit = newVisit({ identity: identityOf('ada'), sessionData: bytes('\xff') });
    await store.create([visit]);
    await store.touch([{ id: visit.id, accessed: NOW + 1, expiry: NOW + DAY }]);
    expect(await store.save([saveOf(visit, { data: null })])).toEqual([{ outcome: 'saved', version: 1 }]);
    expect(await listAll(store, 'ada', NOW)).toMatchObject([{ id: visit.id, expiry: NOW + DAY, sessionVersion: 1 }]);
    expect(await endAll(store, { reason: 'x', at: NOW })).toHaveLength(1);
    expect(await store.revokedAt('ada')).toBe(NOW);
    expect(await store.expunge({ before: NEVER, limit: 10 })).toEqual({ visits: 1, identities: 1, next: null });
    client.destroy();
  });

  test('every call fails immediately while it is unavailable, and succeeds after it has recovered', async () => {
    const server = await started('--appendonly', 'yes', '--appendfsync', 'always');
    const store = opened({ connection: server.url });
    const visit = newVisit({ sessionData: bytes('kept') });
    await store.create([visit]);
    await server.kill();
    const away = /connection|closed|offline|ECONN|socket/i;
    await expect(store.find([visit.id])).rejects.toThrow(away);
    const [result] = await store.save([saveOf(visit, { data: bytes('lost') })]);
    expect(result).toMatchObject({ outcome: 'failed' });
    await expect(store.create([newVisit()])).rejects.toThrow(away);
    await expect(store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }])).rejects.toThrow(away);
    await expect(endAllOf(store, 'x', { reason: 'admin', at: NOW })).rejects.toThrow(away);
    await server.restart();
    await expect.poll(() => store.find([visit.id]).catch(() => [])).toHaveLength(1);
    // Nothing that failed was sent later; and the scripts are known again.
    expect((await store.find([visit.id]))[0]).toMatchObject({ sessionVersion: 0, expiry: visit.expiry });
    expect(await store.save([saveOf(visit, { data: bytes('new') })])).toEqual([{ outcome: 'saved', version: 1 }]);
  });

  test('a client of the application does not queue commands until the server has recovered, either', async () => {
    const server = await started('--appendonly', 'yes', '--appendfsync', 'always');
    const client = createClient({ url: server.url });
    client.on('error', () => {});
    await client.connect();
    const store = new RedisVisitStore({ client });
    const visit = newVisit();
    await store.create([visit]);
    await server.kill();
    await expect.poll(() => client.isReady).toBe(false);
    await expect(store.end([visit.id], { reason: 'x', at: NOW })).rejects.toThrow('there is no connection to Redis');
    await server.restart();
    await expect.poll(() => client.isReady).toBe(true);
    expect((await store.find([visit.id]))[0]).toMatchObject({ endedAt: null });
    client.destroy();
  });

  test('an unavailable server at startup is an error, and the next attempt can succeed', async () => {
    const server = await started();
    await server.kill();
    const store = opened({ connection: server.url });
    await expect(store.check()).rejects.toThrow('ECONNREFUSED');
    await server.restart();
    await expect(store.check()).resolves.toBeUndefined();
  });

  test('closes even without a server', async () => {
    const server = await started();
    const store = opened({ connection: server.url });
    await store.check();
    await server.kill();
    await expect(store.close()).resolves.toBeUndefined();
    await expect(opened({ connection: server.url }).close()).resolves.toBeUndefined();
  });

  test('R29: closes even if the server hangs', async () => {
    const server = await started();
    const store = opened({ connection: server.url });
    await store.check();
    process.kill(server.pid, 'SIGSTOP');
    onTestFinished(() => void process.kill(server.pid, 'SIGCONT'));
    const asked = store.find([newVisit().id]).catch(() => 'refused');
    await expect(store.close()).resolves.toBeUndefined();
    expect(await asked).toBe('refused');
  });

  describe('a broken connection of its own is replaced', () => {
    /** In milliseconds; what is waited for takes twice as long at most, on a machine that is quick. */
    const DEADLINE = 300;
    const within = (url: string): RedisVisitStore => {
      const store = opened({ connection: { url, pingInterval: 50 } });
      store.setDeadline(DEADLINE);
      return store;
    };
    const proxied = async (url: string): Promise<Proxy> => {
      const proxy = await startProxy(url);
      onTestFinished(() => proxy.close());
      return proxy;
    };
    const found = (store: RedisVisitStore, { id }: { id: string }): Promise<unknown> =>
      store.find([id]).then(
        ([visit]) => visit?.id,
        () => 'nothing',
      );
    const standsStill = ({ pid }: TestServer): (() => void) => {
      process.kill(pid, 'SIGSTOP');
      onTestFinished(() => void process.kill(pid, 'SIGCONT'));
      return () => process.kill(pid, 'SIGCONT');
    };

    test('when the network has lost it in silence', async () => {
      const proxy = await proxied((await started()).url);
      const store = within(proxy.url);
      const visit = newVisit();
      await store.create([visit]);
      proxy.goSilent();
      proxy.comeBack();
      expect(await found(store, visit)).toBe('nothing');
      await expect.poll(() => found(store, visit), { timeout: PATIENCE }).toBe(visit.id);
    });

    test('when the network was interrupted, whatever was tried in the meantime', async () => {
      const proxy = await proxied((await started()).url);
      const store = within(proxy.url);
      const visit = newVisit();
      await store.create([visit]);
      proxy.goSilent();
      for (let tries = 0; tries < 3; tries++) expect(await found(store, visit)).toBe('nothing');
      proxy.comeBack();
      await expect.poll(() => found(store, visit), { timeout: PATIENCE }).toBe(visit.id);
    });

    test('when it was closed, and the next one gets no greeting', async () => {
      const proxy = await proxied((await started()).url);
      const store = within(proxy.url);
      const visit = newVisit();
      await store.create([visit]);
      const cut = proxy.cut('asked');
      await found(store, visit);
      await cut;
      proxy.goSilent();
      await expect.poll(() => proxy.open, { timeout: PATIENCE }).toBe(1);
      proxy.comeBack();
      await expect.poll(() => found(store, visit), { timeout: PATIENCE }).toBe(visit.id);
    });

    test('when the server hung, or the store was opened while it did', async () => {
      const server = await started();
      const store = within(server.url);
      const visit = newVisit();
      await store.create([visit]);
      const goOn = standsStill(server);
      for (let tries = 0; tries < 3; tries++) expect(await found(store, visit)).toBe('nothing');
      await expect(within(server.url).check()).rejects.toThrow(
        new RegExp(`cannot connect to Redis at .*: there was no answer within ${DEADLINE} ms`),
      );
      goOn();
      await expect.poll(() => found(store, visit), { timeout: PATIENCE }).toBe(visit.id);
    });

    test('when the server has become a replica: the write is repeated immediately at the primary', async () => {
      const atOnce = ['--repl-diskless-sync-delay', '0'];
      const [old, next] = [await started(...atOnce), await started(...atOnce)];
      const [oldServer, nextServer] = [createClient({ url: old.url }), createClient({ url: next.url })];
      const { hostname, port } = new URL(old.url);
      for (const client of [oldServer, nextServer]) {
        await client.connect();
        onTestFinished(() => client.destroy());
      }
      await nextServer.replicaOf(hostname, Number(port));
      const proxy = await proxied(old.url);
      const store = within(proxy.url);
      store.setDeadline(PATIENCE);
      const visit = newVisit();
      await store.create([visit]);
      await expect.poll(() => nextServer.dbSize(), { timeout: PATIENCE }).toBe(await oldServer.dbSize());
      await nextServer.sendCommand(['REPLICAOF', 'NO', 'ONE']);
      await oldServer.replicaOf(hostname, Number(new URL(next.url).port));
      proxy.lead(next.url);
      expect(await store.save([saveOf(visit, { data: bytes('kept') })])).toEqual([{ outcome: 'saved', version: 1 }]);
      await nextServer.replicaOf(hostname, Number(port));
      // There is nobody else to go to.
      await expect(store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + 2 * DAY }])).rejects.toThrow(
        'is a read-only replica',
      );
      await expect(within(next.url).check()).rejects.toThrow('is a read-only replica');
    });
  });

  test('R74: one that evicts keys when its memory is full is refused, unless the option allows it', async () => {
    const { url } = await started('--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru');
    await expect(opened({ connection: url }).check()).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message: expect.stringMatching(/allkeys-lru.*noeviction/) as string,
    });
    await opened({ connection: url, allowEviction: true }).check();
  });

  test('a cluster with an unavailable node fails immediately, and continues after it has recovered', async () => {
    const cluster = await startRedisCluster();
    servers.push(...cluster.nodes);
    const store = opened({ connection: { rootNodes: cluster.nodes.map(({ url }) => ({ url })) } });
    await store.check();
    const visits = Array.from({ length: 30 }, () => newVisit());
    await store.create(visits);
    await cluster.nodes[1]!.kill();
    const results = await store.save(visits.map((visit) => saveOf(visit, { data: bytes('x') })));
    expect(new Set(results.map(({ outcome }) => outcome))).toEqual(new Set(['saved', 'failed']));
    await expect(store.find(visits.map(({ id }) => id))).rejects.toThrow(/connection|closed|offline|ECONN|socket/i);
    await cluster.nodes[1]!.restart();
    const lost = visits.filter((_, index) => results[index]!.outcome === 'failed').map(({ id }) => id);
    // It keeps nothing in its memory: what it had is gone, the others are there.
    await expect.poll(() => store.find(lost).catch(() => 'away')).toEqual(lost.map(() => null));
    const kept = visits.filter(({ id }) => !lost.includes(id));
    expect((await store.find(kept.map(({ id }) => id))).map((visit) => visit?.sessionVersion)).toEqual(
      kept.map(() => 1),
    );
    await store.close();
    await Promise.all(cluster.nodes.map((node) => node.kill()));
    await expect(opened({ connection: { rootNodes: [{ url: cluster.nodes[0]!.url }] } }).check()).rejects.toThrow(
      /ECONNREFUSED|root/,
    );
  });

  test('R31, B4: when its memory is full, no data is lost, and visits can still be used and ended', async () => {
    const { url } = await started('--maxmemory-policy', 'noeviction');
    const store = opened({ connection: url });
    await store.check();
    const visit = newVisit({ identity: identityOf('ada'), sessionData: bytes('data') });
    await store.create([visit]);
    const client = await createClient({ url }).connect();
    await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1']);
    client.destroy();
    await expect(store.create([newVisit()])).rejects.toThrow('OOM');
    expect(await store.save([saveOf(visit, { data: bytes('more') })])).toMatchObject([{ outcome: 'failed' }]);
    await store.touch([{ id: visit.id, accessed: NOW + 1, expiry: NOW + DAY }]);
    expect((await store.find([visit.id]))[0]).toMatchObject({ expiry: NOW + DAY, sessionVersion: 0 });
    expect(await endAllOf(store, 'ada', { reason: 'password', at: NOW })).toEqual([visit.id]);
    expect((await store.find([visit.id]))[0]).toMatchObject({ endedAt: NOW, sessionData: null });
    expect(await store.expunge({ before: NOW + 1, limit: 10 })).toEqual({ visits: 1, identities: 1, next: null });
  });
});

function newId(): string {
  return randomBytes(16).toString('hex');
}

function newHash(): string {
  return randomBytes(32).toString('hex');
}

function uniqueUser(): string {
  return `user ${newId()}`;
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function identityOf(userId: string) {
  return { userId, created: NOW, authenticatedAt: NOW };
}

function newVisit(given: Partial<VisitRecord> = {}): VisitRecord {
  return created({
    id: newId(),
    keyHash: newHash(),
    created: NOW,
    expiry: NOW + 20 * MINUTE,
    remoteAddress: '192.0.2.7',
    userAgent: 'test',
    ...given,
  });
}

function guardOf({ id, keyHash }: VisitRecord) {
  return { id, keyHash, now: NOW };
}

function saveOf(visit: VisitRecord, given: Partial<SessionSave> = {}): SessionSave {
  return { ...guardOf(visit), version: 0, data: null, ...given };
}

function rekeyOf(visit: VisitRecord, given: Partial<Rekey> = {}): Rekey {
  return { ...guardOf(visit), newKeyHash: newHash(), previousKeyUntil: null, ...given };
}
