import { VisitOptionError, VisitSchemaError } from '../../errors/visit.error.js';
import { Failed, isFailed, type Outcome } from '../ask-each.js';
import {
  byId,
  chunks,
  MAX_BYTES,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  TableVisitStore,
  unexplainedRefusal,
  type Reference,
  type StalePlace,
  type VisitToEnd,
} from '../table-visit.store.js';
import { refusalOf, rekeyGuard, verdictOn } from '../visit.record.js';
import type { ListPosition, Lock, StaleCounts, UserList, VisitPage, VisitServer } from '../visit.facets.js';
import type { Ending, Rekey, RekeyResult, SaveResult, SessionSave, Touch, VisitRecord } from '../visit.store.js';
import { connectionOf, type AnyKysely, type Connection, type Result, type Statement } from './kysely.connection.js';
import type { Dialect } from './kysely.dialects.js';
import { isMissing, isRefusal, isUnmet, referenceIn } from './kysely.errors.js';
import { dialectOf, type KyselyVisitPlace } from './kysely.place.js';
import { listedOf, recordOf } from './visit.row.js';
import { VisitStatements } from './visit.statements.js';
import { tablesIn } from './visit.tables.js';

/** In one statement: each takes a few parameters, and a condition of its own. */
const MAX_SAVES = 100;
/** The size of a pool, by default, of `pg` and of `mysql2`. */
const USUAL_CONNECTIONS = 10;

/** What `KyselyVisitStore` is made of. */
export interface KyselyVisitStoreOptions extends KyselyVisitPlace {
  /** The application's own instance; no transaction. It is not destroyed with the store. */
  readonly db: AnyKysely;
  /** How many connections the pool has, which Kysely does not tell: 1 or more. SQLite has one, whatever is said. @default 10 */
  readonly connections?: number;
}

/**
 * Visits in the application's own database, through its own Kysely instance: PostgreSQL, MySQL, MariaDB, SQLite. `createVisitTables` makes
 * the tables, which are those of `TypeOrmVisitStore`: both may use them at the same time.
 *
 * @throws VisitOptionError when `db` is a transaction or no instance of Kysely, or its database is not supported
 */
export class KyselyVisitStore extends TableVisitStore implements VisitServer {
  override readonly server = this;
  /** How many calls it can have under way at once; undefined: any number, one after the other. */
  readonly connections: number | undefined;
  protected readonly staleIdsAtOnce = 20_000;
  readonly #dialect: Dialect;
  readonly #statements: VisitStatements;
  readonly #connection: Connection;

  constructor({ db, schema, dialect, connections = USUAL_CONNECTIONS }: KyselyVisitStoreOptions) {
    super();
    if (typeof db?.getExecutor !== 'function') throw new VisitOptionError('option "db" must be an instance of Kysely');
    if (db.isTransaction) throw new VisitOptionError('option "db" must be the Kysely instance itself, and no transaction of it');
    if (!Number.isInteger(connections) || connections < 1) {
      throw new VisitOptionError(`option "connections" must be a whole number of at least 1, got ${String(connections)}`);
    }
    this.#dialect = dialectOf(db, dialect);
    this.connections = this.#dialect.name === 'sqlite' ? undefined : connections;
    this.#statements = new VisitStatements(this.#dialect, tablesIn(this.#dialect, schema));
    this.#connection = connectionOf(db, this.#dialect);
  }

  async check(): Promise<void> {
    for (const { table, probe } of this.#statements.probes) {
      try {
        await this.#run(probe);
      } catch (error) {
        if (!isMissing(error)) throw error;
        throw new VisitSchemaError(
          `table ${table} is missing or lacks a column (${(error as Error).message}): add a migration to those of the application that ` +
            'exports `createVisitTables` of nest-visit/kysely as `up`, and run it',
          { cause: error },
        );
      }
    }
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const found = new Map<string, VisitRecord>();
    for (const chunk of chunks(ids)) {
      const { rows } = await this.#run(this.#statements.find(chunk));
      for (const row of rows) {
        const record = recordOf(row);
        if (record) found.set(record.id, record);
      }
    }
    return ids.map((id) => found.get(id) ?? null);
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const linked = visits.filter(({ identity }) => identity);
    const statements = [
      ...chunks(visits, ({ sessionData }) => sessionData?.length).map((chunk) => this.#statements.insertVisits(chunk)),
      ...chunks(linked).map((chunk) => this.#statements.insertIdentities(chunk)),
    ];
    const [only] = statements;
    if (statements.length === 1) await this.#run(only!);
    else if (only)
      await this.#connection.atomic(async (run) => {
        for (const statement of statements) await run(statement);
      });
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    const results: SaveResult[] = [];
    let waiting = saves.map((save, index) => ({ save, index }));
    for (let unexplained = 0; waiting.length > 0;) {
      const group = nextGroup(waiting);
      const outcomes = await this.#saveEach(group.map(({ save }) => save));
      const missed: typeof group = [];
      for (const [place, { save, index }] of group.entries()) {
        const outcome = outcomes[place];
        if (isFailed(outcome)) results[index] = { outcome: 'failed', error: outcome.error };
        else if (outcome) results[index] = { outcome: 'saved', version: save.version + 1 };
        else missed.push({ save, index });
      }
      const stored = await this.findEach(missed.map(({ save }) => save.id));
      for (const [place, { save, index }] of missed.entries()) {
        const verdict = await this.#judge(save, stored[place] ?? null);
        if (verdict) results[index] = verdict;
      }
      const before = waiting.length;
      waiting = waiting.filter(({ index }) => !(index in results));
      if (waiting.length === before && ++unexplained > MAX_UNEXPLAINED) throw unexplainedRefusal('save');
    }
    return results;
  }

  async unlock(id: string, owner: string): Promise<void> {
    await this.#run(this.#statements.unlock(id, owner));
  }

  async listForUser({ limit, ...list }: UserList): Promise<VisitPage<ListPosition>> {
    const most = Math.min(limit, MAX_ROWS);
    const { rows } = await this.#run(this.#statements.listForUser({ ...list, limit: most + 1 }));
    const page = rows.slice(0, most);
    const last = rows.length > most ? page.at(-1) : undefined;
    return {
      visits: page.flatMap((row) => listedOf(row) ?? []),
      next: last ? { accessed: Number(last['accessed']), id: String(last['id']) } : null,
    };
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { rows } = await this.#run(this.#statements.liveVisits(after, Math.min(limit, MAX_ROWS), now));
    const last = rows.at(-1);
    return { visits: rows.flatMap((row) => listedOf(row) ?? []), next: last ? String(last['id']) : null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const { rows } = await this.#run(this.#statements.userAgentsOf(userId, before));
    return rows.map(({ userAgent }) => userAgent as string | null);
  }

  async revokedAt(userId: string): Promise<number | null> {
    const { rows } = await this.#run(this.#statements.revokedAt(userId));
    const at = rows[0]?.['endedAt'] ?? null;
    return at === null ? null : Number(at);
  }

  async serverTime(): Promise<number> {
    const { rows } = await this.#run(this.#statements.serverTime);
    return Number(rows[0]?.['now']) * 1000;
  }

  async close(): Promise<void> {}

  /** What became of a save that has written nothing, given what is stored; null if nothing speaks against it any more. */
  async #judge(save: SessionSave, stored: Outcome<VisitRecord | null>): Promise<SaveResult | null> {
    if (isFailed(stored)) return { outcome: 'failed', error: stored.error };
    if (save.lockOwner === undefined) return verdictOn(save, stored);
    try {
      const { rows } = await this.#run(this.#statements.lease(save.id));
      return verdictOn(save, stored, rows[0] ?? {});
    } catch (error) {
      return { outcome: 'failed', error };
    }
  }

  /**
   * Whether each was saved. Which of them the database refuses is found by trying halves. What may have been written is never tried again:
   * it would meet itself, and be told of a conflict.
   */
  async #saveEach(saves: readonly SessionSave[]): Promise<Outcome<boolean>[]> {
    try {
      return await this.#saveTogether(saves);
    } catch (error) {
      if (saves.length === 1 || !isRefusal(error)) return saves.map(() => new Failed(error));
      const middle = saves.length >> 1;
      return [...(await this.#saveEach(saves.slice(0, middle))), ...(await this.#saveEach(saves.slice(middle)))];
    }
  }

  async #saveTogether(saves: readonly SessionSave[]): Promise<Outcome<boolean>[]> {
    let result: Result;
    try {
      result = await this.#run(this.#statements.save(saves));
    } catch (error) {
      if (isUnmet(error)) return saves.map(() => false);
      throw error;
    }
    if (this.#dialect.returning) {
      const saved = new Set(result.rows.map(({ id }) => id));
      return saves.map(({ id }) => saved.has(id));
    }
    if (result.affected === saves.length) return saves.map(() => true);
    // All that were there. Where that cannot be told, the save may have been written: it is not tried again.
    const stored = await this.findEach(saves.map(({ id }) => id));
    return stored.map((outcome) => (isFailed(outcome) ? outcome : outcome !== null));
  }

  protected async touchEach(touches: readonly Required<Touch>[]): Promise<void> {
    for (const chunk of chunks(touches)) await this.#run(this.#statements.touch(chunk));
  }

  protected async rekeyOne(change: Rekey): Promise<RekeyResult> {
    for (let unexplained = 0; unexplained <= MAX_UNEXPLAINED; unexplained++) {
      if (await this.#replaceKey(change)) return { outcome: 'done' };
      const [stored = null] = await this.find([change.id]);
      const reason = refusalOf(stored, rekeyGuard(change));
      if (reason) return { outcome: 'refused', reason };
    }
    throw unexplainedRefusal('rekey');
  }

  async #replaceKey(change: Rekey): Promise<boolean> {
    const key = this.#statements.rekey(change);
    if (change.identity === undefined) return (await this.#run(key)).affected > 0;
    return this.#connection.atomic(async (run) => {
      if ((await run(key)).affected === 0) return false;
      // From here on the row is locked: what follows is of the same moment.
      await run(this.#statements.link(change));
      return true;
    });
  }

  protected async takeLock(lock: Lock): Promise<boolean> {
    return (await this.#run(this.#statements.lock(lock))).affected > 0;
  }

  protected async endThese(visits: readonly VisitToEnd[], ending: Ending, mark: string): Promise<readonly string[] | undefined> {
    const { rows, affected } = await this.#run(this.#statements.end(visits, ending, mark));
    if (this.#dialect.returning) return rows.map(({ id }) => String(id));
    if (affected === 0) return [];
    return affected === visits.length ? visits.map(({ id }) => id) : undefined;
  }

  protected markedIds(ids: readonly string[], mark: string): Promise<string[]> {
    return this.#ids(this.#statements.marked(ids, mark));
  }

  protected async remember(userId: string, at: number): Promise<void> {
    await this.#run(this.#statements.revoke(userId, at));
  }

  protected async keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]> {
    const { rows } = await this.#run(this.#statements.keysOfUser(userId, except, most));
    return rows.map(({ id, keyHash }) => ({ id: String(id), keyHash: String(keyHash) }));
  }

  protected liveIds(after: string, most: number): Promise<string[]> {
    return this.#ids(this.#statements.liveIds(after, most));
  }

  protected async staleBehind(place: StalePlace, before: number, most: number): Promise<{ id: string; instant: number }[]> {
    const { rows } = await this.#run(this.#statements.staleIds(place, before, most));
    return rows.map(({ id, instant }) => ({ id: String(id), instant: Number(instant) }));
  }

  protected expungeThese(given: readonly string[], before: number): Promise<StaleCounts> {
    return this.#connection.atomic(async (run) => {
      const { rows } = await run(this.#statements.lockStale(given, before));
      const ids = rows.map(({ id }) => String(id));
      if (ids.length === 0) return { visits: 0, identities: 0 };
      const { affected: identities } = await run(this.#statements.deleteIdentities(ids));
      const { affected: visits } = await run(this.#statements.deleteVisits(ids));
      return { visits, identities };
    });
  }

  protected referenceIn(error: unknown): Reference | undefined {
    return referenceIn(error);
  }

  protected async expungeRevocations(before: number): Promise<void> {
    await this.#run(this.#statements.expungeRevocations(before));
  }

  protected async unwiped(where: { from: number; before: number; most: number }): Promise<{ id: string; expiry: number }[]> {
    const { rows } = await this.#run(this.#statements.unwiped(where));
    return rows.map(({ id, expiry }) => ({ id: String(id), expiry: Number(expiry) }));
  }

  protected async wipeThese(ids: readonly string[], before: number): Promise<number> {
    return (await this.#run(this.#statements.wipe(ids, before))).affected;
  }

  protected async countStale(before: number): Promise<StaleCounts> {
    const { visits, identities } = this.#statements.countStale(before);
    return { visits: await this.#count(visits), identities: await this.#count(identities) };
  }

  protected async countUnwiped(before: number): Promise<number> {
    return this.#count(this.#statements.countUnwiped(before));
  }

  #run(statement: Statement): Promise<Result> {
    return this.#connection.run(statement);
  }

  async #ids(statement: Statement): Promise<string[]> {
    return (await this.#run(statement)).rows.map(({ id }) => String(id));
  }

  async #count(statement: Statement): Promise<number> {
    return Number((await this.#run(statement)).rows[0]?.['count']);
  }
}

/** The first saves that can go in one statement: each visit once, ordered by id, bounded in number and size. */
function nextGroup<E extends { readonly save: SessionSave }>(entries: readonly E[]): E[] {
  const group = new Map<string, E>();
  let bytes = 0;
  for (const entry of entries) {
    const { id, data } = entry.save;
    bytes += data?.length ?? 0;
    if (group.size >= MAX_SAVES || (bytes > MAX_BYTES && group.size > 0)) break;
    if (!group.has(id)) group.set(id, entry);
  }
  return [...group.values()].sort((a, b) => byId(a.save, b.save));
}
