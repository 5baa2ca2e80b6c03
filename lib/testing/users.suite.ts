import assert from 'node:assert/strict';
import type { EndedBatch, ListPosition, VisitPage } from '../store/visit.facets.js';
import type { IdentityRecord, VisitRecord } from '../store/visit.store.js';
import { fits, same } from './assertions.js';
import { race } from './race.js';
import { DAY, MINUTE, NOW, bytes, identityOf, newVisit, rekeyOf } from './samples.js';
import { expungeAll } from './cleanup.js';
import type { Suite } from './suite.js';
import { byAccess, listedCopyOf } from '../store/visit.record.js';
import { eachStep, endAll, endAllOf, listAll, listLive } from './many.js';

export function describeUsers({ needing }: Suite): void {
  const checkUsers = needing('users');

  needing('pages', 'revocable')(
    'liveVisits returns all visits that are neither ended nor expired',
    async ({ store, read, madeMany }) => {
      const live = await madeMany(125, (index) => ({
        expiry: NOW + 1,
        identity: index % 2 ? identityOf('alice') : null,
      }));
      await madeMany(2, () => ({ expiry: NOW }));
      const [ended] = await madeMany(1);
      await store.end([ended!.id], { reason: 'gone', at: NOW });
      const pages = await eachStep<VisitPage>((after) =>
        store.pages!.liveVisits({ after: after ?? '', limit: 10, now: NOW }),
      );
      for (const { visits } of pages) assert.ok(visits.length < 100, 'a page has about the requested size');
      const seen = pages.flatMap(({ visits }) => visits);
      same([...new Set(seen.map(({ id }) => id))].sort(), live.map(({ id }) => id).sort());
      same(seen[0], listedCopyOf(await read(seen[0]!.id)));
    },
  );

  checkUsers('listForUser returns the live visits, the most recently used first', async ({ store, read, madeMany }) => {
    const [old, recent, expired, ended] = (await madeMany(5, (index) => ({
      accessed: NOW + index,
      expiry: index === 2 ? NOW : NOW + DAY,
      sessionData: bytes(String(index)),
      identity: identityOf(index === 4 ? 'other' : 'alice'),
    }))) as [VisitRecord, VisitRecord, VisitRecord, VisitRecord];
    await store.end([ended.id], { reason: 'logout', at: NOW });
    const list = await listAll(store, 'alice', NOW);
    same(
      list.map(({ id }) => id),
      [recent.id, old.id],
    );
    same(list[0]!, listedCopyOf(await read(recent.id)));
    same(
      (await listAll(store, 'alice', NOW - 1)).map(({ id }) => id),
      [expired.id, recent.id, old.id],
    );
    same(await listAll(store, 'nobody', NOW), []);
  });

  checkUsers('a visit is listed for the user that it is linked to now', async ({ store, second, read, made }) => {
    const visit = await made({ userAgent: 'browser' });
    let { keyHash } = visit;
    const link = async (identity: IdentityRecord | null): Promise<void> => {
      const change = rekeyOf({ ...visit, keyHash }, { identity });
      same(await second.rekey([change]), [{ outcome: 'done' }]);
      keyHash = change.newKeyHash;
      const stored = listedCopyOf(await read(visit.id));
      for (const userId of ['alice', 'bob']) {
        const isTheirs = identity?.userId === userId;
        same(await listAll(store, userId, NOW), isTheirs ? [stored] : [], `for ${userId}`);
        same(await store.users!.userAgentsOf(userId, NOW + DAY), isTheirs ? ['browser'] : []);
      }
    };
    await link(identityOf('alice'));
    await link(identityOf('bob'));
    await link(null);
    await link(identityOf('alice', NOW + 1));
  });

  checkUsers(
    'endAllForUser ends the visits that are linked to the user now',
    async ({ store, second, read, madeMany }) => {
      const [left, came, gone] = (await madeMany(3, (index) => ({
        identity: identityOf(index === 1 ? 'bob' : 'alice'),
      }))) as [VisitRecord, VisitRecord, VisitRecord];
      await second.rekey([
        rekeyOf(left, { identity: identityOf('bob') }),
        rekeyOf(came, { identity: identityOf('alice') }),
        rekeyOf(gone, { identity: null }),
      ]);
      same(await endAllOf(store, 'alice', { reason: 'everywhere', at: NOW }), [came.id]);
      for (const { id } of [left, gone]) same((await read(id)).endedAt, null);
    },
  );

  checkUsers('endAllForUser and endAll retire keys on request', async ({ store, read, madeMany }) => {
    const [client, elsewhere, later] = (await madeMany(3, (index) => ({
      identity: identityOf(['alice', 'bob', 'carol'][index]!),
    }))) as [VisitRecord, VisitRecord, VisitRecord];
    await endAllOf(store, 'alice', { reason: 'everywhere', at: NOW + 1, retiresKey: true });
    await endAllOf(store, 'bob', { reason: 'everywhere', at: NOW + 1 });
    await endAll(store, { reason: 'incident', at: NOW + 2, retiresKey: true });
    fits(await read(client.id), { endedAt: NOW + 1, previousKeyUntil: NOW + 1, keyChanged: NOW + 1 });
    fits(await read(elsewhere.id), { endedAt: NOW + 1, previousKeyUntil: null, keyChanged: NOW });
    fits(await read(later.id), { endedAt: NOW + 2, previousKeyUntil: NOW + 2, keyChanged: NOW + 2 });
  });

  checkUsers('listForUser returns pages, whose order does not depend on their size', async ({ store, madeMany }) => {
    // Several were used at the same instant.
    const visits = await madeMany(23, (index) => ({ accessed: NOW + (index >> 2), identity: identityOf('alice') }));
    await madeMany(1, () => ({ identity: identityOf('bob') }));
    const expected = visits.toSorted(byAccess).map(({ id }) => id);
    for (const limit of [1, 4, 5, 23, 1_000]) {
      const pages = await eachStep<VisitPage<ListPosition>>((after) =>
        store.users!.listForUser({ userId: 'alice', now: NOW, limit, after: after ?? undefined }),
      );
      for (const { visits: page } of pages) assert.ok(page.length <= limit, 'a page has at most the requested size');
      same(
        pages.flatMap(({ visits: page }) => page.map(({ id }) => id)),
        expected,
        `pages of ${limit}`,
      );
    }
  });

  needing('users', 'pages')('lists do not contain session data', async ({ store, made }) => {
    await made({ sessionData: bytes('a session can be large'), identity: identityOf('alice') });
    await made({ identity: identityOf('alice') });
    const listed = [...(await listAll(store, 'alice', NOW)), ...(await listLive(store, NOW))];
    assert.ok(listed.length >= 4);
    for (const visit of listed)
      assert.ok(!('sessionData' in visit), 'a list of visits has no session data, not even null');
  });

  checkUsers('changes of a returned list are not stored', async ({ store, read, made }) => {
    const { id } = await made({ identity: identityOf('alice') });
    const before = await read(id);
    for (const visit of await listAll(store, 'alice', NOW)) {
      Object.assign(visit, { expiry: 0 });
      Object.assign(visit.identity!, { userId: 'bob' });
    }
    same(await read(id), before);
  });

  checkUsers('user ids are compared byte by byte', async ({ store, madeMany }) => {
    const userIds = [
      'a',
      'A',
      'a ',
      ' a',
      'á',
      'a\u0301',
      'ß',
      'ss',
      '👩',
      '👩‍🚀',
      "'; --",
      '%',
      '_',
      '\\',
      '?',
      '$1',
      '1',
      '01',
      '1e0',
    ];
    const visits = await madeMany(userIds.length, (index) => ({ identity: identityOf(userIds[index]!) }));
    for (const [index, userId] of userIds.entries()) {
      same(
        (await listAll(store, userId, NOW)).map(({ id }) => id),
        [visits[index]!.id],
      );
    }
    for (const [index, userId] of userIds.entries()) {
      same(await endAllOf(store, userId, { reason: 'admin', at: NOW }), [visits[index]!.id]);
    }
  });

  checkUsers('a user id can have 255 characters', async ({ store, made }) => {
    const userId = '🦊'.repeat(127) + 'x';
    const { id } = await made({ identity: identityOf(userId) });
    same(
      (await listAll(store, userId, NOW)).map((visit) => visit.id),
      [id],
    );
  });

  checkUsers(
    'endAllForUser ends all but one visit, only of this user, even expired ones',
    async ({ store, read, made, madeMany }) => {
      const mine = await madeMany(4, (index) => ({
        identity: identityOf('alice'),
        expiry: index === 0 ? NOW - DAY : NOW + DAY,
        sessionData: bytes('x'),
      }));
      const [, here] = mine as [VisitRecord, VisitRecord];
      const theirs = await made({ identity: identityOf('bob') });
      const anonymous = await made();
      const ended = await endAllOf(store, 'alice', { reason: 'password', at: NOW, except: here.id });
      const expected = mine.map(({ id }) => id).filter((id) => id !== here.id);
      same(ended.toSorted(), expected.toSorted());
      for (const id of expected)
        fits(await read(id), { endedAt: NOW, endReason: 'password', sessionData: null, sessionVersion: 1 });
      for (const { id } of [here, theirs, anonymous]) same((await read(id)).endedAt, null);
      same(await endAllOf(store, 'alice', { reason: 'password', at: NOW }), [here.id]);
      same(await endAllOf(store, 'alice', { reason: 'password', at: NOW }), []);
    },
  );

  checkUsers(
    'endAllForUser ends in batches, and stores the revocation with the first one',
    async ({ store, second, madeMany }) => {
      const visits = await madeMany(25, () => ({ identity: identityOf('alice') }));
      const batches = await eachStep<EndedBatch>(async (after) => {
        const batch = { userId: 'alice', ending: { reason: 'everywhere', at: NOW }, limit: 10, after };
        const done = await store.users!.endAllForUser(batch);
        same(await second.users!.revokedAt('alice'), NOW);
        return done;
      });
      for (const { ended } of batches) assert.ok(ended.length < 20, 'a batch has about the requested size');
      same(batches.flatMap(({ ended }) => ended).toSorted(), visits.map(({ id }) => id).toSorted());
    },
  );

  checkUsers(
    'endAllForUser ends visits that were linked before it began, whatever happens between batches',
    async ({ store, second, madeMany }) => {
      const visits = await madeMany(9, () => ({ identity: identityOf('alice') }));
      const ending = { reason: 'everywhere', at: NOW };
      const first = await store.users!.endAllForUser({ userId: 'alice', ending, limit: 3 });
      const [renewed, moved, gone, ...rest] = visits.filter(({ id }) => !first.ended.includes(id));
      await second.rekey([
        rekeyOf(renewed!, { previousKeyUntil: NOW + MINUTE }),
        rekeyOf(moved!, { identity: identityOf('bob') }),
      ]);
      await second.end([gone!.id], { reason: 'logout', at: NOW });
      const others = await eachStep<EndedBatch>((after = first.next) =>
        store.users!.endAllForUser({ userId: 'alice', ending, limit: 3, after }),
      );
      same(
        [first, ...others].flatMap(({ ended }) => ended).toSorted(),
        [...first.ended, renewed!.id, ...rest.map(({ id }) => id)].toSorted(),
      );
    },
  );

  needing('users', 'cleanup')('B7: the end of all visits of a user is stored until it is expunged', async (bench) => {
    const { store, second } = bench;
    same(await store.users!.revokedAt('carol'), null);
    await endAllOf(store, 'carol', { reason: 'everywhere', at: NOW + 2 });
    await endAllOf(second, 'carol', { reason: 'everywhere', at: NOW + 1 });
    for (const other of ['Carol', 'carol ', '', ' ']) same(await store.users!.revokedAt(other), null);
    await endAllOf(store, 'carol ', { reason: 'everywhere', at: NOW + 5 });
    same(await second.users!.revokedAt('carol'), NOW + 2);
    same(await second.users!.revokedAt('carol '), NOW + 5);
    await endAll(store, { reason: 'incident', at: NOW + 3 });
    same(await second.users!.revokedAt('carol'), NOW + 3);
    same(await second.users!.revokedAt('anybody'), NOW + 3);
    same(await expungeAll(bench, { before: NOW + 3, limit: 10 }), []);
    same(await second.users!.revokedAt('carol'), NOW + 3);
    same(await second.users!.revokedAt('carol '), NOW + 5);
    await expungeAll(bench, { before: NOW + 6, limit: 10 });
    same(await second.users!.revokedAt('carol '), null);
  });

  checkUsers(
    'B7: endAllForUser ends visits that were linked before it began, even while others are linked',
    async ({ store, second, madeMany }) => {
      const visits = await madeMany(24);
      const linkedBefore: string[] = [];
      let hasBegun = false;
      const links = visits.map(async (visit) => {
        await second.rekey([rekeyOf(visit, { identity: identityOf('alice') })]);
        if (!hasBegun) linkedBefore.push(visit.id);
      });
      await Promise.any(links);
      hasBegun = true;
      const ended = await endAllOf(store, 'alice', { reason: 'everywhere', at: NOW });
      await Promise.all(links);
      assert.ok(linkedBefore.length > 0);
      same(
        linkedBefore.filter((id) => !ended.includes(id)),
        [],
      );
      const rest = await endAllOf(store, 'alice', { reason: 'everywhere', at: NOW });
      same([...ended, ...rest].toSorted(), visits.map(({ id }) => id).toSorted());
    },
  );

  checkUsers(
    'B7: endAllForUser does not miss a visit whose key is renewed concurrently',
    async ({ store, second, madeMany, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visits = await madeMany(3, () => ({ identity: identityOf('alice') }));
        const [ended] = await race(
          round,
          () => endAllOf(store, 'alice', { reason: 'everywhere', at: NOW }),
          () => second.rekey(visits.slice(1).map((visit) => rekeyOf(visit, { previousKeyUntil: NOW + MINUTE }))),
        );
        same(ended.toSorted(), visits.map(({ id }) => id).toSorted());
      }
    },
  );

  checkUsers(
    'endAllForUser does not end a visit that now belongs to another user',
    async ({ store, second, read, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const visit = await made({ identity: identityOf('alice') });
        const [ended, [taken]] = await race(
          round,
          () => endAllOf(store, 'alice', { reason: 'everywhere', at: NOW }),
          () => second.rekey([rekeyOf(visit, { identity: identityOf('bob') })]),
        );
        same(ended, taken!.outcome === 'done' ? [] : [visit.id]);
        same((await read(visit.id)).endedAt, taken!.outcome === 'done' ? null : NOW);
      }
    },
  );

  checkUsers(
    'B7: of a sign-in and a concurrent end of all visits, one sees the other',
    async ({ store, second, made, rounds }) => {
      for (let round = 0; round < rounds; round++) {
        const userId = `user ${round}`;
        const visit = await made();
        const late = newVisit({ identity: identityOf(userId) });
        const [seen, seenByNew, ended] = await race(
          round,
          () =>
            second
              .rekey([rekeyOf(visit, { identity: identityOf(userId) })])
              .then(() => second.users!.revokedAt(userId)),
          () => second.create([late]).then(() => second.users!.revokedAt(userId)),
          () => endAllOf(store, userId, { reason: 'everywhere', at: NOW }),
        );
        assert.ok(ended.includes(visit.id) || seen === NOW, 'a visit that was signed in concurrently was missed');
        assert.ok(ended.includes(late.id) || seenByNew === NOW, 'a visit that was created concurrently was missed');
      }
    },
  );

  checkUsers('userAgentsOf returns each user agent of earlier visits of the user once', async ({ store, madeMany }) => {
    const agents = ['old', 'old', 'older', null, 'later', 'of another', 'expired'];
    await madeMany(agents.length, (index) => ({
      userAgent: agents[index]!,
      expiry: index === 6 ? NOW - DAY : NOW + DAY,
      identity: identityOf(index === 5 ? 'bob' : 'alice', index === 4 ? NOW : NOW - 1 - index),
    }));
    const found = await store.users!.userAgentsOf('alice', NOW);
    same(found.length, 4);
    same(new Set(found), new Set(['old', 'older', null, 'expired']));
    same(await store.users!.userAgentsOf('nobody', NOW), []);
  });

  checkUsers('userAgentsOf includes ended visits', async ({ store, made }) => {
    const { id } = await made({ userAgent: 'browser', identity: identityOf('alice', NOW - 1) });
    await store.end([id], { reason: 'logout', at: NOW });
    same(await store.users!.userAgentsOf('alice', NOW), ['browser']);
  });
}
