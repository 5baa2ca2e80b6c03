import type { VisitRecord, Rekey } from '../store/visit.store.js';
import { fits, same } from './assertions.js';
import { race } from './race.js';
import { DAY, MINUTE, NOW, bytes, identityOf, newHash, newVisit, rekeyOf, saveOf, textOf } from './samples.js';
import type { Suite } from './suite.js';

export function describeKeys({ check, needing }: Suite): void {
  const checkEnded = needing('revocable');

  check(
    'a write with the current key succeeds, one with an unknown key is refused as retired',
    async ({ store, read, made }) => {
      const visit = await made();
      same(await store.save([saveOf(visit, { keyHash: newHash() })]), [{ outcome: 'refused', reason: 'retired' }]);
      same(await store.rekey([rekeyOf(visit, { keyHash: newHash() })]), [{ outcome: 'refused', reason: 'retired' }]);
      same((await read(visit.id)).keyHash, visit.keyHash);
    },
  );

  check('a replaced key can write during its grace period, and not from its end on', async ({ store, read, made }) => {
    const visit = await made();
    const renewal = rekeyOf(visit, { previousKeyUntil: NOW + 1_000 });
    same(await store.rekey([renewal]), [{ outcome: 'done' }]);
    fits(await read(visit.id), {
      keyHash: renewal.newKeyHash,
      previousKeyHash: visit.keyHash,
      previousKeyUntil: NOW + 1_000,
    });
    const late = (now: number, version: number) => store.save([saveOf(visit, { now, version, data: bytes('x') })]);
    same(await late(NOW + 1_000, 0), [{ outcome: 'refused', reason: 'retired' }]);
    same(await late(NOW + 1_001, 0), [{ outcome: 'refused', reason: 'retired' }]);
    same(await late(NOW + 999, 0), [{ outcome: 'saved', version: 1 }]);
    same(await store.rekey([rekeyOf(visit, { now: NOW + 1_000 })]), [{ outcome: 'refused', reason: 'retired' }]);
    same(await store.rekey([rekeyOf(visit, { now: NOW + 999 })]), [{ outcome: 'done' }]);
  });

  check(
    'B24: a key replaced by a change of rights is invalid, even for a writer with a slow clock',
    async ({ store, read, made }) => {
      const visit = await made();
      same(await store.rekey([rekeyOf(visit, { identity: identityOf('7') })]), [{ outcome: 'done' }]);
      const before = NOW - 60_000;
      same(await store.rekey([rekeyOf(visit, { now: before, identity: identityOf('8') })]), [
        { outcome: 'refused', reason: 'retired' },
      ]);
      same(await store.save([saveOf(visit, { now: before, data: bytes('x') })]), [
        { outcome: 'refused', reason: 'retired' },
      ]);
      fits(await read(visit.id), {
        previousKeyUntil: null,
        keyChanged: NOW,
        identity: { userId: '7' },
        sessionData: null,
      });
    },
  );

  check(
    'a key in its grace period cannot be renewed, which would shorten that period',
    async ({ store, read, made }) => {
      const visit = await made();
      const renewal = rekeyOf(visit, { previousKeyUntil: NOW + 30_000 });
      await store.rekey([renewal]);
      same(await store.rekey([rekeyOf(visit, { previousKeyUntil: NOW + 30_000 })]), [
        { outcome: 'refused', reason: 'retired' },
      ]);
      fits(await read(visit.id), { keyHash: renewal.newKeyHash, previousKeyUntil: NOW + 30_000 });
    },
  );

  check('B46: a change of key keeps the previous hash that it specifies', async ({ store, read, made }) => {
    const visit = await made();
    const lost = rekeyOf(visit, { previousKeyUntil: DAY + NOW });
    await store.rekey([lost]);
    const again = rekeyOf(
      { ...visit, keyHash: lost.newKeyHash },
      { previousKeyUntil: DAY + NOW, previousKeyHash: visit.keyHash },
    );
    same(await store.rekey([again]), [{ outcome: 'done' }]);
    fits(await read(visit.id), {
      keyHash: again.newKeyHash,
      previousKeyHash: visit.keyHash,
      previousKeyUntil: NOW + DAY,
    });
    same(await store.save([saveOf({ ...visit, keyHash: lost.newKeyHash })]), [
      { outcome: 'refused', reason: 'retired' },
    ]);
    same(await store.save([saveOf(visit)]), [{ outcome: 'saved', version: 1 }]);
    // The client has used it: the key is kept, and the previous one gets an end.
    const { newKeyHash: keyHash } = again;
    const seen = rekeyOf(
      { ...visit, keyHash },
      { newKeyHash: keyHash, previousKeyUntil: NOW + 5, previousKeyHash: visit.keyHash },
    );
    same(await store.rekey([seen]), [{ outcome: 'done' }]);
    fits(await read(visit.id), { keyHash, previousKeyHash: visit.keyHash, previousKeyUntil: NOW + 5 });
    same(await store.rekey([again]), [{ outcome: 'refused', reason: 'retired' }]);
  });

  check('the key before the previous one is invalid, whatever its grace period was', async ({ store, made }) => {
    const visit = await made();
    const first = rekeyOf(visit, { previousKeyUntil: NOW + DAY });
    await store.rekey([first]);
    await store.rekey([rekeyOf({ ...visit, keyHash: first.newKeyHash }, { previousKeyUntil: NOW + DAY })]);
    same(await store.save([saveOf(visit)]), [{ outcome: 'refused', reason: 'retired' }]);
    same(await store.save([saveOf({ ...visit, keyHash: first.newKeyHash })]), [{ outcome: 'saved', version: 1 }]);
  });

  check('rekey links, relinks, keeps and unlinks the identity, and writes no data', async ({ store, read, made }) => {
    const visit = await made({ sessionData: bytes('mine') });
    let { keyHash } = visit;
    const step = async (change: Partial<Rekey>): Promise<VisitRecord> => {
      const rekey = rekeyOf({ ...visit, keyHash }, change);
      same(await store.rekey([rekey]), [{ outcome: 'done' }]);
      keyHash = rekey.newKeyHash;
      return read(visit.id);
    };
    same((await step({ identity: identityOf('1', NOW) })).identity, identityOf('1', NOW));
    same((await step({ identity: identityOf('2', NOW + 1) })).identity, identityOf('2', NOW + 1));
    same((await step({})).identity, identityOf('2', NOW + 1));
    same((await step({ identity: null })).identity, null);
    const last = await step({ identity: null });
    fits(last, { identity: null, sessionVersion: 0 });
    same(textOf(last), 'mine');
  });

  check(
    'a change of rights sets permanent and any expiry; a renewal only moves the expiry forward',
    async ({ store, read, made }) => {
      const visit = await made({ permanent: true });
      let { keyHash } = visit;
      const step = async (change: Partial<Rekey>): Promise<VisitRecord> => {
        const rekey = rekeyOf({ ...visit, keyHash }, change);
        same(await store.rekey([rekey]), [{ outcome: 'done' }]);
        keyHash = rekey.newKeyHash;
        return read(visit.id);
      };
      fits(await step({ permanent: false, expiry: visit.expiry - 1_000 }), {
        permanent: false,
        expiry: visit.expiry - 1_000,
      });
      fits(await step({ permanent: true, expiry: visit.expiry + DAY }), {
        permanent: true,
        expiry: visit.expiry + DAY,
      });
      fits(await step({}), { permanent: true, expiry: visit.expiry + DAY });
      const renewal = { previousKeyUntil: NOW + 30_000 };
      fits(await step({ ...renewal, expiry: visit.expiry }), { expiry: visit.expiry + DAY });
      fits(await step({ ...renewal, expiry: visit.expiry + 2 * DAY }), {
        permanent: true,
        expiry: visit.expiry + 2 * DAY,
      });
    },
  );

  check(
    'a change of rights sets the absolute expiry: later, earlier, for the first time, or to none',
    async ({ store, read, made }) => {
      const visit = await made();
      let { keyHash } = visit;
      const step = async (change: Partial<Rekey>): Promise<number | null> => {
        const rekey = rekeyOf({ ...visit, keyHash }, change);
        same(await store.rekey([rekey]), [{ outcome: 'done' }]);
        keyHash = rekey.newKeyHash;
        return (await read(visit.id)).absoluteExpiry;
      };
      same(await step({ absoluteExpiry: NOW + DAY }), NOW + DAY);
      same(await step({ absoluteExpiry: NOW + 2 * DAY }), NOW + 2 * DAY);
      same(await step({ absoluteExpiry: NOW + 1_000 }), NOW + 1_000);
      same(await step({ identity: identityOf('1') }), NOW + 1_000);
      same(await step({ previousKeyUntil: NOW + 30_000 }), NOW + 1_000);
      same(await step({ absoluteExpiry: null }), null);
    },
  );

  check('rekey writes only its own columns', async ({ store, read, made }) => {
    const visit = await made({
      created: NOW - DAY,
      accessed: NOW - MINUTE,
      sessionData: bytes('mine'),
      permanent: true,
    });
    await store.save([saveOf(visit, { data: bytes('mine') })]);
    const before = await read(visit.id);
    const renewal = rekeyOf(visit, { previousKeyUntil: NOW + MINUTE });
    await store.rekey([renewal]);
    const keys = {
      keyHash: renewal.newKeyHash,
      previousKeyHash: visit.keyHash,
      previousKeyUntil: NOW + MINUTE,
      keyChanged: NOW,
    };
    same(await read(visit.id), { ...before, ...keys });
    const login = rekeyOf({ ...visit, keyHash: renewal.newKeyHash }, { now: NOW + 1, identity: identityOf('7') });
    await store.rekey([login]);
    const newKeys = {
      keyHash: login.newKeyHash,
      previousKeyHash: renewal.newKeyHash,
      previousKeyUntil: null,
      keyChanged: NOW + 1,
    };
    same(await read(visit.id), { ...before, ...newKeys, identity: identityOf('7') });
  });

  check('a retired key takes precedence over a conflict', async ({ store, made }) => {
    const visit = await made();
    await store.save([saveOf(visit, { data: bytes('newer') })]);
    same(await store.save([saveOf(visit, { keyHash: newHash() })]), [{ outcome: 'refused', reason: 'retired' }]);
  });

  checkEnded(
    'a refused rekey does not change the identity, and each one has its own result',
    async ({ store, read, madeMany }) => {
      const [a, b, c] = (await madeMany(3, () => ({ identity: identityOf('owner') }))) as [
        VisitRecord,
        VisitRecord,
        VisitRecord,
      ];
      await store.end([b.id], { reason: 'logout', at: NOW });
      const stranger = newVisit();
      const results = await store.rekey([
        rekeyOf(a, { keyHash: newHash(), identity: identityOf('thief') }),
        rekeyOf(b, { identity: identityOf('thief') }),
        rekeyOf(stranger, { identity: identityOf('thief') }),
        rekeyOf(c, { identity: null }),
      ]);
      same(results, [
        { outcome: 'refused', reason: 'retired' },
        { outcome: 'refused', reason: 'ended' },
        { outcome: 'refused', reason: 'unknown' },
        { outcome: 'done' },
      ]);
      same((await read(a.id)).identity?.userId, 'owner');
      same((await read(b.id)).identity?.userId, 'owner');
      same((await read(c.id)).identity, null);
      same(await store.find([stranger.id]), [null]);
    },
  );

  check(
    'of two concurrent calls that replace the same key, one wins',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made();
        const changes = [
          rekeyOf(visit, { identity: identityOf('one') }),
          rekeyOf(visit, { identity: identityOf('two') }),
        ] as const;
        const [[one], [two]] = await race(
          round,
          () => store.rekey([changes[0]]),
          () => second.rekey([changes[1]]),
        );
        same([one!.outcome, two!.outcome].sort(), ['done', 'refused']);
        const winner = changes[one!.outcome === 'done' ? 0 : 1];
        fits(await read(visit.id), { keyHash: winner.newKeyHash, identity: winner.identity });
      }
    },
  );

  check(
    'B3: a late write with the key from before a sign-in changes nothing',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made({ sessionData: bytes('anonymous') });
        const login = rekeyOf(visit, { identity: identityOf('alice') });
        const [{ linked, seen }, [saved]] = await race(
          round,
          async () => ({ linked: (await store.rekey([login]))[0], seen: await read(visit.id) }),
          () => second.save([saveOf(visit, { data: bytes('late') })]),
        );
        same(linked, { outcome: 'done' });
        const after = await read(visit.id);
        same(after, seen, 'after the sign-in has returned, no write with the earlier key may succeed');
        fits(after, { keyHash: login.newKeyHash, previousKeyHash: visit.keyHash, identity: login.identity });
        same(textOf(after), saved!.outcome === 'saved' ? 'late' : 'anonymous');
        same(await second.save([saveOf(visit, { version: after.sessionVersion })]), [
          { outcome: 'refused', reason: 'retired' },
        ]);
        same(await second.rekey([rekeyOf(visit, { identity: null })]), [{ outcome: 'refused', reason: 'retired' }]);
        same((await read(visit.id)).identity, login.identity);
      }
    },
  );
}
