import { randomBytes, randomUUID } from 'node:crypto';
import type { VisitRecord } from 'nest-visit';
import type { DrizzleVisitStore } from 'nest-visit/drizzle';
import type { KyselyVisitStore } from 'nest-visit/kysely';
import type { PrismaVisitStore } from 'nest-visit/prisma';
import type { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { expect } from 'vitest';
import { created } from '../../lib/store/visit.record.js';
import { countStale, countUnwiped } from '../../lib/testing/cleanup.js';
import { endAll, endAllOf, listAll } from '../../lib/testing/many.js';

const NOW = Date.now();
const hex = (bytes: number): string => randomBytes(bytes).toString('hex');
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

/** Input of an attacker who knows how the statement continues. */
export const HOSTILE =
  "x', NULL, 7), (0x6161, 0x62, NULL, NULL, 1, 1, 1, 1, NULL, NULL, NULL, 0, NULL, (SELECT CURRENT_USER()), NULL, 0) #";

function newVisit(userId: string): VisitRecord {
  const identity = { userId, created: NOW, authenticatedAt: NOW };
  const instants = { created: NOW, accessed: NOW, expiry: NOW + 60_000, absoluteExpiry: null };
  return created({
    id: hex(16),
    keyHash: hex(32),
    ...instants,
    remoteAddress: '::1',
    userAgent: HOSTILE,
    sessionData: BYTES,
    identity,
  });
}

export type TableStore = TypeOrmVisitStore | PrismaVisitStore | KyselyVisitStore | DrizzleVisitStore;

/** Everything that is required of a store, with text and bytes of every kind. Fails if a setting prevents any of it. */
export async function useAll(store: TableStore, elsewhere: TableStore): Promise<void> {
  const user = `o'brien \\ "é" 😀 \n ${randomUUID()}`;
  const [one, two] = [newVisit(user), newVisit(user)];
  const nobody = { ...newVisit(''), identity: null };
  await store.create([one, two, nobody]);
  // Another connection sees it, so it is committed.
  expect((await elsewhere.find([one.id]))[0]).toMatchObject({
    sessionData: BYTES,
    userAgent: HOSTILE,
    identity: one.identity,
  });
  const stored = async (id: string) => {
    const { sessionData, ...rest } = (await store.find([id]))[0]!;
    return { ...rest, sessionData: sessionData && Buffer.from(sessionData) };
  };
  expect(await stored(one.id)).toMatchObject({ sessionData: BYTES, userAgent: HOSTILE, identity: one.identity });

  const guard = ({ id, keyHash }: VisitRecord) => ({ id, keyHash, now: NOW });
  const other = BYTES.toReversed();
  const saves = [
    { ...guard(one), version: 0, data: other },
    { ...guard(two), version: 0, data: null },
  ];
  expect((await store.save(saves)).map(({ outcome }) => outcome)).toEqual(['saved', 'saved']);
  expect([(await stored(one.id)).sessionData, (await stored(two.id)).sessionData]).toEqual([Buffer.from(other), null]);
  expect(await store.save([{ ...guard(one), version: 0, data: null }])).toMatchObject([
    { outcome: 'conflict', version: 1 },
  ]);
  await store.touch([one, two].map(({ id }) => ({ id, accessed: NOW + 1, expiry: NOW + 70_000 })));
  expect((await elsewhere.find([two.id]))[0]).toMatchObject({ accessed: NOW + 1, expiry: NOW + 70_000 });

  const newKeyHash = hex(32);
  const identity = { userId: user, created: NOW, authenticatedAt: NOW };
  expect(await store.rekey([{ ...guard(nobody), newKeyHash, previousKeyUntil: null, identity }])).toEqual([
    { outcome: 'done' },
  ]);
  expect(await store.rekey([{ ...guard(nobody), newKeyHash: hex(32), previousKeyUntil: null }])).toMatchObject([
    { outcome: 'refused' },
  ]);
  expect((await elsewhere.find([nobody.id]))[0]).toMatchObject({
    keyHash: newKeyHash,
    previousKeyHash: nobody.keyHash,
    identity,
  });
  const lock = { ...guard(one), owner: hex(16), until: NOW + 1000 };
  expect(await store.lock(lock)).toEqual({ outcome: 'locked' });
  expect(await store.lock({ ...lock, owner: hex(16) })).toEqual({ outcome: 'held' });
  expect(await store.save([{ ...guard(one), version: 1, data: other, lockOwner: lock.owner }])).toMatchObject([
    { outcome: 'saved' },
  ]);
  await store.unlock(one.id, lock.owner);

  const sorted = (ids: readonly string[]): string[] => ids.toSorted();
  const all = sorted([one.id, two.id, nobody.id]);
  expect(sorted((await listAll(store, user, NOW)).map(({ id }) => id))).toEqual(all);
  expect(await listAll(store, user.toUpperCase(), NOW)).toEqual([]);
  expect((await store.liveVisits({ after: '', limit: 500, now: NOW })).visits.map(({ id }) => id)).toEqual(
    expect.arrayContaining(all),
  );
  expect(await store.userAgentsOf(user, NOW + 1)).toEqual([HOSTILE]);
  expect(await endAllOf(store, user, { reason: "it's \\ over 😀", at: NOW, except: two.id })).toHaveLength(2);
  expect(await store.end([two.id], { reason: 'gone', at: NOW })).toEqual([two.id]);
  expect((await elsewhere.find([one.id]))[0]).toMatchObject({
    endedAt: NOW,
    endReason: "it's \\ over 😀",
    sessionData: null,
  });
  expect(await store.revokedAt(user)).toBe(NOW);

  const late = { ...newVisit(user), expiry: NOW };
  await store.create([late]);
  expect(await endAllOf(store, user, { reason: 'all', at: NOW })).toEqual([late.id]);
  const expired = { ...newVisit(user), expiry: NOW };
  await store.create([expired]);
  expect(await countUnwiped({ store }, NOW + 1)).toBe(1);
  expect(await store.wipe({ before: NOW + 1, limit: 10 })).toMatchObject({ visits: 1 });
  expect(await endAll(store, { reason: 'all', at: NOW })).toHaveLength(1);
  expect(await countStale({ store }, NOW + 1)).toEqual({ visits: 5, identities: 5 });
  expect(await store.expunge({ before: NOW + 1, limit: 10 })).toMatchObject({ visits: 5, identities: 5 });
  expect(await elsewhere.find([one.id, expired.id])).toEqual([null, null]);
}
