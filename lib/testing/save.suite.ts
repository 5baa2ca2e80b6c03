import { randomBytes } from 'node:crypto';
import type { VisitRecord, VisitStore } from '../store/visit.store.js';
import { fits, same } from './assertions.js';
import { race } from './race.js';
import { NOW, bytes, identityOf, newHash, newVisit, saveOf, textOf } from './samples.js';
import type { Suite } from './suite.js';

export function describeSave({ check, needing }: Suite): void {
  const checkEnded = needing('revocable');

  check('writes data, increments the version, and changes nothing else', async ({ store, read, made }) => {
    const visit = await made({ identity: identityOf('7'), permanent: true });
    const before = await read(visit.id);
    same(await store.save([saveOf(visit, { data: bytes('one') })]), [{ outcome: 'saved', version: 1 }]);
    same(await read(visit.id), { ...before, sessionData: bytes('one'), sessionVersion: 1 });
    same(await store.save([saveOf(visit, { version: 1, data: null })]), [{ outcome: 'saved', version: 2 }]);
    same(await read(visit.id), { ...before, sessionData: null, sessionVersion: 2 });
  });

  check('with another version, returns a conflict with the stored data', async ({ store, second, read, made }) => {
    const visit = await made();
    await store.save([saveOf(visit, { data: bytes('theirs') })]);
    const [result] = await second.save([saveOf(visit, { data: bytes('mine') })]);
    fits(result, { outcome: 'conflict', version: 1 });
    same(Buffer.from((result as { data: Uint8Array }).data).toString(), 'theirs');
    same(textOf(await read(visit.id)), 'theirs');
  });

  check('later changes of the argument are not stored', async ({ store, read, made }) => {
    const visit = await made();
    const data = bytes('as it was');
    await store.save([saveOf(visit, { data })]);
    data.fill(0);
    const [conflict] = await store.save([saveOf(visit)]);
    (conflict as { data: Uint8Array }).data.fill(0);
    same(textOf(await read(visit.id)), 'as it was');
  });

  checkEnded('returns a result for each save of a mixed group, in order', async ({ store, read, madeMany }) => {
    const [a, b, c, d, e] = (await madeMany(5)) as [VisitRecord, VisitRecord, VisitRecord, VisitRecord, VisitRecord];
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
    same(
      results.map((result) => (result.outcome === 'refused' ? result.reason : result.outcome)),
      ['saved', 'conflict', 'ended', 'unknown', 'retired', 'saved', 'conflict'],
    );
    same([await read(a.id), await read(b.id), await read(d.id), await read(e.id)].map(textOf), [
      'a',
      'newer',
      null,
      'e',
    ]);
    same(await store.save([]), []);
  });

  check('accepts more and larger saves than fit into one statement', async ({ store, madeMany }) => {
    const visits = await madeMany(260);
    const large = randomBytes(400_000);
    const results = await store.save(
      visits.map((visit, index) => saveOf(visit, { data: index < 25 ? large : bytes(visit.id) })),
    );
    same(new Set(results.map(({ outcome }) => outcome)), new Set(['saved']));
    const found = await store.find(visits.map(({ id }) => id));
    same(
      found.map((visit) => visit?.sessionData?.length),
      visits.map((_, index) => (index < 25 ? 400_000 : 32)),
    );
    same(
      found.slice(25).map((visit) => textOf(visit!)),
      visits.slice(25).map(({ id }) => id),
    );
  });

  check(
    'of two saves based on the same version, one is saved and one conflicts',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made();
        const [[one], [two]] = await race(
          round,
          () => store.save([saveOf(visit, { data: bytes('one') })]),
          () => second.save([saveOf(visit, { data: bytes('two') })]),
        );
        same([one!.outcome, two!.outcome].sort(), ['conflict', 'saved']);
        same(textOf(await read(visit.id)), one!.outcome === 'saved' ? 'one' : 'two');
      }
    },
  );

  check('overlapping groups of two processes lose no change', async ({ store, second, read, madeMany }) => {
    const visits = await madeMany(12);
    const counters = new Map(visits.map(({ id }) => [id, 0]));
    const addToAll = async (one: VisitStore, order: VisitRecord[]): Promise<void> => {
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
      Array.from({ length: 6 }, (_, index) =>
        addToAll(index % 2 ? store : second, index % 3 ? visits : visits.toReversed()),
      ),
    );
    for (const { id } of visits) same(Number(textOf(await read(id))), 6);
    same(
      [...counters.values()],
      visits.map(() => 6),
    );
  });
}
