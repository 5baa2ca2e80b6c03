import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { VisitOptionError } from '../../errors/visit.error.js';
import { isFailed, type Outcome } from '../ask-each.js';
import {
  byId,
  chunks,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  TableVisitStore,
  unexplainedRefusal,
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
import type { Ending, Rekey, RekeyResult, SaveResult, SessionSave, Touch, VisitRecord } from '../visit.store.js';
import { refusalOf, rekeyGuard, verdictOn } from '../visit.record.js';
import { dialectOf } from './dialects/dialects.js';
import { familyOf } from './dialects/family.js';
import type { Dialect, Statement } from './dialects/dialect.js';
import { bytesFor, mostBytes, tooLong } from '../statement-size.js';
import { OwnTransactions } from './own-transactions.js';
import { checkSchema } from './schema-check.js';
import { checkServer } from './server-check.js';
import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';
import { listedOf, recordOf, type ListedRow, type VisitRow } from './visit.row.js';
import { VisitSql } from './visit.sql.js';
import { namesOf } from './visit.tables.js';

/** A group save may be one long condition; longer ones cost more than a second statement. */
const MAX_SAVES = 64;
/** How long a pool is waited for that is being closed, in milliseconds, unless there is a deadline. */
const LONGEST_FAREWELL = 10_000;
/**
 * Visits in the application's own database, through a TypeORM data source: MySQL, MariaDB, PostgreSQL, SQLite.
 *
 * Uses plain SQL, made once from the metadata of the data source, so that naming strategies, prefixes, schemas and
 * extended entities are respected. The data source must know `...visitEntities`, or subclasses of them.
 */
export class TypeOrmVisitStore extends TableVisitStore implements UserVisits, VisitPages, VisitLocks, VisitServer {
  override readonly server = this;
  protected readonly staleIdsAtOnce: number = 100_000;
  readonly #owned: boolean;
  #deadline: number | undefined;
  #prepared: Prepared | undefined;

  constructor(
    readonly dataSource: DataSource,
    /** `owned`: the store opened the data source and closes it. */
    { owned = false }: { readonly owned?: boolean } = {},
  ) {
    super();
    this.#owned = owned;
  }

  /** The size of the pool, which is 10 by default with both drivers. SQLite has one connection, which is not waited for. */
  get connections(): number | undefined {
    const { poolSize, extra } = this.dataSource.options as {
      poolSize?: number;
      extra?: { connectionLimit?: number; max?: number };
    };
    if (familyOf(this.dataSource) === 'sqlite') return undefined;
    return extra?.connectionLimit ?? extra?.max ?? poolSize ?? 10;
  }

  setDeadline(milliseconds: number): void {
    this.#deadline = milliseconds;
    this.#prepared?.dialect.limit(milliseconds);
  }

  async check(): Promise<void> {
    const { dialect, sql } = this.#prepare();
    await checkSchema(this.dataSource, dialect, sql);
    await checkServer(this.dataSource, dialect, sql.write);
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const { dialect, sql } = this.#prepare();
    const found = new Map<string, VisitRecord>();
    for (const chunk of chunks(ids)) {
      const { rows } = await dialect.run(sql.find(chunk));
      for (const row of rows) {
        const record = recordOf(row as VisitRow);
        if (record) found.set(record.id, record);
      }
    }
    return ids.map((id) => found.get(id) ?? null);
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const { dialect, sql } = this.#prepare();
    const linked = visits.filter(({ identity }) => identity);
    for (const { sessionData } of visits) {
      const error = tooLong(sessionData, dialect.longestStatement);
      if (error) throw error;
    }
    const statements = [
      ...chunks(visits, (visit) => bytesFor(visit.sessionData), mostBytes(dialect.longestStatement)).map((chunk) =>
        sql.insertVisits(chunk),
      ),
      ...chunks(linked).map((chunk) => sql.insertIdentities(chunk)),
    ];
    const [only] = statements;
    if (only) await (statements.length === 1 ? dialect.run(only) : dialect.atomic(statements));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    const { dialect } = this.#prepare();
    const results: SaveResult[] = [];
    for (const [index, { data }] of saves.entries()) {
      const error = tooLong(data, dialect.longestStatement);
      if (error) results[index] = { outcome: 'failed', error };
    }
    let waiting = saves.map((save, index) => ({ save, index })).filter(({ index }) => !(index in results));
    let unexplained = 0;
    let mostInGroup = MAX_SAVES;
    while (waiting.length > 0) {
      const group = nextGroup(waiting, mostInGroup, mostBytes(dialect.longestStatement));
      let outcomes: Map<string, Outcome<true>>;
      try {
        outcomes = await this.#saveGroup(group.map(({ save }) => save));
      } catch (error) {
        // Which of them the database refuses is found by trying halves. What may have been written is never tried again.
        const lost = dialect.isRefusal(error) ? (group.length === 1 ? group : []) : waiting;
        for (const { index } of lost) results[index] = { outcome: 'failed', error };
        waiting = waiting.filter(({ index }) => !(index in results));
        mostInGroup = Math.max(1, group.length >> 1);
        continue;
      }
      const missed: typeof group = [];
      for (const { save, index } of group) {
        const outcome = outcomes.get(save.id);
        if (!outcome) missed.push({ save, index });
        else
          results[index] = isFailed(outcome)
            ? { outcome: 'failed', error: outcome.error }
            : { outcome: 'saved', version: save.version + 1 };
      }
      const stored = await this.findEach(missed.map(({ save }) => save.id));
      for (const [position, { save, index }] of missed.entries()) {
        const verdict = await this.#judge(save, stored[position] ?? null);
        if (verdict) results[index] = verdict;
      }
      const before = waiting.length;
      waiting = waiting.filter(({ index }) => !(index in results));
      if (waiting.length === before && ++unexplained > MAX_UNEXPLAINED) throw unexplainedRefusal('save');
    }
    return results;
  }

  async unlock(id: string, owner: string): Promise<void> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.unlock(id, owner));
  }

  async listForUser({ limit, ...list }: UserList): Promise<VisitPage<ListPosition>> {
    const { dialect, sql } = this.#prepare();
    const most = Math.min(limit, MAX_ROWS);
    const { rows } = await dialect.run(sql.listForUser({ ...list, limit: most + 1 }));
    const page = rows.slice(0, most) as unknown as ListedRow[];
    const last = rows.length > most ? page.at(-1) : undefined;
    return { visits: page.flatMap((row) => listedOf(row) ?? []), next: last ? { accessed: Number(last.accessed), id: last.id } : null };
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.liveVisits(after, Math.min(limit, MAX_ROWS), now));
    const last = rows.at(-1);
    return { visits: rows.flatMap((row) => listedOf(row as unknown as ListedRow) ?? []), next: last ? String(last['id']) : null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.userAgentsOf(userId, before));
    return rows.map(({ userAgent }) => userAgent as string | null);
  }

  async revokedAt(userId: string): Promise<number | null> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.revokedAt(userId));
    const at = rows[0]?.['endedAt'] ?? null;
    return at === null ? null : Number(at);
  }

  protected async countStale(before: number): Promise<StaleCounts> {
    const { visits, identities } = this.#prepare().sql.countStale(before);
    return { visits: await this.#count(visits), identities: await this.#count(identities) };
  }

  protected async countUnwiped(before: number): Promise<number> {
    return this.#count(this.#prepare().sql.countUnwiped(before));
  }

  async serverTime(): Promise<number> {
    const { dialect } = this.#prepare();
    const { rows } = await dialect.run({ sql: `SELECT ${dialect.unixTime} AS "now"`, params: [] });
    return Number(rows[0]?.['now']) * 1000;
  }

  requireConnection(): void {
    this.#prepared?.ownTransactions?.refuse();
  }

  async close(): Promise<void> {
    this.#prepared?.ownTransactions?.close();
    if (!this.#owned || !this.dataSource.isInitialized) return;
    // A pool waits for connections that may never end, and fails for one that has ended already.
    const closed = this.dataSource.destroy().catch(() => {});
    await Promise.race([closed, sleep(this.#deadline ?? LONGEST_FAREWELL, undefined, { ref: false })]);
  }

  #prepare() {
    return (this.#prepared ??= prepare(this.dataSource, this.#deadline, this.connections));
  }

  /** What became of a save that has written nothing, given what is stored; null if nothing speaks against it any more. */
  async #judge(save: SessionSave, stored: Outcome<VisitRecord | null>): Promise<SaveResult | null> {
    const { dialect, sql } = this.#prepare();
    if (isFailed(stored)) return { outcome: 'failed', error: stored.error };
    if (save.lockOwner === undefined) return verdictOn(save, stored, {});
    try {
      const { rows } = await dialect.run(sql.lease(save.id));
      return verdictOn(save, stored, rows[0] ?? {});
    } catch (error) {
      return { outcome: 'failed', error };
    }
  }

  /** By id, those that were saved, or may have been. Either a group tells which of it were, or all or none of it are. */
  async #saveGroup(saves: readonly SessionSave[]): Promise<Map<string, Outcome<true>>> {
    const { dialect, sql } = this.#prepare();
    const ids = saves.map(({ id }) => id);
    const all = (some: readonly string[]): Map<string, true> => new Map(some.map((id) => [id, true]));
    try {
      const { rows, affected } = await dialect.run(sql.save(saves));
      if (dialect.returning) return all(rows.map(({ id }) => String(id)));
      if (affected === ids.length) return all(ids);
    } catch (error) {
      if (dialect.isUnmet(error)) return all([]);
      throw error;
    }
    // All that were there. Where that cannot be told, the save may have been written: it is not tried again.
    const stored = await this.findEach(ids);
    const outcomes = new Map<string, Outcome<true>>();
    for (const [index, id] of ids.entries()) {
      const outcome = stored[index];
      if (isFailed(outcome)) outcomes.set(id, outcome);
      else if (outcome) outcomes.set(id, true);
    }
    return outcomes;
  }

  protected async touchEach(touches: readonly Required<Touch>[]): Promise<void> {
    const { dialect, sql } = this.#prepare();
    for (const chunk of chunks(touches)) await dialect.run(sql.touch(chunk));
  }

  protected async rekeyOne(change: Rekey): Promise<RekeyResult> {
    const { dialect, sql } = this.#prepare();
    const statements = sql.rekey(change);
    for (let unexplained = 0; unexplained <= MAX_UNEXPLAINED; unexplained++) {
      const [only] = statements.length === 1 ? statements : [];
      const isDone = only ? (await dialect.run(only)).affected === 1 : (await dialect.atomic(statements)) !== null;
      if (isDone) return { outcome: 'done' };
      const [stored = null] = await this.find([change.id]);
      const reason = refusalOf(stored, rekeyGuard(change));
      if (reason) return { outcome: 'refused', reason };
    }
    throw unexplainedRefusal('rekey');
  }

  protected async takeLock(lock: Lock): Promise<boolean> {
    const { dialect, sql } = this.#prepare();
    return (await dialect.run(sql.lock(lock))).affected > 0;
  }

  protected async endThese(visits: readonly VisitToEnd[], ending: Ending, mark: string): Promise<readonly string[] | undefined> {
    const { dialect, sql } = this.#prepare();
    const { rows, affected } = await dialect.run(sql.end(visits, ending, mark));
    if (dialect.returning) return rows.map(({ id }) => String(id));
    if (affected === 0) return [];
    return affected === visits.length ? visits.map(({ id }) => id) : undefined;
  }

  protected markedIds(ids: readonly string[], mark: string): Promise<string[]> {
    return this.#ids(this.#prepare().sql.marked(ids, mark));
  }

  protected async remember(userId: string, at: number): Promise<void> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.revoke(userId, at));
  }

  protected async keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]> {
    const { dialect, sql } = this.#prepare();
    return (await dialect.run(sql.keysOfUser(userId, except, most))).rows as unknown as Required<VisitToEnd>[];
  }

  protected liveIds(after: string, most: number): Promise<string[]> {
    return this.#ids(this.#prepare().sql.liveIds(after, most));
  }

  protected async staleBehind(place: StalePlace, before: number, most: number): Promise<{ id: string; instant: number }[]> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.staleIds(place, before, most));
    return rows.map(({ id, instant }) => ({ id: String(id), instant: Number(instant) }));
  }

  protected async expungeThese(ids: readonly string[], before: number): Promise<StaleCounts> {
    const { dialect, sql } = this.#prepare();
    const [, identities, visits] = (await dialect.atomic(sql.expunge(ids, before))) ?? [];
    return { visits: visits?.affected ?? 0, identities: identities?.affected ?? 0 };
  }

  protected referenceIn(error: unknown): Reference | undefined {
    return this.#prepare().dialect.referenceIn(error);
  }

  protected async expungeRevocations(before: number): Promise<void> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.expungeRevocations(before));
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
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.unwiped({ from, before, limit: most }));
    return rows.map(({ id, expiry }) => ({ id: String(id), expiry: Number(expiry) }));
  }

  protected async wipeThese(ids: readonly string[], before: number): Promise<number> {
    const { dialect, sql } = this.#prepare();
    return (await dialect.run(sql.wipe(ids, before))).affected;
  }

  async #ids(statement: Statement): Promise<string[]> {
    const { rows } = await this.#prepare().dialect.run(statement);
    return rows.map(({ id }) => String(id));
  }

  async #count(statement: Statement): Promise<number> {
    const { rows } = await this.#prepare().dialect.run(statement);
    return Number(rows[0]?.count);
  }
}

/** What the store works with, made once from the metadata of the data source. */
interface Prepared {
  readonly dialect: Dialect;
  readonly sql: VisitSql;
  /** Where the pool has one connection. */
  readonly ownTransactions: OwnTransactions | undefined;
}

function prepare(dataSource: DataSource, deadline: number | undefined, connections: number | undefined): Prepared {
  const dialect = dialectOf(dataSource);
  if (!dataSource.isInitialized) throw new VisitOptionError('the data source is not initialized: await `dataSource.initialize()` first');
  const visit = namesOf(dataSource, Visit);
  const identity = namesOf(dataSource, VisitIdentity);
  const revocation = namesOf(dataSource, VisitRevocation);
  if (!visit || !identity || !revocation) {
    const missing = !visit ? 'Visit' : !identity ? 'VisitIdentity' : 'VisitRevocation';
    throw new VisitOptionError(`the data source does not know the entity ${missing}: add \`...visitEntities\` to its \`entities\``);
  }
  if (deadline !== undefined) dialect.limit(deadline);
  const ownTransactions = connections === 1 ? new OwnTransactions(dataSource) : undefined;
  return { dialect, sql: new VisitSql(dialect, visit, identity, revocation), ownTransactions };
}

/** The first saves that can go in one statement: each visit once, ordered by id, bounded in number and size. */
function nextGroup<E extends { save: SessionSave }>(entries: readonly E[], most: number, longest: number): E[] {
  const group = new Map<string, E>();
  let bytes = 0;
  for (const entry of entries) {
    const { id, data } = entry.save;
    bytes += bytesFor(data);
    if (group.size >= most || (bytes > longest && group.size > 0)) break;
    if (!group.has(id)) group.set(id, entry);
  }
  return [...group.values()].sort((a, b) => byId(a.save, b.save));
}
