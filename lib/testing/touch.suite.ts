import { fits, same } from './assertions.js';
import { race } from './race.js';
import { DAY, MINUTE, NEVER, NOW, bytes, identityOf, newId, newVisit, rekeyOf, saveOf } from './samples.js';
import { countStale, expungeAll } from './cleanup.js';
import type { Suite } from './suite.js';

export function describeTouch({ check, needing }: Suite): void {
  const checkListedEnds = needing('cleanup', 'revocable');
  const checkEnded = needing('revocable');

  check('moves accessed and expiry forward, never back, and changes nothing else', async ({ store, read, made }) => {
    const visit = await made({ sessionData: bytes('data'), identity: identityOf('7') });
    const before = await read(visit.id);
    const later = { accessed: NOW + MINUTE, expiry: visit.expiry + MINUTE };
    await store.touch([{ id: visit.id, ...later }]);
    same(await read(visit.id), { ...before, ...later });
    await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW }]);
    same(await read(visit.id), { ...before, ...later });
    await store.touch([]);
  });

  check('of one visit twice: the later instants win', async ({ store, read, made }) => {
    const { id, expiry } = await made();
    await store.touch([
      { id, accessed: NOW + 2, expiry: expiry + 1 },
      { id, accessed: NOW + 1, expiry: expiry + 2 },
    ]);
    fits(await read(id), { accessed: NOW + 2, expiry: expiry + 2 });
  });

  check(
    'from before a change of key, does not restore a lifetime that the change has shortened',
    async ({ store, read, made }) => {
      const visit = await made({ permanent: true });
      const known = { id: visit.id, keyChanged: visit.created };
      await store.touch([{ ...known, accessed: NOW + 1, expiry: NOW + DAY }]);
      same((await read(visit.id)).expiry, NOW + DAY);
      await store.rekey([rekeyOf(visit, { now: NOW + 2, permanent: false, expiry: NOW + MINUTE })]);
      const before = await read(visit.id);
      await store.touch([{ ...known, accessed: NOW + 3, expiry: NOW + DAY }]);
      same(await read(visit.id), before);
      await store.touch([{ ...known, keyChanged: NOW + 2, accessed: NOW + 4, expiry: NOW + 2 * MINUTE }]);
      fits(await read(visit.id), { accessed: NOW + 4, expiry: NOW + 2 * MINUTE });
    },
  );

  check('of two concurrent touches, the later instants win', async ({ store, second, read, made, rounds }) => {
    for (let round = 0; round < rounds; round++) {
      const { id, expiry } = await made();
      await race(
        round,
        () => store.touch([{ id, accessed: NOW + 2, expiry: expiry + 1 }]),
        () => second.touch([{ id, accessed: NOW + 1, expiry: expiry + 2 }]),
      );
      fits(await read(id), { accessed: NOW + 2, expiry: expiry + 2 });
    }
  });

  check('sets different instants for many visits', async ({ store, madeMany }) => {
    const visits = await madeMany(1_100);
    await store.touch(visits.map(({ id, expiry }, index) => ({ id, accessed: NOW + index, expiry: expiry + index })));
    const found = await store.find(visits.map(({ id }) => id));
    same(
      found.map((visit) => visit!.accessed),
      visits.map((_, index) => NOW + index),
    );
    same(
      found.map((visit) => visit!.expiry),
      visits.map(({ expiry }, index) => expiry + index),
    );
  });

  checkEnded('B4: neither revives nor extends an ended visit', async ({ store, read, made }) => {
    const { id, expiry } = await made();
    const other = await made();
    await store.end([id], { reason: 'logout', at: NOW });
    const ended = await read(id);
    await store.touch([
      { id, accessed: NOW + DAY, expiry: expiry + DAY },
      { id: other.id, accessed: NOW + DAY, expiry: expiry + DAY },
    ]);
    same(await read(id), ended);
    same((await read(other.id)).expiry, expiry + DAY);
  });

  checkListedEnds('B5: no late write inserts a row', async (bench) => {
    const { store, read, made } = bench;
    const visit = await made({ identity: identityOf('7'), expiry: NOW - DAY });
    same(await expungeAll(bench, { before: NOW, limit: 10 }), [{ visits: 1, identities: 1 }]);
    await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]);
    same(await store.save([saveOf(visit, { data: bytes('late') })]), [{ outcome: 'refused', reason: 'unknown' }]);
    same(await store.rekey([rekeyOf(visit, { identity: identityOf('7') })]), [
      { outcome: 'refused', reason: 'unknown' },
    ]);
    same(await store.end([visit.id], { reason: 'logout', at: NOW }), []);
    same(await store.find([visit.id]), [null]);
    same(await countStale(bench, NEVER), { visits: 0, identities: 0 });
    // A new visit would show an identity that was left behind.
    await store.create([{ ...visit, identity: null }]);
    same((await read(visit.id)).identity, null);
  });

  check('B5: no write inserts a visit that was never created', async ({ store }) => {
    const visit = newVisit({ identity: identityOf('7') });
    await store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]);
    same(await store.save([saveOf(visit, { data: bytes('new') })]), [{ outcome: 'refused', reason: 'unknown' }]);
    same(await store.rekey([rekeyOf(visit, { identity: visit.identity })]), [
      { outcome: 'refused', reason: 'unknown' },
    ]);
    same(await store.end([visit.id], { reason: 'logout', at: NOW, retiresKey: true }), []);
    await store.locks?.unlock(visit.id, newId());
    same(await store.find([visit.id]), [null]);
  });
}
