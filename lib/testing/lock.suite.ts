import type { Lock } from '../store/visit.facets.js';
import type { VisitRecord } from '../store/visit.store.js';
import { same } from './assertions.js';
import { DAY, MINUTE, NOW, bytes, identityOf, newHash, newId, newVisit, rekeyOf, saveOf, textOf } from './samples.js';
import type { Suite } from './suite.js';

export function describeLock({ needing }: Suite): void {
  const checkLock = needing('locks');
  const checkLockOfEnded = needing('locks', 'revocable');

  const [mine, theirs] = [newId(), newId()];
  const lockOf = ({ id, keyHash }: VisitRecord, owner: string, given: Partial<Lock> = {}): Lock => ({
    id,
    keyHash,
    now: NOW,
    owner,
    until: NOW + MINUTE,
    ...given,
  });

  checkLock('R52: one owner holds it until it releases it or it expires', async ({ store, second, read, made }) => {
    const visit = await made();
    const before = await read(visit.id);
    same(await store.locks!.lock(lockOf(visit, mine)), { outcome: 'locked' });
    same(await second.locks!.lock(lockOf(visit, theirs)), { outcome: 'held' });
    await second.locks!.unlock(visit.id, theirs);
    same(await second.locks!.lock(lockOf(visit, theirs)), { outcome: 'held' });
    await store.locks!.unlock(visit.id, mine);
    same(await second.locks!.lock(lockOf(visit, theirs)), { outcome: 'locked' });
    same(await store.locks!.lock(lockOf(visit, mine, { now: NOW + MINUTE - 1 })), { outcome: 'held' });
    same(await store.locks!.lock(lockOf(visit, mine, { now: NOW + MINUTE })), { outcome: 'locked' });
    await store.locks!.unlock(visit.id, mine);
    await store.locks!.unlock(newId(), mine);
    same(await read(visit.id), before);
  });

  checkLock(
    'R52: its owner can renew a running lease, and take a lock again that it holds',
    async ({ store, second, made }) => {
      const visit = await made();
      const renewal = { until: NOW + 2 * MINUTE, renews: true };
      await store.locks!.lock(lockOf(visit, mine));
      same(await store.locks!.lock(lockOf(visit, mine)), { outcome: 'locked' });
      same(await store.locks!.lock(lockOf(visit, mine, { ...renewal, now: NOW + MINUTE - 1 })), { outcome: 'locked' });
      same(await second.locks!.lock(lockOf(visit, theirs, { now: NOW + 2 * MINUTE - 1 })), { outcome: 'held' });
      same(await second.locks!.lock(lockOf(visit, theirs, { ...renewal, now: NOW })), {
        outcome: 'refused',
        reason: 'unlocked',
      });
      same(await store.save([saveOf(visit, { lockOwner: mine, now: NOW + 2 * MINUTE - 1 })]), [
        { outcome: 'saved', version: 1 },
      ]);
    },
  );

  checkLock(
    'R52, B78: an expired lease is lost, even if no other owner has had the lock since',
    async ({ store, second, madeMany }) => {
      const visits = (await madeMany(4)) as [VisitRecord, VisitRecord, VisitRecord, VisitRecord];
      const [alone, held, given, untouched] = visits;
      const unlocked = { outcome: 'refused', reason: 'unlocked' };
      const late = NOW + MINUTE;
      for (const visit of [alone, held, given]) await store.locks!.lock(lockOf(visit, mine));
      for (const visit of [held, given])
        await second.locks!.lock(lockOf(visit, theirs, { now: late, until: late + MINUTE }));
      await second.locks!.unlock(given.id, theirs);
      for (const visit of visits) {
        same(await store.locks!.lock(lockOf(visit, mine, { now: late, until: late + MINUTE, renews: true })), unlocked);
        same(await store.save([saveOf(visit, { lockOwner: mine, now: late })]), [unlocked]);
      }
      const saves = visits.map((visit) => saveOf(visit, { lockOwner: mine, now: late }));
      same(
        await store.save(saves),
        saves.map(() => unlocked),
      );
      // None of this has taken the lock from its owner or from the next one.
      same(await second.save([saveOf(held, { lockOwner: theirs, now: late })]), [{ outcome: 'saved', version: 1 }]);
      for (const visit of [alone, given, untouched])
        same(await second.locks!.lock(lockOf(visit, theirs, { now: late })), { outcome: 'locked' });
    },
  );

  checkLockOfEnded('R52: is only available for a writable visit', async ({ store, madeMany }) => {
    const [visit, ended] = (await madeMany(2)) as [VisitRecord, VisitRecord];
    await store.end([ended.id], { reason: 'logout', at: NOW });
    same(await store.locks!.lock(lockOf(newVisit(), mine)), { outcome: 'refused', reason: 'unknown' });
    same(await store.locks!.lock(lockOf(ended, mine)), { outcome: 'refused', reason: 'ended' });
    same(await store.locks!.lock(lockOf({ ...visit, keyHash: newHash() }, mine)), {
      outcome: 'refused',
      reason: 'retired',
    });
    same(await store.locks!.lock(lockOf(ended, mine, { renews: true })), { outcome: 'refused', reason: 'ended' });
    same(await store.locks!.lock(lockOf(visit, theirs)), { outcome: 'locked' });
  });

  checkLock(
    'R52: a save that requires it is refused without it, even in a group',
    async ({ store, second, read, madeMany }) => {
      const [locked, lost, free] = (await madeMany(3)) as [VisitRecord, VisitRecord, VisitRecord];
      await store.locks!.lock(lockOf(locked, mine));
      await second.locks!.lock(lockOf(lost, theirs));
      const results = await store.save([
        saveOf(locked, { lockOwner: mine, data: bytes('mine') }),
        saveOf(lost, { lockOwner: mine, data: bytes('mine') }),
        saveOf(free, { lockOwner: mine, data: bytes('mine') }),
      ]);
      same(results, [
        { outcome: 'saved', version: 1 },
        { outcome: 'refused', reason: 'unlocked' },
        { outcome: 'refused', reason: 'unlocked' },
      ]);
      same([await read(locked.id), await read(lost.id), await read(free.id)].map(textOf), ['mine', null, null]);
      // Saves without a lock are not delayed by one.
      same(await store.save([saveOf(lost, { data: bytes('any') })]), [{ outcome: 'saved', version: 1 }]);
    },
  );

  checkLock('R52: save, touch and rekey do not release it', async ({ store, second, made }) => {
    const visit = await made();
    await store.locks!.lock(lockOf(visit, mine));
    const expectHeld = async (keyHash: string, version: number): Promise<void> => {
      const owned = { ...visit, keyHash };
      same(await second.locks!.lock(lockOf(owned, theirs)), { outcome: 'held' });
      same(await store.save([saveOf(owned, { lockOwner: mine, version })]), [
        { outcome: 'saved', version: version + 1 },
      ]);
      same(await second.locks!.lock(lockOf(owned, theirs)), { outcome: 'held' });
    };
    await expectHeld(visit.keyHash, 0);
    same(await second.save([saveOf(visit, { version: 1, data: bytes('any') })]), [{ outcome: 'saved', version: 2 }]);
    await expectHeld(visit.keyHash, 2);
    await second.touch([{ id: visit.id, accessed: NOW + 1, expiry: visit.expiry + 1 }]);
    await expectHeld(visit.keyHash, 3);
    const renewal = rekeyOf(visit, { previousKeyUntil: NOW + MINUTE });
    await second.rekey([renewal]);
    await expectHeld(renewal.newKeyHash, 4);
    const login = rekeyOf({ ...visit, keyHash: renewal.newKeyHash }, { identity: identityOf('7') });
    await second.rekey([login]);
    await expectHeld(login.newKeyHash, 5);
  });

  checkLock('R52: a key in its grace period can take it, a retired key cannot', async ({ store, madeMany }) => {
    const [renewed, elevated] = (await madeMany(2)) as [VisitRecord, VisitRecord];
    await store.rekey([
      rekeyOf(renewed, { previousKeyUntil: NOW + 1_000 }),
      rekeyOf(elevated, { identity: identityOf('7') }),
    ]);
    same(await store.locks!.lock(lockOf(renewed, mine, { now: NOW + 1_000 })), {
      outcome: 'refused',
      reason: 'retired',
    });
    same(await store.locks!.lock(lockOf(elevated, mine)), { outcome: 'refused', reason: 'retired' });
    same(await store.locks!.lock(lockOf(elevated, mine, { now: NOW - DAY })), {
      outcome: 'refused',
      reason: 'retired',
    });
    same(await store.locks!.lock(lockOf(renewed, mine, { now: NOW + 999 })), { outcome: 'locked' });
    same(await store.locks!.lock(lockOf(renewed, mine, { now: NOW + 999, renews: true })), { outcome: 'locked' });
    same(await store.locks!.lock(lockOf(renewed, theirs, { now: NOW + 999 })), { outcome: 'held' });
  });

  checkLock('R52: of many concurrent requests, one gets it', async ({ store, second, made, rounds }) => {
    for (let round = 0; round < rounds; round++) {
      const visit = await made();
      const owners = Array.from({ length: 6 }, newId);
      const results = await Promise.all(
        owners.map((owner, index) => (index % 2 ? store : second).locks!.lock(lockOf(visit, owner))),
      );
      same(results.filter(({ outcome }) => outcome === 'locked').length, 1);
      const winner = owners[results.findIndex(({ outcome }) => outcome === 'locked')]!;
      same(await store.save([saveOf(visit, { lockOwner: winner })]), [{ outcome: 'saved', version: 1 }]);
    }
  });
}
