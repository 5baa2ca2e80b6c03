import type { SQL } from 'drizzle-orm';
import { VisitOptionError, VisitSchemaError } from '../../errors/visit.error.js';
import { askEach, Failed, isFailed, type Outcome } from '../ask-each.js';
import { listedReader, recordReader, type Readers } from '../record.rows.js';
import { retryOnConflict } from '../retry-on-conflict.js';
import { toBuffer } from '../sql.values.js';
import {
  byId,
  chunks,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  NO_ID,
  TableVisitStore,
  unexplainedRefusal,
  type Reference,
  type StalePlace,
  type VisitToEnd,
} from '../table-visit.store.js';
import type { ListPosition, Lock, StaleCounts, UserList, VisitPage, VisitServer } from '../visit.facets.js';
import { refusalOf, rekeyGuard, verdictOn } from '../visit.record.js';
import type {
  Ending,
  IdentityRecord,
  ListedVisit,
  Rekey,
  RekeyResult,
  SaveResult,
  SessionSave,
  Touch,
  VisitRecord,
} from '../visit.store.js';
import { dialectOf, type Answer, type Dialect, type DrizzleVisitDatabase, type Run } from './drizzle.dialects.js';
import { missingIn, VisitStatements, type DrizzleVisitTables } from './visit.statements.js';
import { mysqlVisitTables, pgVisitTables } from './visit.tables.js';

type Row = Answer['rows'][number];

const TABLES = { postgres: pgVisitTables, mysql: mysqlVisitTables };

const asIs = <T>(value: T): T => value;
/** Drivers give 64-bit integers as text, and flags as numbers, by settings of the application. */
const readers: Readers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: Number,
  count: Number,
  flag: (value) => Number(value) > 0,
  bytes: toBuffer,
};
const recordOf = recordReader<Row>({ readers });
const listedOf = listedReader<Row>({ readers });

/**
 * Visits in the application's own database, through its own Drizzle: PostgreSQL, MySQL, MariaDB. Their tables are those of
 * `TypeOrmVisitStore`, which may use them at the same time; `pgVisitTables()` and `mysqlVisitTables()` define them for Drizzle's migrations.
 *
 * @example
 * new DrizzleVisitStore(drizzle(process.env.DATABASE_URL))
 */
export class DrizzleVisitStore extends TableVisitStore implements VisitServer {
  override readonly server = this;
  readonly connections: number | undefined;
  protected readonly staleIdsAtOnce = 20_000;
  readonly #dialect: Dialect;
  readonly #sql: VisitStatements;

  /**
   * @param db what `drizzle()` returns; it stays the application's own, and is not closed with the store
   * @param tables where their names are others than usual. @default the tables as `pgVisitTables()` and `mysqlVisitTables()` define them
   * @throws VisitOptionError when visits cannot be kept there
   */
  constructor(db: DrizzleVisitDatabase, tables?: DrizzleVisitTables) {
    super();
    this.#dialect = dialectOf(db);
    const used = tables ?? TABLES[this.#dialect.name]();
    const missing = missingIn(used);
    if (missing.length > 0) throw new VisitOptionError(`the Drizzle tables of visits have no ${missing.join(', ')}`);
    this.#sql = new VisitStatements(this.#dialect, used);
    this.connections = this.#dialect.connections;
  }

  async check(): Promise<void> {
    for (const probe of this.#sql.probes) {
      try {
        await this.#run(probe);
      } catch (error) {
        if (!this.#dialect.isMissing(error)) throw error;
        throw new VisitSchemaError(
          `a table of visits is missing or lacks a column (${(error as Error).message}): export \`${TABLES[this.#dialect.name].name}()\` ` +
            'of nest-visit/drizzle from the schema of the application, then run `drizzle-kit generate` and `drizzle-kit migrate`',
          { cause: error },
        );
      }
    }
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const found = await this.#read(ids);
    return ids.map((id) => recordOrNull(found.get(id)));
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const linked = visits.filter((visit): visit is VisitRecord & { identity: IdentityRecord } => visit.identity !== null);
    const statements = [
      ...chunks(visits, ({ sessionData }) => sessionData?.length).map((some) => this.#sql.insertVisits(some)),
      ...chunks(linked).map((some) => this.#sql.insertIdentities(some)),
    ];
    const [first] = statements;
    // One statement is a transaction by itself.
    if (first && statements.length === 1) await this.#run(first);
    else if (first)
      await this.#transaction(async (run) => {
        for (const statement of statements) await run(statement);
      });
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    const results: SaveResult[] = [];
    let waiting = saves.map((save, index) => ({ save, index }));
    for (let unexplained = 0; waiting.length > 0;) {
      const round = oneOfEach(waiting);
      const outcomes = await this.#saveRound(round.map(({ save }) => save));
      for (const [place, { index }] of round.entries()) {
        const outcome = outcomes[place];
        if (isFailed(outcome)) results[index] = { outcome: 'failed', error: outcome.error };
        else if (outcome) results[index] = outcome;
      }
      const before = waiting.length;
      waiting = waiting.filter(({ index }) => !(index in results));
      if (waiting.length === before && ++unexplained > MAX_UNEXPLAINED) throw unexplainedRefusal('save');
    }
    return results;
  }

  async unlock(id: string, owner: string): Promise<void> {
    await this.#run(this.#sql.unlock(id, owner));
  }

  async listForUser(list: UserList): Promise<VisitPage<ListPosition>> {
    const most = Math.min(list.limit, MAX_ROWS);
    const { rows } = await this.#run(this.#sql.listForUser({ ...list, limit: most + 1 }));
    const page = rows.slice(0, most);
    const last = rows.length > most ? page.at(-1) : undefined;
    return { visits: listedIn(page), next: last ? { accessed: Number(last.accessed), id: String(last.id) } : null };
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { rows } = await this.#run(this.#sql.liveVisits(after, now, Math.min(limit, MAX_ROWS)));
    return { visits: listedIn(rows), next: idsIn(rows).at(-1) ?? null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const { rows } = await this.#run(this.#sql.userAgentsOf(userId, before));
    return [...new Set(rows.map(({ agent }) => agent as string | null))];
  }

  async revokedAt(userId: string): Promise<number | null> {
    const [row] = (await this.#run(this.#sql.revoked(userId))).rows;
    return row?.at == null ? null : Number(row.at);
  }

  async serverTime(): Promise<number | undefined> {
    const [row] = (await this.#run(this.#sql.time)).rows;
    return row && Number(row.now) * 1000;
  }

  async close(): Promise<void> {}

  protected async touchEach(touches: readonly Required<Touch>[]): Promise<void> {
    for (const some of chunks(touches)) await this.#run(this.#sql.touch(some));
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
    const { id, identity } = change;
    const statement = this.#sql.rekey(change);
    if (identity === undefined) return (await this.#run(statement)).affected > 0;
    return this.#transaction(async (run) => {
      // From here on the row is locked: what follows is of the same moment.
      if ((await run(statement)).affected === 0) return false;
      await run(identity ? this.#sql.link(id, identity) : this.#sql.unlink([id]));
      return true;
    });
  }

  protected async takeLock(lock: Lock): Promise<boolean> {
    return (await this.#run(this.#sql.lock(lock))).affected > 0;
  }

  protected async endThese(visits: readonly VisitToEnd[], ending: Ending, mark: string): Promise<readonly string[] | undefined> {
    const { rows, affected } = await this.#run(this.#sql.end(visits, ending, mark));
    if (this.#dialect.returns) return idsIn(rows);
    if (affected === 0) return [];
    return affected === visits.length ? visits.map(({ id }) => id) : undefined;
  }

  protected async markedIds(ids: readonly string[], mark: string): Promise<string[]> {
    return idsIn((await this.#run(this.#sql.marked(ids, mark))).rows);
  }

  protected async remember(userId: string, at: number): Promise<void> {
    await this.#run(this.#sql.revoke(userId, at));
  }

  protected async keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]> {
    const { rows } = await this.#run(this.#sql.keysOfUser(userId, except, most));
    return rows.map(({ id, hash }) => ({ id: String(id), keyHash: String(hash) }));
  }

  protected async liveIds(after: string, most: number): Promise<string[]> {
    return idsIn((await this.#run(this.#sql.liveIds(after, most))).rows);
  }

  protected async staleBehind(place: StalePlace, before: number, most: number): Promise<{ id: string; instant: number }[]> {
    const { rows } = await this.#run(this.#sql.staleBehind(place, before, most));
    return rows.map(({ id, instant }) => ({ id: String(id), instant: Number(instant) }));
  }

  protected expungeThese(ids: readonly string[], before: number): Promise<StaleCounts> {
    return this.#transaction(async (run) => {
      const stale = idsIn((await run(this.#sql.lockStale(ids, before))).rows);
      if (stale.length === 0) return { visits: 0, identities: 0 };
      const identities = (await run(this.#sql.unlink(stale))).affected;
      await run(this.#sql.delete(stale));
      return { visits: stale.length, identities };
    });
  }

  protected referenceIn(error: unknown): Reference | undefined {
    return this.#dialect.referenceIn(error);
  }

  protected async expungeRevocations(before: number): Promise<void> {
    await this.#run(this.#sql.expungeRevocations(before));
  }

  protected async unwiped(where: { from: number; before: number; most: number }): Promise<{ id: string; expiry: number }[]> {
    const { rows } = await this.#run(this.#sql.unwiped(where.from, where.before, where.most));
    return rows.map(({ id, expiry }) => ({ id: String(id), expiry: Number(expiry) }));
  }

  protected async wipeThese(ids: readonly string[], before: number): Promise<number> {
    return (await this.#run(this.#sql.wipe(ids, before))).affected;
  }

  protected async countStale(before: number): Promise<StaleCounts> {
    const [row] = (await this.#run(this.#sql.countStale(before))).rows;
    return { visits: Number(row?.visits), identities: Number(row?.identities) };
  }

  protected async countUnwiped(before: number): Promise<number> {
    return Number((await this.#run(this.#sql.countUnwiped(before))).rows[0]?.visits);
  }

  #run(statement: SQL): Promise<Answer> {
    const { run, isTransient } = this.#dialect;
    return retryOnConflict(() => run(statement), isTransient);
  }

  #transaction<T>(work: (run: Run) => Promise<T>): Promise<T> {
    const { transaction, isTransient } = this.#dialect;
    return retryOnConflict(() => transaction(work), isTransient);
  }

  async #read(given: readonly string[]): Promise<Map<string, Row>> {
    const found = new Map<string, Row>();
    for (const ids of chunks(given)) for (const row of (await this.#run(this.#sql.find(ids))).rows) found.set(String(row.id), row);
    return found;
  }

  /** Of different visits. Undefined: it was refused, and nothing speaks against it any more. */
  async #saveRound(saves: readonly SessionSave[]): Promise<readonly Outcome<SaveResult | undefined>[]> {
    const outcomes: Outcome<SaveResult | undefined>[] = [];
    const isRefusal = this.#dialect.isRefusal;
    for (const group of chunks(saves, ({ data }) => data?.length)) {
      const some = await askEach(group, {
        ask: (asked) => this.#saveGroup(asked),
        probe: () => this.find([NO_ID]),
        // Where no answer has come it may have been done, and a second try would run into the first.
        inspect: async (asked, error) => asked.map(() => (isRefusal(error) ? undefined : new Failed(error))),
      });
      outcomes.push(...some);
    }
    return outcomes;
  }

  async #saveGroup(saves: readonly SessionSave[]): Promise<readonly Outcome<SaveResult | undefined>[]> {
    const written = await this.#written(saves);
    const doubtful = saves.filter(({ id }) => written === EXISTING || !written.has(id));
    const found = await this.#readEach(idsIn(doubtful));
    const verdicts = new Map<string, Outcome<SaveResult | undefined>>();
    for (const [place, save] of doubtful.entries()) {
      const row = found[place];
      if (isFailed(row)) verdicts.set(save.id, row);
      else if (row && written === EXISTING) verdicts.set(save.id, savedAs(save));
      else verdicts.set(save.id, verdictOn(save, recordOrNull(row), row) ?? undefined);
    }
    return saves.map((save) => (verdicts.has(save.id) ? verdicts.get(save.id) : savedAs(save)));
  }

  /** The visits that are saved. */
  async #written(saves: readonly SessionSave[]): Promise<ReadonlySet<string> | typeof EXISTING> {
    const { returns, isUnmet } = this.#dialect;
    try {
      const { rows, affected } = await this.#run(this.#sql.save(saves));
      if (!returns && affected < saves.length && saves.length > 1) return EXISTING;
      return new Set(returns ? idsIn(rows) : affected > 0 ? idsIn(saves) : []);
    } catch (error) {
      if (isUnmet(error)) return new Set();
      throw error;
    }
  }

  /** A visit that cannot be read fails by itself. */
  #readEach(ids: readonly string[]): Promise<readonly Outcome<Row | undefined>[]> {
    const ask = async (some: readonly string[]): Promise<(Row | undefined)[]> => {
      const found = await this.#read(some);
      return some.map((id) => found.get(id));
    };
    return askEach(ids, { ask, probe: () => this.#read([NO_ID]) });
  }
}

/** All that are there: where statements return nothing, a group is saved as a whole or not at all. */
const EXISTING = Symbol('existing');

function savedAs({ version }: SessionSave): SaveResult {
  return { outcome: 'saved', version: version + 1 };
}

function recordOrNull(row: Row | undefined): VisitRecord | null {
  return row ? recordOf(row) : null;
}

function listedIn(rows: readonly Row[]): ListedVisit[] {
  return rows.flatMap((row) => listedOf(row) ?? []);
}

function idsIn(rows: readonly { readonly id?: unknown }[]): string[] {
  return rows.map(({ id }) => String(id));
}

/** The first save of each visit, in the order of their ids. */
function oneOfEach<E extends { save: SessionSave }>(entries: readonly E[]): E[] {
  const first = new Map<string, E>();
  for (const entry of entries) if (!first.has(entry.save.id)) first.set(entry.save.id, entry);
  return [...first.values()].sort((a, b) => byId(a.save, b.save));
}
