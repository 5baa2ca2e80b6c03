import assert from 'node:assert/strict';
import type { VisitStoreCapabilities } from '../store/visit.store.js';
import { refuses, same } from './assertions.js';
import { identityOf, MINUTE, newId, NEVER, NOW } from './samples.js';
import type { Bench } from './suite.js';

const ending = { reason: 'admin', at: NOW };

/** What a store must do instead, where it lacks a capability. */
export const refusals: Record<keyof VisitStoreCapabilities, (bench: Bench) => Promise<void>> = {
  async atomic({ store, made }) {
    const { id, keyHash } = await made();
    await refuses(() => store.lock({ id, keyHash, now: NOW, owner: newId(), until: NOW + MINUTE }), 'lock');
  },

  async revocable({ store, read, made }) {
    const { id } = await made({ identity: identityOf('alice') });
    await refuses(() => store.end([id], ending), 'end of a visit from elsewhere');
    await refuses(() => store.endAllForUser('alice', ending), 'endAllForUser');
    await refuses(() => store.endEverything(ending), 'endEverything');
    same((await read(id)).endedAt, null, 'what is refused must not be done');
    await assert.doesNotReject(async () => store.end([id], { ...ending, retiresKey: true }), 'a client may always end its own visit');
  },

  async listable({ store, read, made }) {
    const stale = await made({ identity: identityOf('alice'), expiry: NOW - 1 });
    const { id } = await made({ identity: identityOf('alice') });
    await refuses(() => store.listForUser('alice', NOW), 'listForUser');
    await refuses(() => store.userAgentsOf('alice', NOW), 'userAgentsOf');
    await refuses(() => store.liveVisits({ after: '', limit: 10, now: NOW }), 'liveVisits');
    await refuses(() => store.endAllForUser('alice', ending), 'endAllForUser');
    await refuses(() => store.endEverything(ending), 'endEverything');
    same(await store.endedAllAt('alice'), null);
    same(await store.countStale(NEVER), { visits: 0, identities: 0 });
    same(await store.expunge({ before: NOW, limit: 10 }), { visits: 0, identities: 0 });
    same(await store.countUnwiped(NEVER), 0);
    same(await store.wipe({ before: NOW, limit: 10 }), 0);
    same((await read(id)).endedAt, null, 'what is refused must not be done');
    // It may be gone by itself, or not yet.
    same((await store.find([stale.id])).length, 1);
  },

  async shared({ store, fixture }) {
    same(store.capabilities.shared, false, 'the module must be able to know');
    assert.ok(fixture.second === undefined || fixture.second === store, 'a store that is not shared has no "second"');
  },

  async durable({ store, fixture }) {
    same(store.capabilities.durable, false, 'the module must be able to know');
    assert.ok(fixture.reopen === undefined, 'a store that is not durable has no "reopen"');
  },
};
