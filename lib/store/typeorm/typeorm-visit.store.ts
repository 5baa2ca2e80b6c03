import type { DataSource } from 'typeorm';
import { VisitOptionError, VisitSchemaError } from '../../errors/visit.error.js';
import {
  VisitStore,
  type Ending,
  type Lock,
  type LockResult,
  type NewVisitRecord,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type StaleCounts,
  type Touch,
  type VisitPage,
  type VisitRecord,
} from '../visit.store.js';
import { refusalOf, rekeyGuard, verdictOn } from '../write-guard.js';
import { dialectOf } from './dialects/dialects.js';
import type { Dialect, Statement } from './dialects/dialect.js';
import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';
import { recordOf, type VisitRow } from './visit.row.js';
import { EVERYBODY, VisitSql } from './visit.sql.js';
import { namesOf } from './visit.tables.js';

const MAX_ROWS = 500;
/** Keeps the largest statement well below the 16 MB that MariaDB takes, where binary data is sent in hexadecimal digits. */
const MAX_BYTES = 4_000_000;
/** A group save may be one long condition; longer ones cost more than a second statement. */
const MAX_SAVES = 64;
/** So many stale visits are looked up at once, to be deleted in batches: in the order of their keys, several lie on one page of the table. */
const STALE_IDS = 100_000;
/** A refused write whose reason is gone when looked for is tried again; more often than this, something else is wrong. */
const MAX_PUZZLES = 10;

/**
 * Visits in the application's own database, through a TypeORM data source: MySQL, MariaDB, PostgreSQL, SQLite.
 *
 * Uses plain SQL, made once from the metadata of the data source, so that naming strategies, prefixes, schemas and
 * extended entities are respected. The data source must know `...visitEntities`, or subclasses of them.
 */
export class TypeOrmVisitStore extends VisitStore {
  readonly #owned: boolean;
  #wiped = { before: Number.NaN, from: 0 };
  #stale: { before: number; ids: string[] } = { before: Number.NaN, ids: [] };
  #prepared: { dialect: Dialect; sql: VisitSql; visitTable: string; identityTable: string; revocationTable: string } | undefined;

  constructor(
    readonly dataSource: DataSource,
    /** `owned`: the store opened the data source and closes it. */
    { owned = false }: { readonly owned?: boolean } = {},
  ) {
    super();
    this.#owned = owned;
  }

  async check(): Promise<void> {
    const { sql, visitTable, identityTable, revocationTable } = this.#prepare();
    await this.#probe(sql.probes.visit, visitTable);
    await this.#probe(sql.probes.identity, identityTable);
    await this.#probe(sql.probes.revocation, revocationTable);
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

  async create(visits: readonly NewVisitRecord[]): Promise<void> {
    const { dialect, sql } = this.#prepare();
    const linked = visits.filter(({ identity }) => identity);
    const statements = [
      ...chunks(visits, (visit) => visit.sessionData?.length).map((chunk) => sql.insertVisits(chunk)),
      ...chunks(linked).map((chunk) => sql.insertIdentities(chunk)),
    ];
    const [only] = statements;
    if (only) await (statements.length === 1 ? dialect.run(only) : dialect.atomic(statements));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    const { dialect, sql } = this.#prepare();
    const results: SaveResult[] = [];
    let waiting = saves.map((save, index) => ({ save, index }));
    let puzzles = 0;
    let mostInGroup = MAX_SAVES;
    while (waiting.length > 0) {
      const group = nextGroup(waiting, mostInGroup);
      let saved: Set<string>;
      try {
        saved = await this.#saveGroup(group.map(({ save }) => save));
      } catch (error) {
        // Which of them the database refuses is found by trying halves. What may have been written is never tried again.
        const lost = dialect.isRefusal(error) ? (group.length === 1 ? group : []) : waiting;
        for (const { index } of lost) results[index] = { outcome: 'failed', error };
        waiting = waiting.filter(({ index }) => !(index in results));
        mostInGroup = Math.max(1, group.length >> 1);
        continue;
      }
      const missed = group.filter(({ save }) => !saved.has(save.id));
      const stored = await this.find(missed.map(({ save }) => save.id));
      const owners = new Map<string, unknown>();
      for (const { save } of missed) {
        if (save.lockOwner !== undefined) owners.set(save.id, (await dialect.run(sql.lockOwner(save.id))).rows[0]?.['lockOwner']);
      }
      for (const { save, index } of group) {
        if (saved.has(save.id)) results[index] = { outcome: 'saved', version: save.version + 1 };
      }
      missed.forEach(({ save, index }, position) => {
        const verdict = verdictOn(save, stored[position] ?? null, owners.get(save.id));
        if (verdict) results[index] = verdict;
      });
      const before = waiting.length;
      waiting = waiting.filter(({ index }) => !(index in results));
      if (waiting.length === before && ++puzzles > MAX_PUZZLES) throw puzzle('save');
    }
    return results;
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    const { dialect, sql } = this.#prepare();
    const latest = new Map<string, Touch>();
    for (const { id, accessed, expiry } of touches) {
      const other = latest.get(id) ?? { accessed, expiry };
      latest.set(id, { id, accessed: Math.max(accessed, other.accessed), expiry: Math.max(expiry, other.expiry) });
    }
    for (const chunk of chunks([...latest.values()].sort(byId))) await dialect.run(sql.touch(chunk));
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    const results: RekeyResult[] = [];
    for (const change of changes) results.push(await this.#rekeyOne(change));
    return results;
  }

  async lock(lock: Lock): Promise<LockResult> {
    const { dialect, sql } = this.#prepare();
    if ((await dialect.run(sql.lock(lock))).affected > 0) return { outcome: 'locked' };
    const [stored = null] = await this.find([lock.id]);
    const reason = refusalOf(stored, lock);
    return reason ? { outcome: 'refused', reason } : { outcome: 'held' };
  }

  async unlock(id: string, owner: string): Promise<void> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.unlock(id, owner));
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    const { dialect, sql } = this.#prepare();
    const ended: string[] = [];
    for (const id of ids) {
      if ((await dialect.run(sql.end(id, ending))).affected > 0) ended.push(id);
    }
    return ended;
  }

  async listForUser(userId: string, now: number): Promise<VisitRecord[]> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.listForUser(userId, now));
    return rows.flatMap((row) => recordOf(row as VisitRow) ?? []);
  }

  override async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.liveVisits(after, Math.min(limit, MAX_ROWS), now));
    const last = rows.at(-1);
    return { visits: rows.flatMap((row) => recordOf(row as VisitRow) ?? []), next: last ? String(last['id']) : null };
  }

  override async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.userAgentsOf(userId, before));
    return rows.map(({ userAgent }) => userAgent as string | null);
  }

  async endAllForUser(userId: string, { except = '', ...ending }: Ending & { readonly except?: string }): Promise<string[]> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.revoke(userId, ending.at));
    const ended: string[] = [];
    for (;;) {
      const { rows } = await dialect.run(sql.keysOfUser(userId, except));
      if (rows.length === 0) return ended;
      for (const { id, keyHash } of rows as { id: string; keyHash: string }[]) {
        // One whose key has changed meanwhile may be somebody else's by now: the next round tells.
        if ((await dialect.run(sql.end(id, ending, keyHash))).affected > 0) ended.push(id);
      }
    }
  }

  async endEverything(ending: Ending): Promise<number> {
    const { dialect, sql } = this.#prepare();
    await dialect.run(sql.revoke(EVERYBODY, ending.at));
    const endRound = async (): Promise<number> => {
      let ended = 0;
      for (let after: string | undefined = ''; ;) {
        const { rows } = await dialect.run(sql.liveIds(after, MAX_ROWS));
        const ids = rows.map(({ id }) => String(id));
        after = ids.at(-1);
        if (after === undefined) return ended;
        ended += (await dialect.run(sql.endMany(ids, ending))).affected;
      }
    };
    // Again until a round finds none, because visits may begin behind the place where the round is.
    let total = 0;
    for (;;) {
      const ended = await endRound();
      if (ended === 0) return total;
      total += ended;
    }
  }

  async endedAllAt(userId: string): Promise<number | null> {
    const { dialect, sql } = this.#prepare();
    const { rows } = await dialect.run(sql.revokedAt(userId));
    const at = rows[0]?.['endedAt'] ?? null;
    return at === null ? null : Number(at);
  }

  async expunge({ before, limit }: { readonly before: number; readonly limit: number }): Promise<StaleCounts> {
    const { dialect, sql } = this.#prepare();
    for (;;) {
      const ids = await this.#nextStale(before, Math.min(limit, MAX_ROWS));
      if (ids.length === 0) {
        await dialect.run(sql.expungeRevocations(before));
        return { visits: 0, identities: 0 };
      }
      const [, identities, visits] = (await dialect.atomic(sql.expunge(ids, before))) ?? [];
      // None left of them: another machine took them, or they came to life. Zero would say that all is done.
      if (visits?.affected) return { visits: visits.affected, identities: identities?.affected ?? 0 };
    }
  }

  async countStale(before: number): Promise<StaleCounts> {
    const { visits, identities } = this.#prepare().sql.countStale(before);
    return { visits: await this.#count(visits), identities: await this.#count(identities) };
  }

  async wipe({ before, limit }: { readonly before: number; readonly limit: number }): Promise<number> {
    const { dialect, sql } = this.#prepare();
    // Batches of one run continue where the last one ended, instead of passing by all that is wiped already.
    let from = this.#wiped.before === before ? this.#wiped.from : 0;
    for (;;) {
      const { rows } = await dialect.run(sql.unwiped({ from, before, limit: Math.min(limit, MAX_ROWS) }));
      const last = rows.at(-1);
      if (!last && from === 0) return 0;
      from = last ? Number(last.expiry) : 0;
      this.#wiped = { before, from };
      if (!last) continue;
      const { affected } = await dialect.run(sql.wipe(rows.map(({ id }) => String(id)).sort(), before));
      if (affected > 0) return affected;
    }
  }

  async countUnwiped(before: number): Promise<number> {
    return this.#count(this.#prepare().sql.countUnwiped(before));
  }

  async close(): Promise<void> {
    if (this.#owned && this.dataSource.isInitialized) await this.dataSource.destroy();
  }

  #prepare() {
    return (this.#prepared ??= prepare(this.dataSource));
  }

  async #probe(probe: Statement, table: string): Promise<void> {
    const { dialect } = this.#prepare();
    try {
      await dialect.run(probe);
    } catch (error) {
      if (!dialect.isSchemaError(error)) throw error;
      throw new VisitSchemaError(
        `table "${table}" is missing or lacks a column (${(error as Error).message}): add \`visitMigrations\` to \`migrations\` of the ` +
          'data source and run them (`dataSource.runMigrations()`, or `migrationsRun: true`)',
        { cause: error },
      );
    }
  }

  /** The ids that were saved. Either a group tells which of it were, or all or none of it are. */
  async #saveGroup(saves: readonly SessionSave[]): Promise<Set<string>> {
    const { dialect, sql } = this.#prepare();
    try {
      const { rows, affected } = await dialect.run(sql.save(saves));
      if (dialect.returning) return new Set(rows.map(({ id }) => String(id)));
      const ids = saves.map(({ id }) => id);
      if (affected === ids.length) return new Set(ids);
      // All that were there.
      const stored = await this.find(ids);
      return new Set(ids.filter((_, index) => stored[index]));
    } catch (error) {
      if (dialect.isUnmet(error)) return new Set();
      throw error;
    }
  }

  async #rekeyOne(change: Rekey): Promise<RekeyResult> {
    const { dialect, sql } = this.#prepare();
    const statements = sql.rekey(change);
    for (let puzzles = 0; puzzles <= MAX_PUZZLES; puzzles++) {
      const [only] = statements.length === 1 ? statements : [];
      const isDone = only ? (await dialect.run(only)).affected === 1 : (await dialect.atomic(statements)) !== null;
      if (isDone) return { outcome: 'done' };
      const [stored = null] = await this.find([change.id]);
      const reason = refusalOf(stored, rekeyGuard(change));
      if (reason) return { outcome: 'refused', reason };
    }
    throw puzzle('rekey');
  }

  /**
   * The next of the stale visits, in the order of their keys; none: there are no more. Machines that do this at the same
   * time go the same way, and so past each other: in different orders, neighbouring rows make them wait in a circle.
   */
  async #nextStale(before: number, limit: number): Promise<string[]> {
    if (this.#stale.before !== before || this.#stale.ids.length === 0) {
      this.#stale = { before, ids: (await this.#staleIds(before)).sort() };
    }
    return this.#stale.ids.splice(0, limit);
  }

  async #staleIds(before: number): Promise<string[]> {
    const { dialect, sql } = this.#prepare();
    const ids = new Set<string>();
    for (const column of ['expiry', 'endedAt'] as const) {
      if (ids.size >= STALE_IDS) break;
      const { rows } = await dialect.run(sql.staleIds(column, before, STALE_IDS - ids.size));
      for (const { id } of rows) ids.add(String(id));
    }
    return [...ids];
  }

  async #count(statement: Statement): Promise<number> {
    const { rows } = await this.#prepare().dialect.run(statement);
    return Number(rows[0]?.count);
  }
}

function prepare(dataSource: DataSource) {
  const dialect = dialectOf(dataSource);
  if (!dataSource.isInitialized) throw new VisitOptionError('the data source is not initialized: await `dataSource.initialize()` first');
  const visit = namesOf(dataSource, Visit);
  const identity = namesOf(dataSource, VisitIdentity);
  const revocation = namesOf(dataSource, VisitRevocation);
  if (!visit || !identity || !revocation) {
    const missing = !visit ? 'Visit' : !identity ? 'VisitIdentity' : 'VisitRevocation';
    throw new VisitOptionError(`the data source does not know the entity ${missing}: add \`...visitEntities\` to its \`entities\``);
  }
  return {
    dialect,
    sql: new VisitSql(dialect, visit, identity, revocation),
    visitTable: visit.path,
    identityTable: identity.path,
    revocationTable: revocation.path,
  };
}

/** The first saves that can go in one statement: each visit once, ordered by id, bounded in number and size. */
function nextGroup<E extends { save: SessionSave }>(entries: readonly E[], most: number): E[] {
  const group = new Map<string, E>();
  let bytes = 0;
  for (const entry of entries) {
    const { id, data } = entry.save;
    bytes += data?.length ?? 0;
    if (group.size >= most || (bytes > MAX_BYTES && group.size > 0)) break;
    if (!group.has(id)) group.set(id, entry);
  }
  return [...group.values()].sort((a, b) => byId(a.save, b.save));
}

function chunks<T>(items: readonly T[], bytesOf: (item: T) => number | undefined = () => 0): T[][] {
  const all: T[][] = [];
  let bytes = 0;
  for (const item of items) {
    const size = bytesOf(item) ?? 0;
    bytes += size;
    const current = all.at(-1);
    if (current && current.length < MAX_ROWS && bytes <= MAX_BYTES) {
      current.push(item);
    } else {
      all.push([item]);
      bytes = size;
    }
  }
  return all;
}

function byId(a: { id: string }, b: { id: string }): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function puzzle(method: string): Error {
  return new Error(`[visit] ${method}: the database refuses a write again and again, though nothing speaks against it`);
}
