import assert from 'node:assert/strict';
import { same } from './assertions.js';
import { bytes, identityOf, NEVER, saveOf } from './samples.js';
import { countStale } from './cleanup.js';
import { FACETS, type Suite } from './suite.js';

export function describeCapabilities({ check, needing }: Suite): void {
  check('check resolves', async ({ store }) => {
    same(await store.check(), undefined);
  });

  check('declares its capabilities', async ({ store, capabilities, facets }) => {
    same(store.capabilities, capabilities);
    const { atomic, revocable, shared, durable } = store.capabilities;
    for (const one of [atomic, revocable, shared, durable]) assert.equal(typeof one, 'boolean');
    if (facets) same(new Set(FACETS.filter((facet) => store[facet] !== undefined)), new Set(facets));
  });

  needing('cleanup')('is empty at first', async (bench) => {
    same(await countStale(bench, NEVER), { visits: 0, identities: 0 });
  });

  needing('atomic')('has a second object for concurrent writers', async ({ capabilities, second, fixture }) => {
    // Otherwise, all races of this suite would happen within one object.
    assert.ok(
      second === (capabilities.shared ? fixture.second : fixture.store),
      'return "second" for a store that is shared',
    );
  });

  needing('revocable')('an ended visit is refused everywhere', async ({ store, second, made }) => {
    const visit = await made();
    same(await store.end([visit.id], { reason: 'admin', at: visit.created }), [visit.id]);
    same(await second.save([saveOf(visit)]), [{ outcome: 'refused', reason: 'ended' }]);
  });

  needing('shared')(
    'a second object sees writes of the first one immediately',
    async ({ store, made, fixture: { second } }) => {
      assert.ok(
        second && second !== store,
        'return "second", another object on the same visits, or declare that the store is not shared',
      );
      const visit = await made({ identity: identityOf('7') });
      same(await second.find([visit.id]), await store.find([visit.id]));
      same(await second.save([saveOf(visit, { data: bytes('theirs') })]), [{ outcome: 'saved', version: 1 }]);
      const found = await store.find([visit.id]);
      same(found[0]?.sessionData, bytes('theirs'));
      same(await second.find([visit.id]), found);
    },
  );

  needing('durable')('visits survive a restart', async ({ store, made, fixture: { reopen } }) => {
    assert.ok(reopen, 'return "reopen", a store as after a restart, or declare that the store is not durable');
    const visit = await made({ identity: identityOf('7') });
    await store.save([saveOf(visit, { data: bytes('mine') })]);
    const before = await store.find([visit.id]);
    const again = await reopen();
    try {
      same(await again.find([visit.id]), before);
      same(await again.save([saveOf(visit, { version: 1, data: bytes('more') })]), [{ outcome: 'saved', version: 2 }]);
    } finally {
      await again.close();
    }
  });
}
