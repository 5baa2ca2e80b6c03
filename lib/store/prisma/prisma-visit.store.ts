import { VisitOptionError, VisitSchemaError } from '../../errors/visit.error.js';
import { askEach, isFailed, type Outcome } from '../ask-each.js';
import { retryOnConflict } from '../retry-on-conflict.js';
import { bytesFor, mostBytes, tooLong } from '../statement-size.js';
import {
  chunks,
  EVERYBODY,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  NO_ID,
  TableVisitStore,
  unexplainedRefusal,
  userHashOf,
  type Reference,
  type StalePlace,
  type VisitToEnd,
} from '../table-visit.store.js';
import type {
  ListPosition,
  Lock,
  StaleCounts,
  UserList,
  UserVisits,
  VisitLocks,
  VisitPage,
  VisitPages,
  VisitServer,
} from '../visit.facets.js';
import { inParallel, saveEach } from '../save-each.js';
import type {
  Ending,
  Rekey,
  RekeyResult,
  SaveResult,
  SessionSave,
  Touch,
  VisitRecord,
  WriteGuard,
} from '../visit.store.js';
import { refusalOf, rekeyGuard } from '../visit.record.js';
import { isMissing, isTransient, referenceIn } from './prisma.errors.js';
import { IN_TRANSACTION, PrismaServer, READ_COMMITTED } from './prisma.server.js';
import type { Client, Models, PrismaVisitClient, VisitRow, Where } from './prisma.client.js';
import {
  bigintOrNull,
  IDENTITY_FIELDS,
  identityData,
  LISTED_FIELDS,
  listedOf,
  recordOf,
  REVOCATION_FIELDS,
  VISIT_FIELDS,
  visitData,
} from './visit.rows.js';

/** The number of concurrent saves and touches. The application needs connections of the pool for itself. */
const MAX_AT_ONCE = 4;
const VISIT_WITH_IDENTITY = { ...VISIT_FIELDS, identity: { select: IDENTITY_FIELDS } };

const ONE_STATE = { ...IN_TRANSACTION, isolationLevel: 'RepeatableRead' };

/**
 * Stores visits in the application's database, through its `PrismaClient`: PostgreSQL, MySQL, MariaDB. The schema needs
 * the models `Visit`, `VisitIdentity` and `VisitRevocation`. Their tables are the same as those of `TypeOrmVisitStore`,
 * and both stores can use them at the same time.
 *
 * It uses only Prisma's own calls, and SQL only to read the time, settings and indexes. So reads and writes respect
 * `@map`, `@@map` and `@@schema`.
 */
export class PrismaVisitStore extends TableVisitStore implements UserVisits, VisitPages, VisitLocks, VisitServer {
  /** The default pool size of all drivers. */
  readonly connections = 10;
  override readonly server = this;
  protected readonly staleIdsAtOnce = 20_000;
  readonly #client: Client;
  readonly #server: PrismaServer;
  /** In bytes. */
  #longestStatement = Infinity;

  /** The client is not disconnected with the store. */
  constructor(client: PrismaVisitClient) {
    super();
    const missing = (['visit', 'visitIdentity', 'visitRevocation'] as const).filter(
      (model) => !client?.[model]?.updateMany,
    );
    if (missing.length > 0) {
      throw new VisitOptionError(
        `the Prisma client has no model for ${missing.map((model) => `\`${model}\``).join(', ')}: ` +
          'add the models of nest-visit to ' +
          'schema.prisma, and run `prisma generate`',
      );
    }
    this.#client = client as unknown as Client;
    this.#server = new PrismaServer(this.#client);
  }

  async check(): Promise<void> {
    const { visit, visitIdentity, visitRevocation } = this.#client;
    await this.#probe('Visit', () => visit.findMany({ where: { id: '' }, select: VISIT_WITH_IDENTITY }));
    await this.#probe('VisitIdentity', () =>
      visitIdentity.findMany({ where: { visitId: '' }, select: IDENTITY_FIELDS }),
    );
    await this.#probe('VisitRevocation', () =>
      visitRevocation.findMany({ where: { userHash: '' }, select: REVOCATION_FIELDS }),
    );
    const settings = await this.#server.check();
    this.#longestStatement = Number(settings.get('max_allowed_packet') ?? Infinity);
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const found = await this.#read(ids);
    return ids.map((id) => recordOrNull(found.get(id)));
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const { visit, visitIdentity } = this.#client;
    const linked = visits.flatMap(({ id, identity }) => (identity ? { visitId: id, ...identityData(identity) } : []));
    for (const { sessionData } of visits) {
      const error = tooLong(sessionData, this.#longestStatement);
      if (error) throw error;
    }
    const groups = chunks(visits, ({ sessionData }) => bytesFor(sessionData), mostBytes(this.#longestStatement));
    await this.#do(async () => {
      const calls = [
        ...groups.map((group) => visit.createMany({ data: group.map(visitData) })),
        ...chunks(linked).map((data) => visitIdentity.createMany({ data })),
      ];
      // One statement is a transaction by itself.
      await (calls.length > 1 ? this.#client.$transaction(calls, READ_COMMITTED) : calls[0]);
    });
  }

  save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return saveEach(saves, {
      saveOne: (save) => this.#saveOne(save),
      look: async (ids) =>
        (await this.#readEach(ids)).map((row) =>
          isFailed(row) ? row : { visit: recordOrNull(row), ...(row && { lease: row }) },
        ),
      atOnce: MAX_AT_ONCE,
    });
  }

  async unlock(id: string, owner: string): Promise<void> {
    await this.#update({ ...isLive(id), lockOwner: owner }, { lockOwner: null, lockedUntil: null });
  }

  async listForUser({ userId, now, limit, after }: UserList): Promise<VisitPage<ListPosition>> {
    const at = after && BigInt(after.accessed);
    const isBehind = after && { OR: [{ accessed: { lt: at } }, { accessed: at, id: { gt: after.id } }] };
    const most = Math.min(limit, MAX_ROWS);
    const rows = await this.#visits({
      where: { endedAt: null, expiry: { gt: BigInt(now) }, identity: { is: { userId } }, ...isBehind },
      orderBy: [{ accessed: 'desc' }, { id: 'asc' }],
      take: most + 1,
      select: LISTED_FIELDS,
    });
    const page = rows.slice(0, most);
    const last = rows.length > most ? page.at(-1) : undefined;
    return {
      visits: page.filter(isOf(userId)).flatMap((row) => listedOf(row) ?? []),
      next: last ? { accessed: Number(last.accessed), id: last.id } : null,
    };
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const where = { ...isAfter(after), endedAt: null, expiry: { gt: BigInt(now) } };
    const rows = await this.#visits({
      where,
      orderBy: { id: 'asc' },
      take: Math.min(limit, MAX_ROWS),
      select: LISTED_FIELDS,
    });
    return { visits: rows.flatMap((row) => listedOf(row) ?? []), next: rows.at(-1)?.id ?? null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const where = { identity: { is: { userId, created: { lt: BigInt(before) } } } };
    const rows = await this.#visits({ where, select: { userAgent: true } });
    return [...new Set(rows.filter(isOf(userId)).map(({ userAgent }) => userAgent))];
  }

  async revokedAt(userId: string): Promise<number | null> {
    const where = { userHash: { in: [userHashOf(userId), userHashOf(EVERYBODY)] } };
    const rows = await this.#do(() => this.#client.visitRevocation.findMany({ where, select: REVOCATION_FIELDS }));
    return rows.length > 0 ? Math.max(...rows.map(({ endedAt }) => Number(endedAt))) : null;
  }

  protected async countStale(before: number): Promise<StaleCounts> {
    const { visit, visitIdentity } = this.#client;
    const where = isStale(before);
    return {
      visits: await this.#do(() => visit.count({ where })),
      identities: await this.#do(() => visitIdentity.count({ where: { visit: { is: where } } })),
    };
  }

  protected async countUnwiped(before: number): Promise<number> {
    return this.#do(() =>
      this.#client.visit.count({ where: { expiry: { lt: BigInt(before) }, sessionData: { not: null } } }),
    );
  }

  async close(): Promise<void> {}

  #do<T>(work: () => Promise<T>): Promise<T> {
    return retryOnConflict(work, isTransient);
  }

  /** Runs one conditional `updateMany`. Returns how many rows it has written. */
  async #update(where: Where, data: Where): Promise<number> {
    return (await this.#do(() => this.#client.visit.updateMany({ where, data }))).count;
  }

  /**
   * Reads visits with their identities, from the same moment: Prisma reads the two tables one after the other, and in
   * between the key and the user may change. A transaction with one snapshot keeps them consistent.
   */
  async #visits(query: { where: Where; select?: Where; orderBy?: unknown; take?: number }): Promise<VisitRow[]> {
    const select = { ...(query.select ?? VISIT_FIELDS), identity: { select: IDENTITY_FIELDS } };
    // As a function, because a list of one call is no transaction.
    return this.#do(() => this.#client.$transaction(({ visit }) => visit.findMany({ ...query, select }), ONE_STATE));
  }

  async #read(given: readonly string[]): Promise<Map<string, VisitRow>> {
    const found = new Map<string, VisitRow>();
    for (const ids of chunks(given))
      for (const row of await this.#visits({ where: { id: { in: ids } } })) found.set(row.id, row);
    return found;
  }

  /** Reads visits; one that cannot be read fails alone. */
  #readEach(ids: readonly string[]): Promise<readonly Outcome<VisitRow | undefined>[]> {
    const ask = async (some: readonly string[]): Promise<(VisitRow | undefined)[]> => {
      const found = await this.#read(some);
      return some.map((id) => found.get(id));
    };
    return askEach(ids, { ask, probe: () => this.#read([NO_ID]) });
  }

  async #readOne(id: string): Promise<VisitRecord | null> {
    return recordOrNull((await this.#read([id])).get(id));
  }

  async #idsOf(where: Where, take: number): Promise<string[]> {
    const query = { where, select: { id: true }, orderBy: { id: 'asc' }, take };
    return (await this.#do(() => this.#client.visit.findMany(query))).map(({ id }) => id);
  }

  protected async touchEach(touches: readonly Required<Touch>[]): Promise<void> {
    // Each by itself: whoever holds one row while it waits for another may run into a deadlock.
    await inParallel(touches, MAX_AT_ONCE, (touch) => this.#touchOne(touch));
  }

  protected async takeLock(lock: Lock): Promise<boolean> {
    const isFree = { OR: [{ lockOwner: null }, { lockOwner: lock.owner }, { lockedUntil: { lte: BigInt(lock.now) } }] };
    const where = { ...isLive(lock.id), AND: [isGuarded(lock), lock.renews ? isHeld(lock.owner, lock.now) : isFree] };
    return (await this.#update(where, { lockOwner: lock.owner, lockedUntil: BigInt(lock.until) })) > 0;
  }

  protected async endThese(
    visits: readonly VisitToEnd[],
    ending: Ending,
    mark: string,
  ): Promise<readonly string[] | undefined> {
    const ids = visits.map(({ id }) => id);
    const keyHashes = visits.flatMap(({ keyHash }) => keyHash ?? []);
    const id = ids.length === 1 ? ids[0]! : { in: ids };
    const where = { id, endedAt: null, ...(keyHashes.length > 0 && { keyHash: { in: keyHashes } }) };
    const count = await this.#update(where, { ...endingData(ending), lockOwner: mark });
    if (count === 0) return [];
    return count === ids.length ? ids : undefined;
  }

  protected async markedIds(ids: readonly string[], mark: string): Promise<string[]> {
    const query = { where: { id: { in: ids }, lockOwner: mark }, select: { id: true } };
    return (await this.#do(() => this.#client.visit.findMany(query))).map(({ id }) => id);
  }

  protected async keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]> {
    const where = { endedAt: null, ...(except !== '' && { id: { not: except } }), identity: { is: { userId } } };
    const rows = await this.#visits({ where, select: { id: true, keyHash: true }, orderBy: { id: 'asc' }, take: most });
    return rows.filter(isOf(userId));
  }

  protected liveIds(after: string, most: number): Promise<string[]> {
    return this.#idsOf({ endedAt: null, ...isAfter(after) }, most);
  }

  protected async staleBehind(
    place: StalePlace,
    before: number,
    most: number,
  ): Promise<{ id: string; instant: number }[]> {
    const { column, id } = place;
    const [instant, end] = [BigInt(place.instant), BigInt(before)];
    const where = {
      [column]: { gte: instant, lt: end },
      ...(column === 'endedAt' && { expiry: { gte: end } }),
      OR: [{ [column]: { gt: instant } }, { id: { gt: id } }],
    };
    const query = {
      where,
      select: { id: true, [column]: true },
      orderBy: [{ [column]: 'asc' }, { id: 'asc' }],
      take: most,
    };
    const rows = await this.#do(() => this.#client.visit.findMany(query));
    return rows.map((row) => ({ id: row.id, instant: Number(row[column]) }));
  }

  protected expungeThese(ids: readonly string[], before: number): Promise<StaleCounts> {
    return this.#do(() => this.#client.$transaction((models) => expungeThem(models, ids, before), IN_TRANSACTION));
  }

  protected referenceIn(error: unknown): Reference | undefined {
    return referenceIn(error);
  }

  protected async expungeRevocations(before: number): Promise<void> {
    await this.#do(() => this.#client.visitRevocation.deleteMany({ where: { endedAt: { lt: BigInt(before) } } }));
  }

  serverTime(): Promise<number | undefined> {
    return this.#server.time();
  }

  /** See `VisitServer.missingIndexes`. */
  missingIndexes(): Promise<string[]> {
    return this.#server.missingIndexes();
  }

  protected async unwiped({
    from,
    before,
    most,
  }: {
    from: number;
    before: number;
    most: number;
  }): Promise<{ id: string; expiry: number }[]> {
    const where = { expiry: { gte: BigInt(from), lt: BigInt(before) }, sessionData: { not: null } };
    const query = { where, select: { id: true, expiry: true }, orderBy: { expiry: 'asc' }, take: most };
    const rows = await this.#do(() => this.#client.visit.findMany(query));
    return rows.map(({ id, expiry }) => ({ id, expiry: Number(expiry) }));
  }

  protected wipeThese(ids: readonly string[], before: number): Promise<number> {
    return this.#update(
      { id: { in: ids }, expiry: { lt: BigInt(before) }, sessionData: { not: null } },
      { sessionData: null, sessionVersion: { increment: 1 } },
    );
  }

  async #touchOne({ id, accessed, expiry, keyChanged }: Required<Touch>): Promise<void> {
    const { visit } = this.#client;
    const data = { accessed: BigInt(accessed), expiry: BigInt(expiry) };
    const isLater = { accessed: { lte: data.accessed }, expiry: { lte: data.expiry } };
    const isOfThisKey = { ...isLive(id), keyChanged: { lte: BigInt(keyChanged) } };
    if ((await this.#update({ ...isOfThisKey, ...isLater }, data)) > 0) return;
    // Perhaps one of the instants is later than what is stored, and the other is not.
    await this.#do(() => forward(visit, isOfThisKey, 'accessed', accessed));
    await this.#do(() => forward(visit, isOfThisKey, 'expiry', expiry));
  }

  async #saveOne(save: SessionSave): Promise<boolean> {
    const { id, version, data, lockOwner } = save;
    const tooMuch = tooLong(data, this.#longestStatement);
    if (tooMuch) throw tooMuch;
    const isLocked = lockOwner === undefined ? {} : isHeld(lockOwner, save.now);
    const where = { ...isLive(id), sessionVersion: version, ...isGuarded(save), ...isLocked };
    return (await this.#update(where, { sessionData: data, sessionVersion: { increment: 1 } })) > 0;
  }

  protected async rekeyOne(change: Rekey): Promise<RekeyResult> {
    let replaced = change.keyHash;
    for (let unexplained = 0; unexplained <= MAX_UNEXPLAINED; unexplained++) {
      if (await this.#replaceKey(change, replaced)) return { outcome: 'done' };
      const stored = await this.#readOne(change.id);
      const reason = refusalOf(stored, rekeyGuard(change));
      if (!stored || reason) return { outcome: 'refused', reason: reason ?? 'unknown' };
      replaced = stored.keyHash;
    }
    throw unexplainedRefusal('rekey');
  }

  /**
   * Replaces a key. `replaced` must be the current key: the one of the change, or the one whose predecessor in its
   * grace period is that of the change.
   */
  async #replaceKey(change: Rekey, replaced: string): Promise<boolean> {
    const { id, keyHash, now, newKeyHash, previousKeyUntil, identity, permanent, expiry, absoluteExpiry } = change;
    const isInGrace = { previousKeyHash: keyHash, previousKeyUntil: { gt: BigInt(now) } };
    const where = { ...isLive(id), keyHash: replaced, ...(replaced === keyHash ? {} : isInGrace) };
    const data = {
      keyHash: newKeyHash,
      previousKeyHash: change.previousKeyHash ?? replaced,
      previousKeyUntil: bigintOrNull(previousKeyUntil),
      keyChanged: BigInt(now),
      ...(permanent !== undefined && { permanent }),
      ...(absoluteExpiry !== undefined && { absoluteExpiry: bigintOrNull(absoluteExpiry) }),
      ...(expiry !== undefined && previousKeyUntil === null && { expiry: BigInt(expiry) }),
    };
    const moved = previousKeyUntil === null ? undefined : expiry;
    if (identity === undefined && moved === undefined) return (await this.#update(where, data)) > 0;
    return this.#do(() =>
      this.#client.$transaction(async ({ visit, visitIdentity }) => {
        // From here on the row is locked: what follows is of the same moment.
        if ((await visit.updateMany({ where, data })).count === 0) return false;
        if (moved !== undefined) await forward(visit, isLive(id), 'expiry', moved);
        if (identity === null) await visitIdentity.deleteMany({ where: { visitId: id } });
        else if (identity) {
          const update = identityData(identity);
          await visitIdentity.upsert({
            where: { visitId: id },
            create: { visitId: id, ...update },
            update,
            select: { visitId: true },
          });
        }
        return true;
      }, IN_TRANSACTION),
    );
  }

  protected async remember(userId: string, at: number): Promise<void> {
    const { visitRevocation } = this.#client;
    const [userHash, endedAt] = [userHashOf(userId), BigInt(at)];
    for (let unexplained = 0; unexplained <= MAX_UNEXPLAINED; unexplained++) {
      const made = await this.#do(() =>
        visitRevocation.createMany({ data: [{ userHash, endedAt }], skipDuplicates: true }),
      );
      if (made.count > 0) return;
      await this.#do(() =>
        visitRevocation.updateMany({ where: { userHash, endedAt: { lt: endedAt } }, data: { endedAt } }),
      );
      // It may have been expunged in between.
      if ((await this.#do(() => visitRevocation.count({ where: { userHash, endedAt: { gte: endedAt } } }))) > 0) return;
    }
    throw unexplainedRefusal('endAllForUser');
  }

  async #probe(model: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isMissing(error)) throw error;
      throw new VisitSchemaError(
        `the model "${model}" or its table is missing or lacks a column ` +
          `(${(error as Error).message.trim().split('\n').at(-1)}): compare it ` +
          'with the models of nest-visit, then run `prisma migrate dev` (in production `prisma migrate deploy`) ' +
          'and `prisma generate`',
        { cause: error },
      );
    }
  }
}

/** The condition of every write of one visit: its id, and that it has not ended. */
function isLive(id: string) {
  return { id, endedAt: null };
}

/**
 * The condition that an id is greater than this one. An empty text cannot be compared: with EMPTY_STRING_IS_NULL of
 * MariaDB, no id would be greater.
 */
function isAfter(id: string) {
  return id === '' ? {} : { id: { gt: id } };
}

/** The condition that this owner holds the lock, with a lease that has not expired. */
function isHeld(owner: string, now: number) {
  return { lockOwner: owner, lockedUntil: { gt: BigInt(now) } };
}

/** The condition that the key of a write is valid. */
function isGuarded({ keyHash, now }: WriteGuard) {
  return { OR: [{ keyHash }, { previousKeyHash: keyHash, previousKeyUntil: { gt: BigInt(now) } }] };
}

function isStale(before: number) {
  return { OR: [{ expiry: { lt: BigInt(before) } }, { endedAt: { lt: BigInt(before) } }] };
}

function endingData({ reason, at, retiresKey = false }: Ending) {
  return {
    ...(retiresKey && { previousKeyUntil: BigInt(at), keyChanged: BigInt(at) }),
    endedAt: BigInt(at),
    endReason: reason,
    sessionData: null,
    sessionVersion: { increment: 1 },
  };
}

/** A condition that moves an instant only forward, and not from NULL. */
function forward(visit: Models['visit'], where: Where, column: 'accessed' | 'expiry', instant: number) {
  const value = BigInt(instant);
  return visit.updateMany({ where: { ...where, [column]: { lt: value } }, data: { [column]: value } });
}

/** Deletes those of the visits that are still stale, with their identities. */
async function expungeThem(
  { visit, visitIdentity }: Models,
  ids: readonly string[],
  before: number,
): Promise<StaleCounts> {
  const where = { id: { in: ids }, ...isStale(before) };
  // Changes nothing, but locks: a touch that is on its way comes before, and then its visit lives, or finds none.
  await visit.updateMany({ where, data: { sessionVersion: { increment: 0 } } });
  const locked = (await visit.findMany({ where, select: { id: true } })).map(({ id }) => id);
  const identities = await visitIdentity.deleteMany({ where: { visitId: { in: locked } } });
  const visits = await visit.deleteMany({ where: { id: { in: locked }, ...isStale(before) } });
  return { visits: visits.count, identities: identities.count };
}

/** Compares user ids byte by byte, because the collation of the database may treat different ids as equal. */
function isOf(userId: string): (row: VisitRow) => boolean {
  return ({ identity }) => identity?.userId === userId;
}

function recordOrNull(row: VisitRow | undefined): VisitRecord | null {
  return row ? recordOf(row) : null;
}
