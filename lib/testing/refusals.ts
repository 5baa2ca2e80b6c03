import assert from 'node:assert/strict';
import type { Feature } from '../options/store-needs.js';
import { refuses, same } from './assertions.js';
import { identityOf, NOW } from './samples.js';
import type { Bench } from './suite.js';

const ending = { reason: 'admin', at: NOW };

/** What a store must do if it lacks a feature. Methods that it does not have cannot be called. */
export const refusals: Partial<Record<Feature, (bench: Bench) => Promise<void>>> = {
  async atomic({ store }) {
    same(store.locks, undefined, 'exclusive access needs a store that is "atomic"');
  },

  async revocable({ store, read, made }) {
    const { id } = await made({ identity: identityOf('alice') });
    await refuses(() => store.end([id], ending), 'end of a visit from elsewhere');
    same(store.users, undefined, 'the end of all visits of a user needs a store that is "revocable"');
    same((await read(id)).endedAt, null, 'what is refused must not be done');
    await assert.doesNotReject(
      async () => store.end([id], { ...ending, retiresKey: true }),
      'a client may always end its own visit',
    );
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
