import { setImmediate as turn } from 'node:timers/promises';
import {
  MemoryVisitStore,
  VisitStoreUnsupportedError,
  type Rekey,
  type SessionSave,
  type ListedVisit,
  type VisitRecord,
  type VisitStore,
  type VisitStoreCapabilities,
} from 'nest-visit';
import { describeVisitStore, type VisitStoreSuiteOptions } from 'nest-visit/testing';
import { describe, expect, test } from 'vitest';
import { endAll, listAll } from '../../lib/testing/many.js';
import { created, listedCopyOf } from '../../lib/store/visit.record.js';

const DAY = 86_400_000;
/** The instant at which the suite begins. */
const NOW = Date.UTC(2026, 5, 1, 12, 0, 0, 123);

const keyOf = ({ keyHash }: VisitRecord) => ({ keyHash });

/** A store that keeps the contract, and what `find` is to say of visits all the same. */
interface Sound {
  readonly store: MemoryVisitStore;
  readonly find: (id: string) => Promise<VisitRecord | null>;
  readonly forge: (id: string, columns: Partial<VisitRecord>) => void;
}

/** A store with the mistakes that `mistake` puts into it. */
function withMistake(mistake: (sound: Sound) => Partial<MemoryVisitStore>): MemoryVisitStore {
  const store = new MemoryVisitStore();
  const forged = new Map<string, Partial<VisitRecord>>();
  const find = async (id: string) => (await store.find([id]))[0]!;
  const mistaken: Partial<MemoryVisitStore> = {
    find: async (ids) => (await store.find(ids)).map((visit) => visit && { ...visit, ...forged.get(visit.id) }),
    ...mistake({ store, find, forge: (id, columns) => forged.set(id, { ...forged.get(id), ...columns }) }),
  };
  return new Proxy<MemoryVisitStore>(store, {
    get: (_, name: keyof MemoryVisitStore, proxy) => {
      const member = name in mistaken ? mistaken[name] : store[name];
      // Its facets are the store itself.
      if (member === store) return proxy as unknown;
      return typeof member === 'function' ? member.bind(store) : member;
    },
  });
}

/** Does saves one after the other, each as the mistake changes it. */
const savingEach =
  (change: (save: SessionSave, visit: VisitRecord) => SessionSave | Promise<SessionSave>) =>
  ({ store, find }: Sound): Partial<MemoryVisitStore> => ({
    save: async (saves) => {
      const results = [];
      for (const save of saves) {
        const visit = await find(save.id);
        results.push(...(await store.save([visit ? await change(save, visit) : save])));
      }
      return results;
    },
  });

const rekeyingEach =
  (change: (rekey: Rekey, visit: VisitRecord) => Rekey) =>
  ({ store, find }: Sound): Partial<MemoryVisitStore> => ({
    rekey: async (changes) => {
      const results = [];
      for (const one of changes) {
        const visit = await find(one.id);
        results.push(...(await store.rekey([visit ? change(one, visit) : one])));
      }
      return results;
    },
  });

/** A page as it is without a column list. */
async function withData<P extends { readonly visits: readonly ListedVisit[] }>(
  page: P,
  find: (id: string) => Promise<Pick<VisitRecord, 'sessionData'> | null>,
): Promise<P> {
  const visits = page.visits.map(async (visit) => ({ ...visit, sessionData: (await find(visit.id))!.sessionData }));
  return { ...page, visits: await Promise.all(visits) };
}

/** By what is wrong with them: mistakes that are easily made. */
const mistakes: Record<string, (sound: Sound) => Partial<MemoryVisitStore>> = {
  'find returns an ended visit as it was before': ({ store }) => {
    const seen = new Map<string, VisitRecord>();
    return {
      find: async (ids) =>
        (await store.find(ids)).map((visit) => {
          if (visit?.endedAt === null) seen.set(visit.id, visit);
          return (visit && seen.get(visit.id)) ?? visit;
        }),
    };
  },
  'find returns visits in another order': ({ store }) => ({ find: (ids) => store.find([...ids].sort()) }),
  'find omits unknown ids': ({ store }) => ({
    find: async (ids) => (await store.find(ids)).filter(Boolean),
  }),
  'find omits expired visits': ({ store }) => ({
    find: async (ids) => (await store.find(ids)).map((visit) => (visit && visit.expiry < visit.created ? null : visit)),
  }),
  'find ignores the case of ids': ({ store }) => ({
    find: (ids) => store.find(ids.map((id) => id.toLowerCase())),
  }),
  'find returns instants in whole seconds': ({ store }) => ({
    find: async (ids) =>
      (await store.find(ids)).map((visit) => visit && { ...visit, accessed: visit.accessed - (visit.accessed % 1000) }),
  }),
  "create stores the caller's bytes without a copy": ({ store, forge }) => ({
    create: async (visits) => {
      await store.create(visits);
      for (const { id, sessionData } of visits) if (sessionData) forge(id, { sessionData });
    },
  }),
  'create overwrites': ({ store, find, forge }) => ({
    create: async (visits) => {
      for (const visit of visits) {
        if (await find(visit.id)) forge(visit.id, visit);
        else await store.create([visit]);
      }
    },
  }),
  'create stores a part of a failing call': ({ store }) => ({
    create: async (visits) => {
      for (const visit of visits) await store.create([visit]);
    },
  }),

  'save ignores the version': savingEach((save, { sessionVersion }) => ({ ...save, version: sessionVersion })),
  'save compares and writes in two steps': ({ store, find }) => ({
    save: async (saves) => {
      const first = await Promise.all(saves.map(({ id }) => find(id)));
      await turn();
      const now = await Promise.all(saves.map(({ id }) => find(id)));
      return store.save(
        saves.map((save, i) =>
          first[i]?.sessionVersion === save.version ? { ...save, version: now[i]!.sessionVersion } : save,
        ),
      );
    },
  }),
  'save ignores the key': savingEach((save, { keyHash }) => ({ ...save, keyHash })),
  'save accepts a replaced key after its grace period': savingEach((save) => ({ ...save, now: 0 })),
  'save accepts the key from before a sign-in': savingEach((save, { previousKeyHash, keyHash }) =>
    save.keyHash === previousKeyHash ? { ...save, keyHash } : save,
  ),
  'save checks the key and writes in two steps': ({ store, find }) => ({
    save: async (saves) => {
      const first = await Promise.all(saves.map(({ id }) => find(id)));
      await turn();
      const now = await Promise.all(saves.map(({ id }) => find(id)));
      return store.save(
        saves.map((save, i) => (first[i]?.keyHash === save.keyHash ? { ...save, keyHash: now[i]!.keyHash } : save)),
      );
    },
  }),
  'save revives an ended visit': ({ store, find, forge }) => ({
    save: async (saves) => {
      for (const { id, data } of saves) {
        const visit = await find(id);
        if (visit && visit.endedAt !== null) forge(id, { endedAt: null, endReason: null, sessionData: data });
      }
      return store.save(saves);
    },
  }),
  'save checks the end and writes in two steps': ({ store, find, forge }) => ({
    save: async (saves) => {
      const first = await Promise.all(saves.map(({ id }) => find(id)));
      await turn();
      for (const [i, { id, data }] of saves.entries())
        if (first[i]?.endedAt === null && (await find(id))?.endedAt) forge(id, { sessionData: data });
      return store.save(saves);
    },
  }),
  'save ignores the lock that it requires': savingEach((save) => ({ ...save, lockOwner: undefined })),
  'save returns results in another order': ({ store }) => ({
    save: async (saves) => (await store.save(saves)).toReversed(),
  }),
  'save returns the previous version': ({ store }) => ({
    save: async (saves) =>
      (await store.save(saves)).map((result) =>
        result.outcome === 'saved' ? { ...result, version: result.version - 1 } : result,
      ),
  }),
  'save returns a conflict without the stored data': ({ store }) => ({
    save: async (saves) =>
      (await store.save(saves)).map((result) => (result.outcome === 'conflict' ? { ...result, data: null } : result)),
  }),
  'save moves the expiry': ({ store }) => ({
    save: async (saves) => {
      await store.touch(saves.map(({ id, now }) => ({ id, accessed: now, expiry: now + DAY })));
      return store.save(saves);
    },
  }),

  'rekey accepts the old key': rekeyingEach((change, { keyHash }) => ({ ...change, keyHash })),
  'rekey accepts a key in its grace period': rekeyingEach((change, { previousKeyHash, keyHash }) =>
    change.previousKeyUntil !== null && change.keyHash === previousKeyHash ? { ...change, keyHash } : change,
  ),
  'rekey does not keep the specified previous key': rekeyingEach((change, { keyHash }) =>
    change.previousKeyHash === undefined ? change : { ...change, previousKeyHash: keyHash },
  ),
  'rekey gives the key from before a sign-in a grace period': rekeyingEach((change) => ({
    ...change,
    previousKeyUntil: change.previousKeyUntil ?? change.now + 1_000,
  })),
  'rekey unlinks the user if no identity is given': rekeyingEach((change) => ({
    ...change,
    identity: change.identity ?? null,
  })),
  'rekey links before it checks the key': ({ store, forge }) => ({
    rekey: async (changes) => {
      for (const { id, identity } of changes) if (identity !== undefined) forge(id, { identity });
      return store.rekey(changes);
    },
  }),
  'rekey moves the expiry back': ({ store, forge }) => ({
    rekey: async (changes) => {
      for (const { id, expiry } of changes) if (expiry !== undefined) forge(id, { expiry });
      return store.rekey(changes);
    },
  }),
  'rekey keeps the later absolute expiry': rekeyingEach((change, { absoluteExpiry }) =>
    change.absoluteExpiry && absoluteExpiry
      ? { ...change, absoluteExpiry: Math.max(absoluteExpiry, change.absoluteExpiry) }
      : change,
  ),
  'rekey sets no absolute expiry if there was none': rekeyingEach((change, { absoluteExpiry }) =>
    change.absoluteExpiry && absoluteExpiry === null ? { ...change, absoluteExpiry } : change,
  ),
  'rekey keeps the later expiry': rekeyingEach((change, { expiry }) =>
    change.expiry === undefined ? change : { ...change, expiry: Math.max(expiry, change.expiry) },
  ),
  'rekey lets two concurrent calls win': ({ store, find }) => ({
    rekey: async (changes) => {
      const first = await Promise.all(changes.map(({ id }) => find(id)));
      await turn();
      const now = await Promise.all(changes.map(({ id }) => find(id)));
      return store.rekey(
        changes.map((one, i) => (first[i]?.keyHash === one.keyHash ? { ...one, keyHash: now[i]!.keyHash } : one)),
      );
    },
  }),

  'a lock is given to every owner': ({ store }) => ({
    lock: async (lock) => {
      const result = await store.lock(lock);
      return result.outcome === 'held' ? { outcome: 'locked' } : result;
    },
  }),
  'a lock never expires': ({ store }) => ({
    lock: (lock) => store.lock({ ...lock, until: Number.MAX_SAFE_INTEGER }),
  }),
  'a lock expires too early': ({ store }) => ({ lock: (lock) => store.lock({ ...lock, until: lock.until - 1 }) }),
  'an expired lease is renewed': ({ store }) => ({ lock: (lock) => store.lock({ ...lock, renews: false }) }),
  'a lease is renewed by its last owner': ({ store }) => ({
    lock: (lock) => store.lock(lock.renews ? { ...lock, now: 0 } : lock),
  }),
  'a save accepts an expired lease': savingEach((save) => ({
    ...save,
    now: save.lockOwner === undefined ? save.now : 0,
  })),
  'a lock is released by any owner': ({ store }) => {
    const owners = new Map<string, string>();
    return {
      lock: async (lock) => {
        const result = await store.lock(lock);
        if (result.outcome === 'locked') owners.set(lock.id, lock.owner);
        return result;
      },
      unlock: (id) => store.unlock(id, owners.get(id) ?? ''),
    };
  },

  'lock accepts only the current key': ({ store, find }) => ({
    lock: async (lock) => {
      const isCurrent = (await find(lock.id))?.keyHash === lock.keyHash;
      const result = await store.lock(lock);
      return isCurrent || result.outcome === 'refused' ? result : { outcome: 'refused', reason: 'retired' };
    },
  }),
  'lock accepts a key after its grace period': ({ store }) => ({
    lock: (lock) => store.lock(lock.renews ? lock : { ...lock, now: NOW }),
  }),
  'lock accepts the key from before a sign-in': ({ store, find }) => ({
    lock: async (lock) => {
      const visit = await find(lock.id);
      return store.lock(
        visit?.previousKeyHash === lock.keyHash && visit.previousKeyUntil === null
          ? { ...lock, ...keyOf(visit) }
          : lock,
      );
    },
  }),
  ...Object.fromEntries(
    (['save', 'touch', 'rekey'] as const).map((name) => [
      `${name} gives the lock away`,
      ({ store }: Sound): Partial<MemoryVisitStore> => {
        const owners = new Map<string, string>();
        return {
          lock: (lock) => {
            if (!owners.has(lock.id)) owners.set(lock.id, lock.owner);
            return store.lock(lock);
          },
          [name]: async (writes: never[]) => {
            const results: unknown = await store[name](writes);
            for (const { id, lockOwner } of writes as { id: string; lockOwner?: string }[])
              if (lockOwner === undefined) await store.unlock(id, owners.get(id) ?? '');
            return results;
          },
        };
      },
    ]),
  ),

  "save stores the caller's bytes without a copy": ({ store, forge }) => ({
    save: async (saves) => {
      const results = await store.save(saves);
      for (const [index, { id, data }] of saves.entries())
        if (results[index]!.outcome === 'saved') forge(id, { sessionData: data });
      return results;
    },
  }),
  'a conflict returns the stored bytes without a copy': ({ store, forge }) => ({
    save: async (saves) => {
      const results = await store.save(saves);
      for (const [index, result] of results.entries())
        if (result.outcome === 'conflict' && result.data?.length === 9)
          forge(saves[index]!.id, { sessionData: result.data });
      return results;
    },
  }),
  'rekey moves accessed': ({ store, forge }) => ({
    rekey: async (changes) => {
      for (const { id, now } of changes) forge(id, { accessed: now });
      return store.rekey(changes);
    },
  }),
  'rekey resets the creation time': ({ store, forge }) => ({
    rekey: async (changes) => {
      for (const { id, now } of changes) forge(id, { created: now });
      return store.rekey(changes);
    },
  }),

  'touch moves back': ({ store, find, forge }) => ({
    touch: async (touches) => {
      for (const { id, ...instants } of touches) if ((await find(id))?.endedAt === null) forge(id, instants);
      return store.touch(touches);
    },
  }),
  'touch uses the last one of a list': ({ store }) => ({
    touch: (touches) => store.touch([...new Map(touches.map((touch) => [touch.id, touch])).values()]),
  }),
  'touch extends an ended visit': ({ store, find, forge }) => ({
    touch: async (touches) => {
      for (const { id, ...instants } of touches) if ((await find(id))?.endedAt) forge(id, instants);
      return store.touch(touches);
    },
  }),
  'touch inserts a visit': ({ store, find }) => ({
    touch: async (touches) => {
      for (const { id, accessed, expiry } of touches) {
        if (await find(id)) continue;
        await store.create([created({ id, keyHash: '', created: accessed, expiry })]);
      }
      return store.touch(touches);
    },
  }),

  'end is reported twice': ({ store, find }) => ({
    end: async (ids, ending) => {
      await store.end(ids, ending);
      return (await Promise.all(ids.map(find))).flatMap((visit) => visit?.id ?? []);
    },
  }),
  'end checks and ends in two steps': ({ store, find }) => ({
    end: async (ids, ending) => {
      const live = (await Promise.all(ids.map(find))).flatMap((visit) => (visit?.endedAt === null ? visit.id : []));
      await turn();
      await store.end(live, ending);
      return live;
    },
  }),
  'end overwrites instant and reason': ({ store, find, forge }) => ({
    end: async (ids, ending) => {
      for (const id of ids) if (await find(id)) forge(id, { endedAt: ending.at, endReason: ending.reason });
      return store.end(ids, ending);
    },
  }),
  'end keeps the data': ({ store, find, forge }) => ({
    end: async (ids, ending) => {
      for (const visit of await Promise.all(ids.map(find)))
        if (visit) forge(visit.id, { sessionData: visit.sessionData });
      return store.end(ids, ending);
    },
  }),
  'end deletes the identity': ({ store, forge }) => ({
    end: async (ids, ending) => {
      for (const id of ids) forge(id, { identity: null });
      return store.end(ids, ending);
    },
  }),
  'end does not end expired visits': ({ store, find }) => ({
    end: async (ids, ending) => {
      const visits = await Promise.all(ids.map(find));
      return store.end(
        ids.filter((_, i) => (visits[i]?.expiry ?? 0) > ending.at),
        ending,
      );
    },
  }),
  'end does not retire the key': ({ store }) => ({
    end: (ids, ending) => store.end(ids, { ...ending, retiresKey: false }),
  }),

  'listForUser returns visits of other users': ({ store }) => ({
    listForUser: async (list) => {
      const names = new Set([list.userId, list.userId.toLowerCase(), list.userId.toUpperCase()]);
      const pages = await Promise.all([...names].map((userId) => store.listForUser({ ...list, userId })));
      return { visits: pages.flatMap(({ visits }) => visits), next: null };
    },
  }),
  'listForUser returns expired visits': ({ store }) => ({
    listForUser: (list) => store.listForUser({ ...list, now: 0 }),
  }),
  'listForUser returns the least recently used first': ({ store }) => ({
    listForUser: async (list) => ({ visits: (await listAll(store, list.userId, list.now)).toReversed(), next: null }),
  }),
  'listForUser ignores the limit': ({ store }) => ({
    listForUser: (list) => store.listForUser({ ...list, limit: 1000 }),
  }),
  'listForUser repeats the last visit of a page': ({ store }) => ({
    listForUser: ({ after, ...list }) => store.listForUser({ ...list, after: after && { ...after, id: '' } }),
  }),
  'listForUser skips visits with the same instant': ({ store }) => ({
    listForUser: ({ after, ...list }) => store.listForUser({ ...list, after: after && { ...after, id: 'g' } }),
  }),
  'listForUser stops too early': ({ store }) => ({
    listForUser: async (list) => ({ ...(await store.listForUser(list)), next: null }),
  }),
  'listForUser loads session data': ({ store, find }) => ({
    listForUser: async (list) => withData(await store.listForUser(list), find),
  }),
  'listForUser returns session data as null': ({ store }) => ({
    listForUser: async (list) => withData(await store.listForUser(list), async () => ({ sessionData: null })),
  }),
  'liveVisits loads session data': ({ store, find }) => ({
    liveVisits: async (page) => withData(await store.liveVisits(page), find),
  }),
  'listForUser misses visits that were linked later': ({ store }) => {
    const ids = new Set<string>();
    return {
      create: async (visits) => {
        await store.create(visits);
        for (const { id, identity } of visits) if (identity) ids.add(id);
      },
      listForUser: async (list) => {
        const { visits, next } = await store.listForUser(list);
        return { visits: visits.filter(({ id }) => ids.has(id)), next };
      },
    };
  },
  ...Object.fromEntries(
    [
      ['unlinked', null],
      ['linked to another', undefined],
    ].map(([what, only]) => [
      `listForUser shows a visit that was ${what}`,
      ({ store, find }: Sound): Partial<MemoryVisitStore> => {
        const lost = new Map<string, string>();
        return {
          rekey: async (changes) => {
            for (const { id, identity } of changes) {
              const before = (await find(id))?.identity;
              if (before && identity !== undefined && (identity === null) === (only === null))
                lost.set(id, before.userId);
            }
            return store.rekey(changes);
          },
          listForUser: async (list) => {
            const { visits, next } = await store.listForUser(list);
            const others = [...lost].filter(
              ([id, whose]) => whose === list.userId && !visits.some((visit) => visit.id === id),
            );
            const more = (await Promise.all(others.map(([id]) => find(id)))).filter((visit) => visit !== null);
            return { visits: [...visits, ...more.map(listedCopyOf)], next };
          },
        };
      },
    ]),
  ),
  'endAllForUser ends visits that were linked to the user before': ({ store, find }) => {
    const before = new Map<string, string>();
    return {
      rekey: async (changes) => {
        for (const { id } of changes) before.set(id, (await find(id))?.identity?.userId ?? '');
        return store.rekey(changes);
      },
      endAllForUser: async (batch) => {
        const { ended, next } = await store.endAllForUser(batch);
        const more = [...before].filter(([, whose]) => whose === batch.userId).map(([id]) => id);
        return { ended: [...ended, ...(await store.end(more, batch.ending))], next };
      },
    };
  },
  'endAllForUser retires no key': ({ store }) => ({
    endAllForUser: (batch) => store.endAllForUser({ ...batch, ending: { ...batch.ending, retiresKey: false } }),
  }),
  'endAllForUser retires every key': ({ store }) => ({
    endAllForUser: (batch) => store.endAllForUser({ ...batch, ending: { ...batch.ending, retiresKey: true } }),
  }),
  'endAll retires no key': ({ store }) => ({
    endAll: (batch) => store.endAll({ ...batch, ending: { ...batch.ending, retiresKey: false } }),
  }),
  'endAllForUser ignores the limit': ({ store }) => ({
    endAllForUser: (batch) => store.endAllForUser({ ...batch, limit: Infinity }),
  }),
  'endAll ignores the limit': ({ store }) => ({ endAll: (batch) => store.endAll({ ...batch, limit: Infinity }) }),
  'endAllForUser stops too early': ({ store }) => ({
    endAllForUser: async (batch) => ({ ...(await store.endAllForUser(batch)), next: null }),
  }),
  'endAll stops too early': ({ store }) => ({
    endAll: async (batch) => ({ ...(await store.endAll(batch)), next: null }),
  }),
  'userAgentsOf returns only those of live visits': ({ store }) => ({
    userAgentsOf: async (userId, before) => {
      const earlier = (await listAll(store, userId, 0)).filter(({ identity }) => identity!.created < before);
      return [...new Set(earlier.map(({ userAgent }) => userAgent))];
    },
  }),
  'liveVisits skips some visits': ({ store }) => ({
    liveVisits: async (page) => {
      const { visits, next } = await store.liveVisits(page);
      return { visits: visits.slice(1), next };
    },
  }),
  'liveVisits returns expired visits': ({ store }) => ({ liveVisits: (page) => store.liveVisits({ ...page, now: 0 }) }),
  'liveVisits ignores the limit': ({ store }) => ({ liveVisits: (page) => store.liveVisits({ ...page, limit: 1000 }) }),
  'a visit that moves in loses its version': ({ store }) => ({
    create: (visits) => store.create(visits.map((visit) => ({ ...visit, sessionVersion: 0 }))),
  }),
  'a visit that moves in loses its previous key': ({ store }) => ({
    create: (visits) => store.create(visits.map((visit) => ({ ...visit, previousKeyHash: null }))),
  }),
  'userAgentsOf returns duplicates': ({ store }) => ({
    userAgentsOf: async (userId, before) =>
      (await listAll(store, userId, 0))
        .filter(({ identity }) => identity!.created < before)
        .map(({ userAgent }) => userAgent),
  }),
  'endAllForUser ends the excepted visit': ({ store }) => ({
    endAllForUser: (batch) => store.endAllForUser({ ...batch, except: undefined }),
  }),
  'endAllForUser does not end expired visits': ({ store }) => ({
    endAllForUser: async ({ userId, except, ending }) => {
      const visits = await listAll(store, userId, ending.at);
      const ended = await store.end(
        visits.flatMap(({ id }) => (id === except ? [] : id)),
        ending,
      );
      return { ended, next: null };
    },
  }),
  'endAllForUser stores no revocation': () => ({ revokedAt: async () => null }),
  'endAllForUser stores the revocation too late': ({ store }) => {
    const remembered = new Map<string, number>();
    return {
      endAllForUser: async ({ userId, except, ending }) => {
        const visits = await listAll(store, userId, 0);
        await turn();
        remembered.set(userId, ending.at);
        const ended = await store.end(
          visits.flatMap(({ id }) => (id === except ? [] : id)),
          ending,
        );
        return { ended, next: null };
      },
      revokedAt: async (userId) => remembered.get(userId) ?? null,
    };
  },
  'endAll returns visits that had already ended': ({ store }) => {
    const all: string[] = [];
    return {
      create: (visits) => {
        all.push(...visits.map(({ id }) => id));
        return store.create(visits);
      },
      endAll: async (batch) => {
        await endAll(store, batch.ending);
        return { ended: all, next: null };
      },
    };
  },

  'expunge deletes live visits': ({ store }) => ({
    expunge: (batch) => store.expunge({ ...batch, before: batch.before + DAY }),
  }),
  'expunge deletes visits that have just ended': ({ store }) => ({
    expunge: (batch) => store.expunge({ ...batch, before: batch.before + 1 }),
  }),
  'expunge ignores the limit': ({ store }) => ({ expunge: (batch) => store.expunge({ ...batch, limit: Infinity }) }),
  'expunge counts no identities': ({ store }) => ({
    expunge: async (batch) => ({ ...(await store.expunge(batch)), identities: 0 }),
  }),
  'a dry run of expunge counts live visits': ({ store }) => ({
    expunge: (batch) => store.expunge({ ...batch, before: batch.dryRun ? batch.before + DAY : batch.before }),
  }),
  'a dry run of expunge deletes': ({ store }) => ({ expunge: (batch) => store.expunge({ ...batch, dryRun: false }) }),
  'a dry run of wipe deletes data': ({ store }) => ({ wipe: (batch) => store.wipe({ ...batch, dryRun: false }) }),
  'expunge stops too early': ({ store }) => ({
    expunge: async (batch) => ({ ...(await store.expunge(batch)), next: null }),
  }),
  'clean-up continues at the position of another one': ({ store }) => {
    let last: { before: number } | undefined;
    return {
      expunge: (batch) => {
        if (!batch.dryRun) last ??= batch;
        return store.expunge({ ...batch, before: last?.before ?? batch.before });
      },
    };
  },
  'wipe deletes the data of live visits': ({ store }) => ({
    wipe: (batch) => store.wipe({ ...batch, before: batch.before + DAY }),
  }),
  'wipe ignores the limit': ({ store }) => ({ wipe: (batch) => store.wipe({ ...batch, limit: Infinity }) }),
  'wipe deletes the row': ({ store }) => ({ wipe: (batch) => store.expunge(batch) }),

  'it claims to be shared, without a second object': () => ({
    capabilities: { atomic: true, revocable: true, shared: true, durable: false },
  }),
  'it claims not to be revocable, but is': () => ({
    capabilities: { atomic: true, revocable: false, shared: false, durable: false },
  }),
  'it claims not to be atomic, but has locks': () => ({
    capabilities: { atomic: false, revocable: true, shared: false, durable: false },
  }),
};

const capabilities: VisitStoreCapabilities = { atomic: true, revocable: true, shared: false, durable: false };
const cannot = (call: string, capability: string) => async (): Promise<never> => {
  throw new VisitStoreUnsupportedError(call, capability);
};
/** What a store does that is without something. */
const modest: Record<string, (sound: Sound) => Partial<MemoryVisitStore>> = {
  atomic: () => ({ capabilities: { ...capabilities, atomic: false }, locks: undefined }),
  revocable: ({ store }) => ({
    capabilities: { ...capabilities, revocable: false },
    users: undefined,
    end: (ids, ending) => (ending.retiresKey ? store.end(ids, ending) : cannot('end', 'revocable')()),
  }),
};

/** What a store may be without, and says so by that. */
const facets = ['users', 'pages', 'locks', 'cleanup'] as const;

/**
 * How long each test has taken, by its title. A mistake is found by the first test that fails, and a few tests take
 * longer than all others: those come last.
 */
const costs = new Map<string, number>();

/** The test of what a store says of itself. */
const DECLARES = 'declares its capabilities';

/** The titles of the tests that fail for this kind of store: all of them, or only those with one title. */
async function failuresOf(...store: Parameters<typeof failing>): Promise<string[]> {
  const titles: string[] = [];
  for await (const title of failing(...store)) titles.push(title);
  return titles;
}

async function* failing(
  open: () => VisitStore,
  expected?: Partial<VisitStoreCapabilities> & { facets?: VisitStoreSuiteOptions['facets'] },
  { reopen, only }: { reopen?: () => VisitStore; only?: string } = {},
): AsyncGenerator<string> {
  const { facets: wanted, ...said } = expected ?? {};
  const tests: { title: string; run: () => Promise<void> }[] = [];
  const runner = {
    describe: (_: string, define: () => void) => define(),
    test: (title: string, run: () => Promise<void>) => tests.push({ title, run }),
  };
  describeVisitStore('under test', () => ({ store: open(), ...(reopen ? { reopen } : {}) }), {
    runner,
    capabilities: said,
    facets: wanted,
  });
  expect(tests.length).toBeGreaterThan(60);
  if (only !== undefined) expect(tests.map(({ title }) => title)).toContain(only);
  const costOf = ({ title }: { title: string }): number => costs.get(title) ?? 0;
  for (const { title, run } of tests.toSorted((one, other) => costOf(one) - costOf(other))) {
    if (only !== undefined && title !== only) continue;
    const begun = performance.now();
    const failed = await run().then(
      () => false,
      () => true,
    );
    if (failed) yield title;
    else costs.set(title, performance.now() - begun);
  }
}

describe('The suite of nest-visit/testing', () => {
  test('R66: finds no fault in a store that fulfills the contract', async () => {
    expect(await failuresOf(() => withMistake(() => ({})))).toEqual([]);
  });

  test.each(Object.entries(modest))(
    'R66: a store that is not %s, and lacks the features that require it, fulfills the contract',
    async (name, refuse) => {
      expect(await failuresOf(() => withMistake(refuse))).toEqual([]);
      // A store may be atomic and have no locks; but one that is revocable ends visits.
      const failures = await failuresOf(() => withMistake((sound) => ({ ...refuse(sound), capabilities })));
      expect(failures.length > 0).toBe(name === 'revocable');
      expect(await failuresOf(() => withMistake(refuse), { [name]: true }, { only: DECLARES })).toEqual([DECLARES]);
    },
  );

  test.each(facets)('R66: a store without %s fulfills the contract, unless they are required', async (facet) => {
    const open = () => withMistake(() => ({ [facet]: undefined }));
    expect(await failuresOf(open, { facets: facets.filter((one) => one !== facet) })).toEqual([]);
    // No other test knows what was required.
    const declares = { only: DECLARES };
    expect(await failuresOf(open, {}, declares)).toEqual([]);
    expect(await failuresOf(open, { facets }, declares)).toEqual([DECLARES]);
  });

  test('throws without a test runner', () => {
    const open = () => ({ store: new MemoryVisitStore() });
    expect(() => describeVisitStore('x', open)).toThrow('[visit] option "runner" must be { describe, test }');
  });

  test('R66: a store that claims to be durable is reopened, and closed', async () => {
    const durable = { ...capabilities, durable: true };
    const store = withMistake(() => ({ capabilities: durable }));
    const title = 'visits survive a restart';
    expect(await failuresOf(() => store, durable, { only: title })).toEqual([title]);
    let closed = 0;
    const again = new Proxy(store, {
      get: (_, name: keyof MemoryVisitStore) => (name === 'close' ? async () => void closed++ : store[name]),
    });
    expect(await failuresOf(() => store, durable, { reopen: () => again, only: title })).toEqual([]);
    expect(closed).toBe(1);
  });

  test.each(Object.entries(mistakes))('R66: detects that %s', async (_, mistake) => {
    const { value } = await failing(() => withMistake(mistake)).next();
    expect(value).toBeTypeOf('string');
  });
});
