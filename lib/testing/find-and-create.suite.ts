import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { same } from './assertions.js';
import { DAY, NOW, bytes, identityOf, newHash, newId, newVisit, saveOf, textOf } from './samples.js';
import type { Suite } from './suite.js';

export function describeFindAndCreate({ check }: Suite): void {
  check('return all fields, with the identity', async ({ read, made }) => {
    const visit = await made({
      absoluteExpiry: NOW + 30 * DAY,
      permanent: true,
      remoteAddress: '2001:db8:85a3:8d3:1319:8a2e:255.255.255.255',
      userAgent: 'Mozilla/5.0 (X11; Linux x86_64)',
      sessionData: bytes('data'),
      identity: { userId: '42', created: NOW - 5, authenticatedAt: NOW - 7 },
    });
    same(await read(visit.id), {
      ...visit,
      previousKeyHash: null,
      previousKeyUntil: null,
      keyChanged: visit.created,
      endedAt: null,
      endReason: null,
      sessionVersion: 0,
    });
  });

  check('accept a visit of another store unchanged', async ({ store, read }) => {
    const past = { previousKeyHash: newHash(), previousKeyUntil: NOW + 5, keyChanged: NOW - 5, sessionVersion: 7 };
    const visit = newVisit({ ...past, created: NOW - DAY, sessionData: bytes('data'), identity: identityOf('mover') });
    await store.create([visit]);
    same(await read(visit.id), { ...visit, endedAt: null, endReason: null });
    same(await store.save([saveOf(visit, { version: 7, data: bytes('new') })]), [{ outcome: 'saved', version: 8 }]);
  });

  check('preserve null and false', async ({ read, made }) => {
    const { id } = await made({
      permanent: false,
      remoteAddress: null,
      userAgent: null,
      sessionData: null,
      identity: null,
    });
    const { permanent, remoteAddress, userAgent, sessionData, identity } = await read(id);
    same(
      { permanent, remoteAddress, userAgent, sessionData, identity },
      {
        permanent: false,
        remoteAddress: null,
        userAgent: null,
        sessionData: null,
        identity: null,
      },
    );
  });

  check('return visits in the order of the ids, and null for unknown ids', async ({ store, madeMany }) => {
    const visits = await madeMany(3);
    const ids = [visits[2]!.id, newId(), visits[0]!.id, visits[1]!.id];
    same(
      (await store.find(ids)).map((visit) => visit?.id ?? null),
      [ids[0], null, ids[2], ids[3]],
    );
    same(await store.find([]), []);
  });

  check('accept more visits than fit into one statement', async ({ second, madeMany }) => {
    const visits = await madeMany(1_234, (index) => ({
      identity: index % 2 ? { userId: `${index}`, created: NOW, authenticatedAt: NOW } : null,
    }));
    const found = await second.find(visits.map(({ id }) => id));
    same(
      found.map((visit) => visit?.id),
      visits.map(({ id }) => id),
    );
    same(
      found.map((visit) => visit?.identity?.userId),
      visits.map(({ identity }) => identity?.userId),
    );
  });

  check('do not check the expiry', async ({ read, made }) => {
    const { id } = await made({ expiry: NOW - 30 * DAY });
    same((await read(id)).expiry, NOW - 30 * DAY);
  });

  check('an existing id is an error, and the call stores nothing', async ({ store, read, made }) => {
    const visit = await made({ sessionData: bytes('first') });
    const neighbor = newVisit({ identity: identityOf('1') });
    await assert.rejects(async () =>
      store.create([neighbor, newVisit({ id: visit.id, sessionData: bytes('second'), identity: identityOf('2') })]),
    );
    same(await store.find([neighbor.id]), [null]);
    same(textOf(await read(visit.id)), 'first');
    same((await read(visit.id)).identity, null);
  });

  check('a repeated id in one call is an error, and the call stores nothing', async ({ store }) => {
    const [visit, neighbor] = [newVisit(), newVisit()];
    await assert.rejects(async () => store.create([neighbor, visit, newVisit({ id: visit.id })]));
    same(await store.find([visit.id, neighbor.id]), [null, null]);
  });

  check('ids are case-sensitive', async ({ store, made }) => {
    const { id } = await made({ id: `abcdef${newId().slice(6)}` });
    same(await store.find([id.toUpperCase()]), [null]);
    assert.notDeepEqual(await store.find([id]), [null]);
  });

  check('later changes of the argument are not stored', async ({ read, made }) => {
    const data = bytes('as it was');
    const { id } = await made({ sessionData: data });
    data.fill(0);
    (await read(id)).sessionData!.fill(0);
    same(textOf(await read(id)), 'as it was');
  });

  check('B15: 200 KB of any bytes and emoji survive a round trip', async ({ store, read, made }) => {
    const sessionData = randomBytes(200_000);
    const visit = await made({ sessionData, userAgent: '🦊'.repeat(120), identity: identityOf('👩‍🚀 zoë') });
    const stored = await read(visit.id);
    same(Buffer.from(stored.sessionData!).equals(sessionData), true);
    same(stored.userAgent, visit.userAgent);
    same(stored.identity?.userId, '👩‍🚀 zoë');
    const next = randomBytes(300_000);
    await store.save([saveOf(visit, { data: next })]);
    same(Buffer.from((await read(visit.id)).sessionData!).equals(next), true);
  });
}
