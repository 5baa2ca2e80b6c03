import type { VisitRecord } from '../store/visit.store.js';
import assert from 'node:assert/strict';
import { fits, same } from './assertions.js';
import { race } from './race.js';
import { DAY, MINUTE, NEVER, NOW, bytes, identityOf, newId, rekeyOf, saveOf } from './samples.js';
import type { Suite } from './suite.js';
import { endAll } from './many.js';

export function describeEnd({ needing }: Suite): void {
  const checkListedEnds = needing('users');
  const checkEnded = needing('revocable');

  checkEnded(
    'returns the ended ids, wipes the data, increments the version, and keeps the identity',
    async ({ store, read, made }) => {
      const visit = await made({ sessionData: bytes('data'), identity: identityOf('7') });
      const other = await made();
      const before = await read(visit.id);
      same(await store.end([newId(), visit.id], { reason: 'logout', at: NOW }), [visit.id]);
      same(await read(visit.id), {
        ...before,
        endedAt: NOW,
        endReason: 'logout',
        sessionData: null,
        sessionVersion: 1,
      });
      same(await store.end([visit.id, other.id], { reason: 'again', at: NOW + 1 }), [other.id]);
      fits(await read(visit.id), { endedAt: NOW, endReason: 'logout', sessionVersion: 1 });
      same(await store.end([], { reason: 'none', at: NOW }), []);
    },
  );

  checkEnded('with `retiresKey`, the key is retired at that instant', async ({ store, read, madeMany }) => {
    const [byClient, fromElsewhere] = (await madeMany(2)) as [VisitRecord, VisitRecord];
    await store.rekey([byClient, fromElsewhere].map((visit) => rekeyOf(visit, { previousKeyUntil: NOW + MINUTE })));
    await store.end([byClient.id], { reason: 'logout', at: NOW, retiresKey: true });
    await store.end([fromElsewhere.id], { reason: 'admin', at: NOW });
    fits(await read(byClient.id), {
      endedAt: NOW,
      previousKeyUntil: NOW,
      keyChanged: NOW,
      previousKeyHash: byClient.keyHash,
    });
    fits(await read(fromElsewhere.id), { endedAt: NOW, previousKeyUntil: NOW + MINUTE });
  });

  checkEnded('B6: ends visits regardless of their expiry', async ({ store, read, made }) => {
    const eternal = await made({ expiry: NEVER, permanent: true });
    const expired = await made({ expiry: NOW - DAY });
    same(
      (await store.end([eternal.id, expired.id], { reason: 'admin', at: NOW })).sort(),
      [eternal.id, expired.id].sort(),
    );
    same((await read(eternal.id)).endedAt, NOW);
    same((await read(expired.id)).endedAt, NOW);
  });

  checkEnded(
    'of two concurrent calls, exactly one ends each visit',
    async ({ store, second, read, madeMany, rounds }) => {
      const visits = await madeMany(rounds);
      const ids = visits.map(({ id }) => id);
      const [one, two] = await Promise.all([
        store.end(ids, { reason: 'one', at: NOW }),
        second.end(ids.toReversed(), { reason: 'two', at: NOW }),
      ]);
      same([...one, ...two].sort(), ids.toSorted());
      for (const id of one) same((await read(id)).endReason, 'one');
      for (const id of two) same((await read(id)).endReason, 'two');
    },
  );

  checkEnded(
    'B4: no concurrent touch, save or rekey revives the visit',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made({ sessionData: bytes('data') });
        const [{ ended, seen }, [saved], [linked]] = await race(
          round,
          async () => ({
            ended: await store.end([visit.id], { reason: 'logout', at: NOW }),
            seen: await read(visit.id),
          }),
          () => second.save([saveOf(visit, { data: bytes('late') })]),
          () => second.rekey([rekeyOf(visit, { identity: identityOf('late'), previousKeyUntil: NOW + MINUTE })]),
          () => second.touch([{ id: visit.id, accessed: NOW + 1, expiry: visit.expiry + 1 }]),
        );
        same(ended, [visit.id]);
        const after = await read(visit.id);
        same(after, seen, 'after `end` has returned, no write may succeed');
        fits(after, { endedAt: NOW, endReason: 'logout', sessionData: null });
        same(after.sessionVersion, saved!.outcome === 'saved' ? 2 : 1);
        same(after.identity?.userId, linked!.outcome === 'done' ? 'late' : undefined);
        for (const result of [saved, linked]) if (result!.outcome === 'refused') fits(result, { reason: 'ended' });
        same(await second.save([saveOf(visit, { version: after.sessionVersion })]), [
          { outcome: 'refused', reason: 'ended' },
        ]);
        same(await second.rekey([rekeyOf(visit)]), [{ outcome: 'refused', reason: 'ended' }]);
      }
    },
  );

  checkEnded(
    'B4: a concurrent sign-in leaves the visit ended, in any order',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made({ sessionData: bytes('data') });
        const login = rekeyOf(visit, { identity: identityOf('alice'), permanent: true, expiry: visit.expiry + DAY });
        const [[linked], { ended, seen }] = await race(
          round,
          () => second.rekey([login]),
          async () => ({
            ended: await store.end([visit.id], { reason: 'logout', at: NOW, retiresKey: true }),
            seen: await read(visit.id),
          }),
        );
        same(ended, [visit.id]);
        const isFirst = linked!.outcome === 'done';
        if (!isFirst) same(linked, { outcome: 'refused', reason: 'ended' });
        const after = await read(visit.id);
        same(after, seen, 'after `end` has returned, no write may succeed');
        fits(after, {
          endedAt: NOW,
          endReason: 'logout',
          sessionData: null,
          keyHash: isFirst ? login.newKeyHash : visit.keyHash,
        });
        same(after.identity?.userId, isFirst ? 'alice' : undefined);
        same(await second.save([saveOf({ ...visit, keyHash: login.newKeyHash })]), [
          { outcome: 'refused', reason: 'ended' },
        ]);
      }
    },
  );

  checkListedEnds('endAll ends all visits and returns each once', async ({ store, second, read, made, madeMany }) => {
    await madeMany(1_100);
    const eternal = await made({ expiry: NEVER });
    await store.end([(await made()).id], { reason: 'logout', at: NOW });
    const counts = await Promise.all([store, second].map((one) => endAll(one, { reason: 'incident', at: NOW })));
    same(counts[0]!.length + counts[1]!.length, 1_101);
    same(new Set(counts.flat()).size, 1_101);
    fits(await read(eternal.id), { endedAt: NOW, endReason: 'incident' });
    same(await endAll(store, { reason: 'incident', at: NOW }), []);
  });

  checkListedEnds('endAll ends in batches', async ({ store, madeMany }) => {
    await madeMany(30);
    const first = await store.users!.endAll({ ending: { reason: 'incident', at: NOW }, limit: 10 });
    assert.ok(first.ended.length < 20, 'a batch has about the requested size');
    assert.notEqual(first.next, null);
  });
}
