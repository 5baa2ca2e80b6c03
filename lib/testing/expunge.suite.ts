import type { VisitStore } from '../store/visit.store.js';
import { fits, same } from './assertions.js';
import { race } from './race.js';
import { DAY, NEVER, NOW, bytes, identityOf, newVisit, rekeyOf, saveOf, textOf } from './samples.js';
import { countStale, countUnwiped, expungeAll } from './cleanup.js';
import type { Suite } from './suite.js';

export function describeExpunge({ needing }: Suite): void {
  const checkListed = needing('cleanup');
  const checkListedEnds = needing('cleanup', 'revocable');

  checkListedEnds(
    'B37: expunge deletes visits that expired or ended before, in batches, and keeps live ones',
    async (bench) => {
      const { store, read, made, madeMany } = bench;
      const expired = await madeMany(7, (index) => ({
        expiry: NOW - index - 1,
        identity: index < 3 ? identityOf('x') : null,
      }));
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

      same(await countStale(bench, NOW), { visits: 11, identities: 7 });
      const batches = await expungeAll(bench, { before: NOW, limit: 5 });
      same(
        batches.map(({ visits }) => visits),
        [5, 5, 1],
      );
      same(
        batches.reduce((sum, { identities }) => sum + identities, 0),
        7,
      );
      same(await countStale(bench, NOW), { visits: 0, identities: 0 });
      same(
        await store.find([...expired, ...ended].map(({ id }) => id)),
        [...expired, ...ended].map(() => null),
      );
      for (const { id, identity } of [...living, touched, justEnded]) same((await read(id)).identity, identity);
      // No identity is left without its visit: a new visit with the same id belongs to no user.
      await store.create(expired.map((visit) => ({ ...visit, identity: null })));
      same(
        (await store.find(expired.map(({ id }) => id))).map((visit) => visit?.identity),
        expired.map(() => null),
      );
    },
  );

  checkListed(
    'B36: on two machines with concurrent traffic, expunge does not fail and counts each visit once',
    async ({ store, second, madeMany }) => {
      const stale = await madeMany(900, (index) => ({
        expiry: NOW - 1 - index,
        identity: index % 3 ? null : identityOf(`u${index}`),
      }));
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
        for (const { visits, identities } of await expungeAll({ store: one }, { before: NOW, limit: 50 })) {
          sum.visits += visits;
          sum.identities += identities;
        }
      };
      const running = [traffic(store), traffic(second)];
      await Promise.all([clean(store), clean(second), clean(store), clean(second)]);
      traffickers.areWanted = false;
      await Promise.all(running);
      same(sum, { visits: 900, identities: 300 });
      same((await store.find(stale.map(({ id }) => id))).filter(Boolean), []);
      same(
        (await store.find(living.map(({ id }) => id))).map((visit) => visit?.identity ?? null),
        living.map(({ identity }) => identity),
      );
    },
  );

  checkListed(
    'a visit that is touched during expunge is kept or deleted together with its identity',
    async ({ store, second, madeMany, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visits = await madeMany(10, () => ({ expiry: NOW - 1, identity: identityOf('x') }));
        const [{ visits: expunged, identities }] = await race(
          round,
          () => store.cleanup!.expunge({ before: NOW, limit: 10 }),
          () => second.touch(visits.slice(5).map(({ id }) => ({ id, accessed: NOW, expiry: NOW + DAY }))),
        );
        const left = (await store.find(visits.map(({ id }) => id))).filter((visit) => visit !== null);
        same({ expunged, identities }, { expunged: 10 - left.length, identities: 10 - left.length });
        for (const visit of left) fits(visit, { expiry: NOW + DAY, identity: { userId: 'x' } });
      }
    },
  );

  checkListed('wipe deletes the data of expired visits, in batches, and keeps their rows', async (bench) => {
    const { store, second, read, made, madeMany } = bench;
    const expired = await madeMany(7, (index) => ({
      expiry: NOW - index - 1,
      sessionData: bytes('x'),
      identity: identityOf('x'),
    }));
    await madeMany(3, () => ({ expiry: NOW - DAY, sessionData: null }));
    const living = await made({ expiry: NOW, sessionData: bytes('mine') });
    same(await countUnwiped(bench, NOW), 7);
    fits(await store.cleanup!.wipe({ before: NOW, limit: 3 }), { visits: 3 });
    same(await countUnwiped(bench, NOW), 4);
    fits(await second.cleanup!.wipe({ before: NOW, limit: 3 }), { visits: 3 });
    fits(await store.cleanup!.wipe({ before: NOW, limit: 3 }), { visits: 1 });
    fits(await store.cleanup!.wipe({ before: NOW, limit: 3 }), { visits: 0 });
    for (const visit of expired) {
      fits(await read(visit.id), { sessionData: null, sessionVersion: 1, endedAt: null, identity: visit.identity });
    }
    same(textOf(await read(living.id)), 'mine');
    same((await read(living.id)).sessionVersion, 0);
  });

  checkListed('a dry run only counts', async (bench) => {
    const { read, madeMany } = bench;
    const stale = await madeMany(3, () => ({ expiry: NOW - 1, sessionData: bytes('x'), identity: identityOf('x') }));
    const before = await Promise.all(stale.map(({ id }) => read(id)));
    for (let times = 0; times < 2; times++) {
      same(await countStale(bench, NOW), { visits: 3, identities: 3 });
      same(await countUnwiped(bench, NOW), 3);
    }
    same(await Promise.all(stale.map(({ id }) => read(id))), before);
  });

  checkListed('two concurrent clean-ups do not skip anything', async (bench) => {
    const { store, second, madeMany } = bench;
    await madeMany(12, (index) => ({ expiry: NOW - 1 - index }));
    const one = await store.cleanup!.expunge({ before: NOW, limit: 3 });
    const other = await second.cleanup!.expunge({ before: NOW, limit: 3 });
    // Earlier instants: the `next` of the first clean-up must not affect it.
    const earlier = await store.cleanup!.expunge({ before: NOW - DAY, limit: 3 });
    same([one.visits, other.visits, earlier.visits], [3, 3, 0]);
    let rest = 0;
    for (let after = one.next; after !== null;) {
      const { visits, next } = await store.cleanup!.expunge({ before: NOW, limit: 3, after });
      rest += visits;
      after = next;
    }
    same(rest, 6);
  });

  checkListed('wipe finds visits that are added behind its position', async (bench) => {
    const { store, made, madeMany } = bench;
    await madeMany(4, (index) => ({ expiry: NOW - index - 1, sessionData: bytes('x') }));
    const first = await store.cleanup!.wipe({ before: NOW, limit: 2 });
    same(first.visits, 2);
    await made({ expiry: NOW - DAY, sessionData: bytes('late') });
    let rest = 0;
    for (let after = first.next; after !== null;) {
      const { visits, next } = await store.cleanup!.wipe({ before: NOW, limit: 2, after });
      rest += visits;
      after = next;
    }
    same(rest, 3);
    same(await countUnwiped(bench, NOW), 0);
  });

  checkListed('a save during wipe conflicts or is wiped', async ({ store, second, read, made, rounds }) => {
    for (let round = 0; round < rounds; round++) {
      const visit = await made({ expiry: NOW - 1, sessionData: bytes('old') });
      const [{ visits: wiped }, [saved]] = await race(
        round,
        () => store.cleanup!.wipe({ before: NOW, limit: 10 }),
        () => second.save([saveOf(visit, { data: bytes('new') })]),
      );
      same(wiped, 1);
      fits(await read(visit.id), { sessionData: null, sessionVersion: saved!.outcome === 'saved' ? 2 : 1 });
    }
  });
}
