import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Lock, NewVisitRecord, Rekey, SessionSave, VisitRecord, VisitStore } from '../../lib/store/visit.store.js';

/** A store to prove, and a second one on the same visits as another process would have it. */
export interface StoreFixture {
  readonly store: VisitStore;
  /** The same as `store` where visits live in one process only. */
  readonly second: VisitStore;
  readonly close: () => Promise<void>;
}

const NOW = Date.UTC(2026, 5, 1, 12, 0, 0, 123);
const MINUTE = 60_000;
const DAY = 86_400_000;
const NEVER = 8_640_000_000_000_000;
/** How often a race is run: enough for both orders to come up. */
const ROUNDS = 15;

/** What every store must do. `open` gives a store without visits. */
export function describeVisitStoreContract(name: string, open: () => Promise<StoreFixture>): void {
  describe(`Contract of VisitStore: ${name}`, () => {
    let fixture: StoreFixture;
    let store: VisitStore;
    let second: VisitStore;

    beforeAll(async () => {
      fixture = await open();
      ({ store, second } = fixture);
    });
    afterAll(() => fixture?.close());
    beforeEach(async () => {
      await store.endEverything({ reason: 'test', at: 0 });
      while ((await store.expunge({ before: NEVER, limit: 10_000 })).visits > 0);
    });

    const read = async (id: string): Promise<VisitRecord> => {
      const [visit] = await store.find([id]);
      if (!visit) throw new Error(`no visit ${id}`);
      return visit;
    };
    const made = async (given: Partial<NewVisitRecord> = {}): Promise<NewVisitRecord> => {
      const visit = newVisit(given);
      await store.create([visit]);
      return visit;
    };
    const madeMany = async (count: number, given: (index: number) => Partial<NewVisitRecord> = () => ({})): Promise<NewVisitRecord[]> => {
      const visits = Array.from({ length: count }, (_, index) => newVisit(given(index)));
      await store.create(visits);
      return visits;
    };

    test('check resolves', async () => {
      await expect(store.check()).resolves.toBeUndefined();
    });

    describe('find and create', () => {
      test('give back everything, with the identity', async () => {
        const visit = await made({
          absoluteExpiry: NOW + 30 * DAY,
          permanent: true,
          remoteAddress: '2001:db8:85a3:8d3:1319:8a2e:255.255.255.255',
          userAgent: 'Mozilla/5.0 (X11; Linux x86_64)',
          sessionData: bytes('data'),
          identity: { userId: '42', created: NOW - 5, authenticatedAt: NOW - 7 },
        });
        expect(plain(await read(visit.id))).toEqual(
          plain({
            ...visit,
            previousKeyHash: null,
            previousKeyUntil: null,
            keyChanged: visit.created,
            endedAt: null,
            endReason: null,
            sessionVersion: 0,
          }),
        );
      });

      test('keep null as null and false as false', async () => {
        const { id } = await made({ permanent: false, remoteAddress: null, userAgent: null, sessionData: null, identity: null });
        const { permanent, remoteAddress, userAgent, sessionData, identity } = await read(id);
        expect({ permanent, remoteAddress, userAgent, sessionData, identity }).toEqual({
          permanent: false,
          remoteAddress: null,
          userAgent: null,
          sessionData: null,
          identity: null,
        });
      });

      test('answer in the order of the question, null for what is not there', async () => {
        const visits = await madeMany(3);
        const ids = [visits[2]!.id, newId(), visits[0]!.id, visits[1]!.id];
        expect((await store.find(ids)).map((visit) => visit?.id ?? null)).toEqual([ids[0], null, ids[2], ids[3]]);
        expect(await store.find([])).toEqual([]);
      });

      test('take more visits than fit in one statement', async () => {
        const visits = await madeMany(1_234, (index) => ({
          identity: index % 2 ? { userId: `${index}`, created: NOW, authenticatedAt: NOW } : null,
        }));
        const found = await second.find(visits.map(({ id }) => id));
        expect(found.map((visit) => visit?.id)).toEqual(visits.map(({ id }) => id));
        expect(found.map((visit) => visit?.identity?.userId)).toEqual(visits.map(({ identity }) => identity?.userId));
      });

      test('do not judge expiry', async () => {
        const { id } = await made({ expiry: NOW - 30 * DAY });
        expect((await read(id)).expiry).toBe(NOW - 30 * DAY);
      });

      test('an id that exists is an error, and nothing of that call is stored', async () => {
        const visit = await made({ sessionData: bytes('first') });
        const neighbour = newVisit({ identity: identityOf('1') });
        await expect(
          store.create([neighbour, newVisit({ id: visit.id, sessionData: bytes('second'), identity: identityOf('2') })]),
        ).rejects.toThrow(/exists|duplicate|unique/i);
        expect(await store.find([neighbour.id])).toEqual([null]);
        expect(textOf(await read(visit.id))).toBe('first');
        expect((await read(visit.id)).identity).toBeNull();
      });

      test('tell ids in another case apart', async () => {
        const { id } = await made({ id: `abcdef${newId().slice(6)}` });
        expect(await store.find([id.toUpperCase()])).toEqual([null]);
        expect(await store.find([id])).not.toEqual([null]);
      });

      test('what a caller changes afterwards is not stored', async () => {
        const data = bytes('as it was');
        const { id } = await made({ sessionData: data });
        data.fill(0);
        (await read(id)).sessionData!.fill(0);
        expect(textOf(await read(id))).toBe('as it was');
      });

      test('B15: 200 KB of any bytes and emoji come back as they went', async () => {
        const sessionData = randomBytes(200_000);
        const visit = await made({ sessionData, userAgent: '🦊'.repeat(120), identity: identityOf('👩‍🚀 zoë') });
        const stored = await read(visit.id);
        expect(Buffer.from(stored.sessionData!).equals(sessionData)).toBe(true);
        expect(stored.userAgent).toBe(visit.userAgent);
        expect(stored.identity?.userId).toBe('👩‍🚀 zoë');
        const next = randomBytes(300_000);
        await store.save([saveOf(visit, { data: next })]);
        expect(Buffer.from((await read(visit.id)).sessionData!).equals(next)).toBe(true);
      });
    });

    describe('save', () => {
      test('writes data, raises the version, and touches nothing else', async () => {
        const visit = await made({ identity: identityOf('7'), permanent: true });
        const before = await read(visit.id);
        expect(await store.save([saveOf(visit, { data: bytes('one') })])).toEqual([{ outcome: 'saved', version: 1 }]);
        expect(plain(await read(visit.id))).toEqual(plain({ ...before, sessionData: bytes('one'), sessionVersion: 1 }));
        expect(await store.save([saveOf(visit, { version: 1, data: null })])).toEqual([{ outcome: 'saved', version: 2 }]);
        expect(plain(await read(visit.id))).toEqual(plain({ ...before, sessionData: null, sessionVersion: 2 }));
      });

      test('on another version: a conflict, with what is stored', async () => {
        const visit = await made();
        await store.save([saveOf(visit, { data: bytes('theirs') })]);
        const [result] = await second.save([saveOf(visit, { data: bytes('mine') })]);
        expect(result).toMatchObject({ outcome: 'conflict', version: 1 });
        expect(Buffer.from((result as { data: Uint8Array }).data).toString()).toBe('theirs');
        expect(textOf(await read(visit.id))).toBe('theirs');
      });

      test('answers each of a mixed group, in order', async () => {
        const [a, b, c, d, e] = (await madeMany(5)) as [NewVisitRecord, NewVisitRecord, NewVisitRecord, NewVisitRecord, NewVisitRecord];
        await store.save([saveOf(b, { data: bytes('newer') })]);
        await store.end([c.id], { reason: 'logout', at: NOW });
        const results = await store.save([
          saveOf(e, { data: bytes('e') }),
          saveOf(b, { data: bytes('b') }),
          saveOf(c, { data: bytes('c') }),
          saveOf(newVisit(), { data: bytes('?') }),
          saveOf(d, { keyHash: newHash(), data: bytes('d') }),
          saveOf(a, { data: bytes('a') }),
          saveOf(a, { data: bytes('a again') }),
        ]);
        expect(results.map((result) => (result.outcome === 'refused' ? result.reason : result.outcome))).toEqual([
          'saved',
          'conflict',
          'ended',
          'unknown',
          'retired',
          'saved',
          'conflict',
        ]);
        expect([await read(a.id), await read(b.id), await read(d.id), await read(e.id)].map(textOf)).toEqual(['a', 'newer', null, 'e']);
        expect(await store.save([])).toEqual([]);
      });

      test('takes more and larger saves than fit in one statement', async () => {
        const visits = await madeMany(260);
        const results = await store.save(
          visits.map((visit, index) => saveOf(visit, { data: index < 25 ? randomBytes(400_000) : bytes(visit.id) })),
        );
        expect(new Set(results.map(({ outcome }) => outcome))).toEqual(new Set(['saved']));
        const found = await store.find(visits.map(({ id }) => id));
        expect(found.map((visit) => visit?.sessionData?.length)).toEqual(visits.map((_, index) => (index < 25 ? 400_000 : 32)));
        expect(found.slice(25).map((visit) => textOf(visit!))).toEqual(visits.slice(25).map(({ id }) => id));
      });

      test('of two that start from the same version, one is saved and one conflicts', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made();
          const [[one], [two]] = await Promise.all([
            store.save([saveOf(visit, { data: bytes('one') })]),
            second.save([saveOf(visit, { data: bytes('two') })]),
          ]);
          expect([one!.outcome, two!.outcome].sort()).toEqual(['conflict', 'saved']);
          expect(textOf(await read(visit.id))).toBe(one!.outcome === 'saved' ? 'one' : 'two');
        }
      });

      test('overlapping groups of two processes lose nothing', async () => {
        const visits = await madeMany(12);
        const counters = new Map(visits.map(({ id }) => [id, 0]));
        const addToAll = async (one: VisitStore, order: NewVisitRecord[]): Promise<void> => {
          let waiting = order;
          while (waiting.length > 0) {
            const stored = await one.find(waiting.map(({ id }) => id));
            const results = await one.save(
              waiting.map((visit, index) => {
                const { sessionVersion, sessionData } = stored[index]!;
                const count = Number(sessionData ? Buffer.from(sessionData).toString() : 0);
                return saveOf(visit, { version: sessionVersion, data: bytes(String(count + 1)) });
              }),
            );
            waiting.forEach(({ id }, index) => {
              if (results[index]!.outcome === 'saved') counters.set(id, counters.get(id)! + 1);
            });
            waiting = waiting.filter((_, index) => results[index]!.outcome !== 'saved');
          }
        };
        await Promise.all(
          Array.from({ length: 6 }, (_, index) => addToAll(index % 2 ? store : second, index % 3 ? visits : visits.toReversed())),
        );
        for (const { id } of visits) expect(Number(textOf(await read(id)))).toBe(6);
        expect([...counters.values()]).toEqual(visits.map(() => 6));
      });
    });

    describe('keys', () => {
      test('a current key writes, an unknown one is retired', async () => {
        const visit = await made();
        expect(await store.save([saveOf(visit, { keyHash: newHash() })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await store.rekey([rekeyOf(visit, { keyHash: newHash() })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect((await read(visit.id)).keyHash).toBe(visit.keyHash);
      });

      test('a replaced key writes during its grace and not from its end on', async () => {
        const visit = await made();
        const renewal = rekeyOf(visit, { previousKeyUntil: NOW + 1_000 });
        expect(await store.rekey([renewal])).toEqual([{ outcome: 'done' }]);
        expect(await read(visit.id)).toMatchObject({
          keyHash: renewal.newKeyHash,
          previousKeyHash: visit.keyHash,
          previousKeyUntil: NOW + 1_000,
        });
        const late = (now: number, version: number) => store.save([saveOf(visit, { now, version, data: bytes('x') })]);
        expect(await late(NOW + 1_000, 0)).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await late(NOW + 1_001, 0)).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await late(NOW + 999, 0)).toEqual([{ outcome: 'saved', version: 1 }]);
        expect(await store.rekey([rekeyOf(visit, { now: NOW + 1_000 })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await store.rekey([rekeyOf(visit, { now: NOW + 999 })])).toEqual([{ outcome: 'done' }]);
      });

      test('B24: a key that a change of rights has replaced is dead for a writer whose clock is behind, too', async () => {
        const visit = await made();
        expect(await store.rekey([rekeyOf(visit, { identity: identityOf('7') })])).toEqual([{ outcome: 'done' }]);
        const before = NOW - 60_000;
        expect(await store.rekey([rekeyOf(visit, { now: before, identity: identityOf('8') })])).toEqual([
          { outcome: 'refused', reason: 'retired' },
        ]);
        expect(await store.save([saveOf(visit, { now: before, data: bytes('x') })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await read(visit.id)).toMatchObject({
          previousKeyUntil: null,
          keyChanged: NOW,
          identity: { userId: '7' },
          sessionData: null,
        });
      });

      test('a key in its grace cannot be renewed: that would cut its grace short', async () => {
        const visit = await made();
        const renewal = rekeyOf(visit, { previousKeyUntil: NOW + 30_000 });
        await store.rekey([renewal]);
        expect(await store.rekey([rekeyOf(visit, { previousKeyUntil: NOW + 30_000 })])).toEqual([
          { outcome: 'refused', reason: 'retired' },
        ]);
        expect(await read(visit.id)).toMatchObject({ keyHash: renewal.newKeyHash, previousKeyUntil: NOW + 30_000 });
      });

      test('the key before the previous one is dead, whatever grace it had', async () => {
        const visit = await made();
        const first = rekeyOf(visit, { previousKeyUntil: NOW + DAY });
        await store.rekey([first]);
        await store.rekey([rekeyOf({ ...visit, keyHash: first.newKeyHash }, { previousKeyUntil: NOW + DAY })]);
        expect(await store.save([saveOf(visit)])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
        expect(await store.save([saveOf({ ...visit, keyHash: first.newKeyHash })])).toEqual([{ outcome: 'saved', version: 1 }]);
      });

      test('rekey links, links anew, leaves and unlinks, and writes no data', async () => {
        const visit = await made({ sessionData: bytes('mine') });
        let { keyHash } = visit;
        const step = async (change: Partial<Rekey>): Promise<VisitRecord> => {
          const rekey = rekeyOf({ ...visit, keyHash }, change);
          expect(await store.rekey([rekey])).toEqual([{ outcome: 'done' }]);
          keyHash = rekey.newKeyHash;
          return read(visit.id);
        };
        expect((await step({ identity: identityOf('1', NOW) })).identity).toEqual(identityOf('1', NOW));
        expect((await step({ identity: identityOf('2', NOW + 1) })).identity).toEqual(identityOf('2', NOW + 1));
        expect((await step({})).identity).toEqual(identityOf('2', NOW + 1));
        expect((await step({ identity: null })).identity).toBeNull();
        const last = await step({ identity: null });
        expect(last).toMatchObject({ identity: null, sessionVersion: 0 });
        expect(textOf(last)).toBe('mine');
      });

      test('rekey sets permanent and moves expiry forward, never back', async () => {
        const visit = await made({ permanent: false });
        const first = rekeyOf(visit, { permanent: true, expiry: visit.expiry + DAY });
        await store.rekey([first]);
        expect(await read(visit.id)).toMatchObject({ permanent: true, expiry: visit.expiry + DAY });
        const next = rekeyOf({ ...visit, keyHash: first.newKeyHash }, { permanent: false, expiry: visit.expiry });
        await store.rekey([next]);
        expect(await read(visit.id)).toMatchObject({ permanent: false, expiry: visit.expiry + DAY });
        await store.rekey([rekeyOf({ ...visit, keyHash: next.newKeyHash })]);
        expect(await read(visit.id)).toMatchObject({ permanent: false, expiry: visit.expiry + DAY });
      });

      test('a refused rekey changes no identity, and each is answered by itself', async () => {
        const [a, b, c] = (await madeMany(3, () => ({ identity: identityOf('owner') }))) as [
          NewVisitRecord,
          NewVisitRecord,
          NewVisitRecord,
        ];
        await store.end([b.id], { reason: 'logout', at: NOW });
        const stranger = newVisit();
        const results = await store.rekey([
          rekeyOf(a, { keyHash: newHash(), identity: identityOf('thief') }),
          rekeyOf(b, { identity: identityOf('thief') }),
          rekeyOf(stranger, { identity: identityOf('thief') }),
          rekeyOf(c, { identity: null }),
        ]);
        expect(results).toEqual([
          { outcome: 'refused', reason: 'retired' },
          { outcome: 'refused', reason: 'ended' },
          { outcome: 'refused', reason: 'unknown' },
          { outcome: 'done' },
        ]);
        expect((await read(a.id)).identity?.userId).toBe('owner');
        expect((await read(b.id)).identity?.userId).toBe('owner');
        expect((await read(c.id)).identity).toBeNull();
        expect(await store.find([stranger.id])).toEqual([null]);
      });

      test('of two that replace the same key, one wins', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made();
          const changes = [rekeyOf(visit, { identity: identityOf('one') }), rekeyOf(visit, { identity: identityOf('two') })] as const;
          const [[one], [two]] = await Promise.all([store.rekey([changes[0]]), second.rekey([changes[1]])]);
          expect([one!.outcome, two!.outcome].sort()).toEqual(['done', 'refused']);
          const winner = changes[one!.outcome === 'done' ? 0 : 1];
          expect(await read(visit.id)).toMatchObject({ keyHash: winner.newKeyHash, identity: winner.identity });
        }
      });

      test('B3: a slow write with the key from before a login changes nothing', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made({ sessionData: bytes('anonymous') });
          const login = rekeyOf(visit, { identity: identityOf('alice') });
          const [[linked], [saved]] = await Promise.all([store.rekey([login]), second.save([saveOf(visit, { data: bytes('late') })])]);
          expect(linked).toEqual({ outcome: 'done' });
          const after = await read(visit.id);
          expect(after).toMatchObject({ keyHash: login.newKeyHash, previousKeyHash: visit.keyHash, identity: login.identity });
          expect(textOf(after)).toBe(saved!.outcome === 'saved' ? 'late' : 'anonymous');
          expect(await second.save([saveOf(visit, { version: after.sessionVersion })])).toEqual([
            { outcome: 'refused', reason: 'retired' },
          ]);
          expect(await second.rekey([rekeyOf(visit, { identity: null })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
          expect((await read(visit.id)).identity).toEqual(login.identity);
        }
      });
    });

    describe('lock', () => {
      const [mine, theirs] = [newId(), newId()];
      const lockOf = ({ id, keyHash }: NewVisitRecord, owner: string, given: Partial<Lock> = {}): Lock => ({
        id,
        keyHash,
        now: NOW,
        owner,
        until: NOW + MINUTE,
        ...given,
      });

      test('R52: one has it until it gives it back or its time is over', async () => {
        const visit = await made();
        const before = await read(visit.id);
        expect(await store.lock(lockOf(visit, mine))).toEqual({ outcome: 'locked' });
        expect(await second.lock(lockOf(visit, theirs))).toEqual({ outcome: 'held' });
        await second.unlock(visit.id, theirs);
        expect(await second.lock(lockOf(visit, theirs))).toEqual({ outcome: 'held' });
        await store.unlock(visit.id, mine);
        expect(await second.lock(lockOf(visit, theirs))).toEqual({ outcome: 'locked' });
        expect(await store.lock(lockOf(visit, mine, { now: NOW + MINUTE - 1 }))).toEqual({ outcome: 'held' });
        expect(await store.lock(lockOf(visit, mine, { now: NOW + MINUTE }))).toEqual({ outcome: 'locked' });
        await store.unlock(visit.id, mine);
        await store.unlock(newId(), mine);
        expect(plain(await read(visit.id))).toEqual(plain(before));
      });

      test('R52: its owner prolongs it', async () => {
        const visit = await made();
        await store.lock(lockOf(visit, mine));
        expect(await store.lock(lockOf(visit, mine, { until: NOW + 2 * MINUTE }))).toEqual({ outcome: 'locked' });
        expect(await second.lock(lockOf(visit, theirs, { now: NOW + MINUTE }))).toEqual({ outcome: 'held' });
      });

      test('R52: only of a visit that may be written', async () => {
        const [visit, ended] = (await madeMany(2)) as [NewVisitRecord, NewVisitRecord];
        await store.end([ended.id], { reason: 'logout', at: NOW });
        expect(await store.lock(lockOf(newVisit(), mine))).toEqual({ outcome: 'refused', reason: 'unknown' });
        expect(await store.lock(lockOf(ended, mine))).toEqual({ outcome: 'refused', reason: 'ended' });
        expect(await store.lock(lockOf({ ...visit, keyHash: newHash() }, mine))).toEqual({ outcome: 'refused', reason: 'retired' });
        expect(await store.lock(lockOf(visit, theirs))).toEqual({ outcome: 'locked' });
      });

      test('R52: a save that relies on it is refused without it, in a group too', async () => {
        const [locked, lost, free] = (await madeMany(3)) as [NewVisitRecord, NewVisitRecord, NewVisitRecord];
        await store.lock(lockOf(locked, mine));
        await second.lock(lockOf(lost, theirs));
        const results = await store.save([
          saveOf(locked, { lockOwner: mine, data: bytes('mine') }),
          saveOf(lost, { lockOwner: mine, data: bytes('mine') }),
          saveOf(free, { lockOwner: mine, data: bytes('mine') }),
        ]);
        expect(results).toEqual([
          { outcome: 'saved', version: 1 },
          { outcome: 'refused', reason: 'unlocked' },
          { outcome: 'refused', reason: 'unlocked' },
        ]);
        expect([await read(locked.id), await read(lost.id), await read(free.id)].map(textOf)).toEqual(['mine', null, null]);
        // Who asks for no lock is not held up by one.
        expect(await store.save([saveOf(lost, { data: bytes('any') })])).toEqual([{ outcome: 'saved', version: 1 }]);
      });

      test('R52: of many that want it at once, one gets it', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made();
          const owners = Array.from({ length: 6 }, newId);
          const results = await Promise.all(owners.map((owner, index) => (index % 2 ? store : second).lock(lockOf(visit, owner))));
          expect(results.filter(({ outcome }) => outcome === 'locked')).toHaveLength(1);
          const winner = owners[results.findIndex(({ outcome }) => outcome === 'locked')]!;
          expect(await store.save([saveOf(visit, { lockOwner: winner })])).toEqual([{ outcome: 'saved', version: 1 }]);
        }
      });
    });

    describe('touch', () => {
      test('moves accessed and expiry forward, never back, and touches nothing else', async () => {
        const visit = await made({ sessionData: bytes('data'), identity: identityOf('7') });
        const before = await read(visit.id);
        const later = { accessed: NOW + MINUTE, expiry: visit.expiry + MINUTE };
        await store.touch([{ id: visit.id, ...later }]);
        expect(plain(await read(visit.id))).toEqual(plain({ ...before, ...later }));
        await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW }]);
        expect(plain(await read(visit.id))).toEqual(plain({ ...before, ...later }));
        await store.touch([]);
      });

      test('of one visit twice: the later instant of each', async () => {
        const { id, expiry } = await made();
        await store.touch([
          { id, accessed: NOW + 2, expiry: expiry + 1 },
          { id, accessed: NOW + 1, expiry: expiry + 2 },
        ]);
        expect(await read(id)).toMatchObject({ accessed: NOW + 2, expiry: expiry + 2 });
      });

      test('gives each of many its own instants', async () => {
        const visits = await madeMany(1_100);
        await store.touch(visits.map(({ id, expiry }, index) => ({ id, accessed: NOW + index, expiry: expiry + index })));
        const found = await store.find(visits.map(({ id }) => id));
        expect(found.map((visit) => visit!.accessed)).toEqual(visits.map((_, index) => NOW + index));
        expect(found.map((visit) => visit!.expiry)).toEqual(visits.map(({ expiry }, index) => expiry + index));
      });

      test('B4: neither revives nor prolongs a visit that has ended', async () => {
        const { id, expiry } = await made();
        const other = await made();
        await store.end([id], { reason: 'logout', at: NOW });
        const ended = await read(id);
        await store.touch([
          { id, accessed: NOW + DAY, expiry: expiry + DAY },
          { id: other.id, accessed: NOW + DAY, expiry: expiry + DAY },
        ]);
        expect(plain(await read(id))).toEqual(plain(ended));
        expect((await read(other.id)).expiry).toBe(expiry + DAY);
      });

      test('B5: no late write brings in a row of its own', async () => {
        const visit = await made({ identity: identityOf('7'), expiry: NOW - DAY });
        expect(await store.expunge({ before: NOW, limit: 10 })).toEqual({ visits: 1, identities: 1 });
        await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]);
        expect(await store.save([saveOf(visit, { data: bytes('late') })])).toEqual([{ outcome: 'refused', reason: 'unknown' }]);
        expect(await store.rekey([rekeyOf(visit, { identity: identityOf('7') })])).toEqual([{ outcome: 'refused', reason: 'unknown' }]);
        expect(await store.end([visit.id], { reason: 'logout', at: NOW })).toEqual([]);
        expect(await store.find([visit.id])).toEqual([null]);
        expect(await store.countStale(NEVER)).toEqual({ visits: 0, identities: 0 });
        // A new visit shows an identity that was left behind, should there be one.
        await store.create([{ ...visit, identity: null }]);
        expect((await read(visit.id)).identity).toBeNull();
      });
    });

    describe('end', () => {
      test('says which it ended, wipes the data, raises the version, and still tells whose it was', async () => {
        const visit = await made({ sessionData: bytes('data'), identity: identityOf('7') });
        const other = await made();
        const before = await read(visit.id);
        expect(await store.end([newId(), visit.id], { reason: 'logout', at: NOW })).toEqual([visit.id]);
        expect(plain(await read(visit.id))).toEqual(
          plain({ ...before, endedAt: NOW, endReason: 'logout', sessionData: null, sessionVersion: 1 }),
        );
        expect(await store.end([visit.id, other.id], { reason: 'again', at: NOW + 1 })).toEqual([other.id]);
        expect(await read(visit.id)).toMatchObject({ endedAt: NOW, endReason: 'logout', sessionVersion: 1 });
        expect(await store.end([], { reason: 'none', at: NOW })).toEqual([]);
      });

      test('by its own client: the key is retired at that instant', async () => {
        const [byClient, fromElsewhere] = (await madeMany(2)) as [NewVisitRecord, NewVisitRecord];
        await store.rekey([byClient, fromElsewhere].map((visit) => rekeyOf(visit, { previousKeyUntil: NOW + MINUTE })));
        await store.end([byClient.id], { reason: 'logout', at: NOW, retiresKey: true });
        await store.end([fromElsewhere.id], { reason: 'admin', at: NOW });
        expect(await read(byClient.id)).toMatchObject({
          endedAt: NOW,
          previousKeyUntil: NOW,
          keyChanged: NOW,
          previousKeyHash: byClient.keyHash,
        });
        expect(await read(fromElsewhere.id)).toMatchObject({ endedAt: NOW, previousKeyUntil: NOW + MINUTE });
      });

      test('B6: asks for no expiry: ends what never expires and what has expired', async () => {
        const eternal = await made({ expiry: NEVER, permanent: true });
        const expired = await made({ expiry: NOW - DAY });
        expect((await store.end([eternal.id, expired.id], { reason: 'admin', at: NOW })).sort()).toEqual([eternal.id, expired.id].sort());
        expect((await read(eternal.id)).endedAt).toBe(NOW);
        expect((await read(expired.id)).endedAt).toBe(NOW);
      });

      test('of two at once, one ends each visit', async () => {
        const visits = await madeMany(ROUNDS);
        const ids = visits.map(({ id }) => id);
        const [one, two] = await Promise.all([
          store.end(ids, { reason: 'one', at: NOW }),
          second.end(ids.toReversed(), { reason: 'two', at: NOW }),
        ]);
        expect([...one, ...two].sort()).toEqual(ids.toSorted());
        for (const id of one) expect((await read(id)).endReason).toBe('one');
        for (const id of two) expect((await read(id)).endReason).toBe('two');
      });

      test('B4: no touch, save or rekey of that moment revives the visit', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made({ sessionData: bytes('data') });
          const [ended, [saved], [linked]] = await Promise.all([
            store.end([visit.id], { reason: 'logout', at: NOW }),
            second.save([saveOf(visit, { data: bytes('late') })]),
            second.rekey([rekeyOf(visit, { identity: identityOf('late'), previousKeyUntil: NOW + MINUTE })]),
            second.touch([{ id: visit.id, accessed: NOW + 1, expiry: visit.expiry + 1 }]),
          ]);
          expect(ended).toEqual([visit.id]);
          const after = await read(visit.id);
          expect(after).toMatchObject({ endedAt: NOW, endReason: 'logout', sessionData: null });
          expect(after.sessionVersion).toBe(saved!.outcome === 'saved' ? 2 : 1);
          expect(after.identity?.userId).toBe(linked!.outcome === 'done' ? 'late' : undefined);
          for (const result of [saved, linked]) if (result!.outcome === 'refused') expect(result).toMatchObject({ reason: 'ended' });
          expect(await second.save([saveOf(visit, { version: after.sessionVersion })])).toEqual([{ outcome: 'refused', reason: 'ended' }]);
          expect(await second.rekey([rekeyOf(visit)])).toEqual([{ outcome: 'refused', reason: 'ended' }]);
        }
      });

      test('endEverything ends all and counts them once', async () => {
        await madeMany(1_100);
        const eternal = await made({ expiry: NEVER });
        await store.end([(await made()).id], { reason: 'logout', at: NOW });
        const counts = await Promise.all([store, second].map((one) => one.endEverything({ reason: 'incident', at: NOW })));
        expect(counts[0]! + counts[1]!).toBe(1_101);
        expect(await read(eternal.id)).toMatchObject({ endedAt: NOW, endReason: 'incident' });
        expect(await store.endEverything({ reason: 'incident', at: NOW })).toBe(0);
      });
    });

    describe('users', () => {
      test('listForUser gives the live visits, the most recently used first', async () => {
        const [old, recent, expired, ended] = (await madeMany(5, (index) => ({
          accessed: NOW + index,
          expiry: index === 2 ? NOW : NOW + DAY,
          sessionData: bytes(String(index)),
          identity: identityOf(index === 4 ? 'other' : 'alice'),
        }))) as [NewVisitRecord, NewVisitRecord, NewVisitRecord, NewVisitRecord];
        await store.end([ended.id], { reason: 'logout', at: NOW });
        const list = await store.listForUser('alice', NOW);
        expect(list.map(({ id }) => id)).toEqual([recent.id, old.id]);
        expect(plain(list[0]!)).toEqual(plain(await read(recent.id)));
        expect((await store.listForUser('alice', NOW - 1)).map(({ id }) => id)).toEqual([expired.id, recent.id, old.id]);
        expect(await store.listForUser('nobody', NOW)).toEqual([]);
      });

      test('user ids are compared byte by byte', async () => {
        const userIds = ['a', 'A', 'a ', ' a', 'á', 'a\u0301', 'ß', 'ss', '👩', '👩‍🚀', "'; --", '%', '_', '\\', '?', '$1', '1', '01', '1e0'];
        const visits = await madeMany(userIds.length, (index) => ({ identity: identityOf(userIds[index]!) }));
        for (const [index, userId] of userIds.entries()) {
          expect((await store.listForUser(userId, NOW)).map(({ id }) => id)).toEqual([visits[index]!.id]);
        }
        for (const [index, userId] of userIds.entries()) {
          expect(await store.endAllForUser(userId, { reason: 'admin', at: NOW })).toEqual([visits[index]!.id]);
        }
      });

      test('a user id may have 255 characters', async () => {
        const userId = '🦊'.repeat(127) + 'x';
        const { id } = await made({ identity: identityOf(userId) });
        expect((await store.listForUser(userId, NOW)).map((visit) => visit.id)).toEqual([id]);
      });

      test('endAllForUser ends all but one, of this user only, expired ones too', async () => {
        const mine = await madeMany(4, (index) => ({
          identity: identityOf('alice'),
          expiry: index === 0 ? NOW - DAY : NOW + DAY,
          sessionData: bytes('x'),
        }));
        const [, here] = mine as [NewVisitRecord, NewVisitRecord];
        const theirs = await made({ identity: identityOf('bob') });
        const anonymous = await made();
        const ended = await store.endAllForUser('alice', { reason: 'password', at: NOW, except: here.id });
        const expected = mine.map(({ id }) => id).filter((id) => id !== here.id);
        expect(ended.toSorted()).toEqual(expected.toSorted());
        for (const id of expected)
          expect(await read(id)).toMatchObject({ endedAt: NOW, endReason: 'password', sessionData: null, sessionVersion: 1 });
        for (const { id } of [here, theirs, anonymous]) expect((await read(id)).endedAt).toBeNull();
        expect(await store.endAllForUser('alice', { reason: 'password', at: NOW })).toEqual([here.id]);
        expect(await store.endAllForUser('alice', { reason: 'password', at: NOW })).toEqual([]);
      });

      test('B7: it is remembered when all visits of a user were ended, until that is expunged', async () => {
        expect(await store.endedAllAt('carol')).toBeNull();
        await store.endAllForUser('carol', { reason: 'everywhere', at: NOW + 2 });
        await second.endAllForUser('carol', { reason: 'everywhere', at: NOW + 1 });
        for (const other of ['Carol', 'carol ', '', ' ']) expect(await store.endedAllAt(other)).toBeNull();
        await store.endAllForUser('carol ', { reason: 'everywhere', at: NOW + 5 });
        expect(await second.endedAllAt('carol')).toBe(NOW + 2);
        expect(await second.endedAllAt('carol ')).toBe(NOW + 5);
        await store.endEverything({ reason: 'incident', at: NOW + 3 });
        expect(await second.endedAllAt('carol')).toBe(NOW + 3);
        expect(await second.endedAllAt('anybody')).toBe(NOW + 3);
        expect(await store.expunge({ before: NOW + 3, limit: 10 })).toEqual({ visits: 0, identities: 0 });
        expect(await second.endedAllAt('carol')).toBe(NOW + 3);
        expect(await second.endedAllAt('carol ')).toBe(NOW + 5);
        await store.expunge({ before: NOW + 6, limit: 10 });
        expect(await second.endedAllAt('carol ')).toBeNull();
      });

      test('B7: ends what was linked before it began, also while others are being linked', async () => {
        const visits = await madeMany(24);
        const linkedBefore: string[] = [];
        let hasBegun = false;
        const links = visits.map(async (visit) => {
          await second.rekey([rekeyOf(visit, { identity: identityOf('alice') })]);
          if (!hasBegun) linkedBefore.push(visit.id);
        });
        await Promise.any(links);
        hasBegun = true;
        const ended = await store.endAllForUser('alice', { reason: 'everywhere', at: NOW });
        await Promise.all(links);
        expect(linkedBefore.length).toBeGreaterThan(0);
        expect(ended).toEqual(expect.arrayContaining(linkedBefore));
        const rest = await store.endAllForUser('alice', { reason: 'everywhere', at: NOW });
        expect([...ended, ...rest].toSorted()).toEqual(visits.map(({ id }) => id).toSorted());
      });

      test('B7: endAllForUser does not miss a visit whose key is renewed at that moment', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visits = await madeMany(3, () => ({ identity: identityOf('alice') }));
          const [ended] = await Promise.all([
            store.endAllForUser('alice', { reason: 'everywhere', at: NOW }),
            second.rekey(visits.slice(1).map((visit) => rekeyOf(visit, { previousKeyUntil: NOW + MINUTE }))),
          ]);
          expect(ended.toSorted()).toEqual(visits.map(({ id }) => id).toSorted());
        }
      });

      test('endAllForUser spares a visit that another user has just taken over', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made({ identity: identityOf('alice') });
          const [ended, [taken]] = await Promise.all([
            store.endAllForUser('alice', { reason: 'everywhere', at: NOW }),
            second.rekey([rekeyOf(visit, { identity: identityOf('bob') })]),
          ]);
          expect(ended).toEqual(taken!.outcome === 'done' ? [] : [visit.id]);
          expect((await read(visit.id)).endedAt).toBe(taken!.outcome === 'done' ? null : NOW);
        }
      });
    });

    describe('expunge and wipe', () => {
      test('B37: expunge takes what expired or ended before, in batches, and keeps the living', async () => {
        const expired = await madeMany(7, (index) => ({ expiry: NOW - index - 1, identity: index < 3 ? identityOf('x') : null }));
        const ended = await madeMany(4, () => ({ identity: identityOf('y') }));
        await store.end(
          ended.map(({ id }) => id),
          { reason: 'logout', at: NOW - 1 },
        );
        const justEnded = await made({ identity: identityOf('y') });
        await store.end([justEnded.id], { reason: 'logout', at: NOW });
        const living = [
          await made({ expiry: NOW, identity: identityOf('x') }),
          await made({ expiry: NEVER, identity: identityOf('x') }),
          await made({ created: NOW - 400 * DAY, accessed: NOW - 300 * DAY, identity: identityOf('x') }),
        ];
        const touched = await made({ expiry: NOW - DAY, identity: identityOf('x') });
        await store.touch([{ id: touched.id, accessed: NOW, expiry: NOW + DAY }]);

        expect(await store.countStale(NOW)).toEqual({ visits: 11, identities: 7 });
        const batches = [];
        for (;;) {
          const batch = await store.expunge({ before: NOW, limit: 5 });
          if (batch.visits === 0) break;
          batches.push(batch);
        }
        expect(batches.map(({ visits }) => visits)).toEqual([5, 5, 1]);
        expect(batches.reduce((sum, { identities }) => sum + identities, 0)).toBe(7);
        expect(await store.countStale(NOW)).toEqual({ visits: 0, identities: 0 });
        expect(await store.find([...expired, ...ended].map(({ id }) => id))).toEqual([...expired, ...ended].map(() => null));
        for (const { id, identity } of [...living, touched, justEnded]) expect((await read(id)).identity).toEqual(identity);
        // Nobody is left behind without a visit: a new one under the same id is nobody's.
        await store.create(expired.map((visit) => ({ ...visit, identity: null })));
        expect((await store.find(expired.map(({ id }) => id))).map((visit) => visit?.identity)).toEqual(expired.map(() => null));
      });

      test('B36: on two machines beside traffic, expunge fails nowhere and counts each visit once', async () => {
        const stale = await madeMany(900, (index) => ({ expiry: NOW - 1 - index, identity: index % 3 ? null : identityOf(`u${index}`) }));
        const living = await madeMany(40, (index) => ({ identity: index % 2 ? identityOf('live') : null }));
        const traffickers = { areWanted: true };
        const traffic = async (one: VisitStore): Promise<void> => {
          for (let step = 1; traffickers.areWanted; step++) {
            await one.touch(living.map(({ id, expiry }) => ({ id, accessed: NOW + step, expiry: expiry + step })));
            await one.save(living.map((visit) => saveOf(visit, { version: 0, data: null })));
            await one.create([newVisit({ identity: identityOf('new') })]);
            const [guest] = await madeMany(1);
            await one.rekey([rekeyOf(guest!, { identity: identityOf('new') })]);
          }
        };
        const sum = { visits: 0, identities: 0 };
        const clean = async (one: VisitStore): Promise<void> => {
          for (;;) {
            const { visits, identities } = await one.expunge({ before: NOW, limit: 50 });
            if (visits === 0) return;
            sum.visits += visits;
            sum.identities += identities;
          }
        };
        const running = [traffic(store), traffic(second)];
        await Promise.all([clean(store), clean(second), clean(store), clean(second)]);
        traffickers.areWanted = false;
        await Promise.all(running);
        expect(sum).toEqual({ visits: 900, identities: 300 });
        expect((await store.find(stale.map(({ id }) => id))).filter(Boolean)).toEqual([]);
        expect((await store.find(living.map(({ id }) => id))).map((visit) => visit?.identity ?? null)).toEqual(
          living.map(({ identity }) => identity),
        );
      });

      test('a visit that is touched while it is expunged keeps its identity or goes with it', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visits = await madeMany(10, () => ({ expiry: NOW - 1, identity: identityOf('x') }));
          const [counts] = await Promise.all([
            store.expunge({ before: NOW, limit: 10 }),
            second.touch(visits.slice(5).map(({ id }) => ({ id, accessed: NOW, expiry: NOW + DAY }))),
          ]);
          const left = (await store.find(visits.map(({ id }) => id))).filter((visit) => visit !== null);
          expect(counts).toEqual({ visits: 10 - left.length, identities: 10 - left.length });
          for (const visit of left) expect(visit).toMatchObject({ expiry: NOW + DAY, identity: { userId: 'x' } });
        }
      });

      test('wipe empties what has expired, in batches, and keeps the rows', async () => {
        const expired = await madeMany(7, (index) => ({ expiry: NOW - index - 1, sessionData: bytes('x'), identity: identityOf('x') }));
        await madeMany(3, () => ({ expiry: NOW - DAY, sessionData: null }));
        const living = await made({ expiry: NOW, sessionData: bytes('mine') });
        expect(await store.countUnwiped(NOW)).toBe(7);
        expect(await store.wipe({ before: NOW, limit: 3 })).toBe(3);
        expect(await store.countUnwiped(NOW)).toBe(4);
        expect(await second.wipe({ before: NOW, limit: 3 })).toBe(3);
        expect(await store.wipe({ before: NOW, limit: 3 })).toBe(1);
        expect(await store.wipe({ before: NOW, limit: 3 })).toBe(0);
        for (const visit of expired) {
          expect(await read(visit.id)).toMatchObject({ sessionData: null, sessionVersion: 1, endedAt: null, identity: visit.identity });
        }
        expect(textOf(await read(living.id))).toBe('mine');
        expect((await read(living.id)).sessionVersion).toBe(0);
      });

      test('wipe finds what came behind the place where it was', async () => {
        await madeMany(4, (index) => ({ expiry: NOW - index - 1, sessionData: bytes('x') }));
        expect(await store.wipe({ before: NOW, limit: 2 })).toBe(2);
        await made({ expiry: NOW - DAY, sessionData: bytes('late') });
        let rest = 0;
        for (let batch = 1; batch > 0; rest += batch) batch = await store.wipe({ before: NOW, limit: 2 });
        expect(rest).toBe(3);
        expect(await store.countUnwiped(NOW)).toBe(0);
      });

      test('a save of the moment in which a visit is wiped conflicts or is wiped', async () => {
        for (let round = 0; round < ROUNDS; round++) {
          const visit = await made({ expiry: NOW - 1, sessionData: bytes('old') });
          const [wiped, [saved]] = await Promise.all([
            store.wipe({ before: NOW, limit: 10 }),
            second.save([saveOf(visit, { data: bytes('new') })]),
          ]);
          expect(wiped).toBe(1);
          expect(await read(visit.id)).toMatchObject({ sessionData: null, sessionVersion: saved!.outcome === 'saved' ? 2 : 1 });
        }
      });
    });

    test('B22: instants stay the same in any time zone, also in the hour that a daylight-saving change repeats', async () => {
      const zone = process.env['TZ'];
      // Berlin, 25 October 2026: 02:30 comes twice.
      const [first, again] = [Date.UTC(2026, 9, 25, 0, 30), Date.UTC(2026, 9, 25, 1, 30)];
      try {
        process.env['TZ'] = 'Europe/Berlin';
        const { id } = await made({
          created: first,
          accessed: first,
          expiry: again,
          absoluteExpiry: again,
          identity: identityOf('x', first),
        });
        process.env['TZ'] = 'Pacific/Kiritimati';
        expect(await read(id)).toMatchObject({
          created: first,
          accessed: first,
          expiry: again,
          absoluteExpiry: again,
          identity: { created: first },
        });
        expect(await store.listForUser('x', again - 1)).toHaveLength(1);
        expect(await store.listForUser('x', again)).toHaveLength(0);
      } finally {
        if (zone === undefined) delete process.env['TZ'];
        else process.env['TZ'] = zone;
      }
    });
  });
}

function newId(): string {
  return randomBytes(16).toString('hex');
}

function newHash(): string {
  return createHash('sha256').update(randomBytes(32)).digest('hex');
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function textOf({ sessionData }: VisitRecord): string | null {
  return sessionData && Buffer.from(sessionData).toString();
}

function identityOf(userId: string, at = NOW) {
  return { userId, created: at, authenticatedAt: at };
}

function newVisit(given: Partial<NewVisitRecord> = {}): NewVisitRecord {
  return {
    id: newId(),
    keyHash: newHash(),
    created: NOW,
    accessed: NOW,
    expiry: NOW + 20 * MINUTE,
    absoluteExpiry: null,
    permanent: false,
    remoteAddress: '192.0.2.7',
    userAgent: 'test',
    sessionData: null,
    identity: null,
    ...given,
  };
}

function saveOf({ id, keyHash }: NewVisitRecord, given: Partial<SessionSave> = {}): SessionSave {
  return { id, keyHash, now: NOW, version: 0, data: null, ...given };
}

function rekeyOf({ id, keyHash }: NewVisitRecord, given: Partial<Rekey> = {}): Rekey {
  return { id, keyHash, now: NOW, newKeyHash: newHash(), previousKeyUntil: null, ...given };
}

/** Comparable whatever kind of bytes a store gives. */
function plain(visit: VisitRecord): unknown {
  return { ...visit, sessionData: visit.sessionData && Buffer.from(visit.sessionData).toString('hex') };
}
