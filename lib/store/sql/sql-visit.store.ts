import { VisitSchemaError } from '../../errors/visit.error.js';
import type { Settings } from '../server-rules.js';
import { bytesFor, mostBytes, tooLong } from '../statement-size.js';
import {
  chunks,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  TableVisitStore,
  unexplainedRefusal,
  type Reference,
  type StalePlace,
  type VisitToEnd,
} from '../table-visit.store.js';
import type { ListPosition, Lock, StaleCounts, UserList, VisitPage, VisitServer } from '../visit.facets.js';
import { refusalOf, rekeyGuard } from '../visit.record.js';
import type { Ending, Rekey, RekeyResult, SaveResult, SessionSave, Touch, VisitRecord } from '../visit.store.js';
import { saveInGroups } from './group-save.js';
import { missingIndexes } from './missing-indexes.js';
import { missingSchema, type MissingSchema } from './schema-check.js';
import { checkServer } from './server-check.js';
import type { SqlAccess } from './sql.connection.js';
import type { Statement } from './statement.js';
import { listedOf, recordOf } from './visit.row.js';

/**
 * The base class of stores over SQL, such as those for TypeORM, Kysely and Drizzle. `VisitSql` creates all statements,
 * and the dialect of the connection interprets errors.
 */
export abstract class SqlVisitStore extends TableVisitStore implements VisitServer {
  override readonly server = this;
  protected readonly staleIdsAtOnce: number = 20_000;
  readonly #findEach = (ids: readonly string[]) => this.findEach(ids);

  /** The number of concurrent calls. Undefined: no limit. */
  abstract readonly connections: number | undefined;

  /** The connection and the statements. Called for each statement, so create them once. */
  protected abstract access(): SqlAccess;

  /** How to create the missing tables or columns. */
  protected abstract remedyFor(missing: MissingSchema): string | Promise<string>;

  /** See `VisitServer.setDeadline`. */
  setDeadline(milliseconds: number): void {
    this.access().connection.limit?.(milliseconds);
  }

  /** @throws VisitSchemaError, VisitServerSettingError */
  async check(): Promise<void> {
    await this.checkDatabase();
  }

  /** Checks the database. Returns the settings of the server; none for SQLite. */
  protected async checkDatabase(): Promise<Settings> {
    const { connection, sql } = this.access();
    const missing = await missingSchema(connection, sql);
    if (missing) {
      const { table, error } = missing;
      const what = `table "${table}" is missing or lacks a column (${error.message})`;
      throw new VisitSchemaError(`${what}; ${await this.remedyFor(missing)}`, { cause: error });
    }
    return checkServer(connection, sql.write);
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const { connection, sql } = this.access();
    const found = new Map<string, VisitRecord>();
    for (const chunk of chunks(ids)) {
      const { rows } = await connection.run(sql.find(chunk));
      for (const row of rows) {
        const record = recordOf(row);
        if (record) found.set(record.id, record);
      }
    }
    return ids.map((id) => found.get(id) ?? null);
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const { connection, sql } = this.access();
    const longest = connection.dialect.longestStatement;
    const linked = visits.filter(({ identity }) => identity);
    for (const { sessionData } of visits) {
      const error = tooLong(sessionData, longest);
      if (error) throw error;
    }
    const statements = [
      ...chunks(visits, (visit) => bytesFor(visit.sessionData), mostBytes(longest)).map((chunk) =>
        sql.insertVisits(chunk),
      ),
      ...chunks(linked).map((chunk) => sql.insertIdentities(chunk)),
    ];
    const [only] = statements;
    if (only) await (statements.length === 1 ? connection.run(only) : connection.atomic(statements));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return saveInGroups(saves, this.access(), this.#findEach);
  }

  async unlock(id: string, owner: string): Promise<void> {
    const { connection, sql } = this.access();
    await connection.run(sql.unlock(id, owner));
  }

  async listForUser({ limit, ...list }: UserList): Promise<VisitPage<ListPosition>> {
    const { connection, sql } = this.access();
    const most = Math.min(limit, MAX_ROWS);
    const { rows } = await connection.run(sql.listForUser({ ...list, limit: most + 1 }));
    const page = rows.slice(0, most);
    const last = rows.length > most ? page.at(-1) : undefined;
    return {
      visits: page.flatMap((row) => listedOf(row) ?? []),
      next: last ? { accessed: Number(last['accessed']), id: String(last['id']) } : null,
    };
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.liveVisits(after, Math.min(limit, MAX_ROWS), now));
    const last = rows.at(-1);
    return { visits: rows.flatMap((row) => listedOf(row) ?? []), next: last ? String(last['id']) : null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.userAgentsOf(userId, before));
    return rows.map(({ userAgent }) => userAgent as string | null);
  }

  async revokedAt(userId: string): Promise<number | null> {
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.revokedAt(userId));
    const at = rows[0]?.['endedAt'] ?? null;
    return at === null ? null : Number(at);
  }

  protected async countStale(before: number): Promise<StaleCounts> {
    const { visits, identities } = this.access().sql.countStale(before);
    return { visits: await this.#count(visits), identities: await this.#count(identities) };
  }

  protected async countUnwiped(before: number): Promise<number> {
    return this.#count(this.access().sql.countUnwiped(before));
  }

  async serverTime(): Promise<number> {
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.time);
    return Number(rows[0]?.['now']) * 1000;
  }

  /** See `VisitServer.missingIndexes`. */
  async missingIndexes(): Promise<string[]> {
    const { connection, sql } = this.access();
    return missingIndexes((statement) => connection.run(statement), sql);
  }

  protected async touchEach(touches: readonly Required<Touch>[]): Promise<void> {
    const { connection, sql } = this.access();
    for (const chunk of chunks(touches)) await connection.run(sql.touch(chunk));
  }

  protected async rekeyOne(change: Rekey): Promise<RekeyResult> {
    const { connection, sql } = this.access();
    const statements = sql.rekey(change);
    for (let unexplained = 0; unexplained <= MAX_UNEXPLAINED; unexplained++) {
      const [only] = statements.length === 1 ? statements : [];
      const isDone = only
        ? (await connection.run(only)).affected === 1
        : (await connection.atomic(statements)) !== null;
      if (isDone) return { outcome: 'done' };
      const [stored = null] = await this.find([change.id]);
      const reason = refusalOf(stored, rekeyGuard(change));
      if (reason) return { outcome: 'refused', reason };
    }
    throw unexplainedRefusal('rekey');
  }

  protected async takeLock(lock: Lock): Promise<boolean> {
    const { connection, sql } = this.access();
    return (await connection.run(sql.lock(lock))).affected > 0;
  }

  protected async endThese(
    visits: readonly VisitToEnd[],
    ending: Ending,
    mark: string,
  ): Promise<readonly string[] | undefined> {
    const { connection, sql } = this.access();
    const { rows, affected } = await connection.run(sql.end(visits, ending, mark));
    if (connection.dialect.returning) return rows.map(({ id }) => String(id));
    if (affected === 0) return [];
    return affected === visits.length ? visits.map(({ id }) => id) : undefined;
  }

  protected markedIds(ids: readonly string[], mark: string): Promise<string[]> {
    return this.#ids(this.access().sql.marked(ids, mark));
  }

  protected async remember(userId: string, at: number): Promise<void> {
    const { connection, sql } = this.access();
    await connection.run(sql.revoke(userId, at));
  }

  protected async keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]> {
    const { connection, sql } = this.access();
    return (await connection.run(sql.keysOfUser(userId, except, most))).rows as unknown as Required<VisitToEnd>[];
  }

  protected liveIds(after: string, most: number): Promise<string[]> {
    return this.#ids(this.access().sql.liveIds(after, most));
  }

  protected async staleBehind(
    place: StalePlace,
    before: number,
    most: number,
  ): Promise<{ id: string; instant: number }[]> {
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.staleIds(place, before, most));
    return rows.map(({ id, instant }) => ({ id: String(id), instant: Number(instant) }));
  }

  protected async expungeThese(ids: readonly string[], before: number): Promise<StaleCounts> {
    const { connection, sql } = this.access();
    const [, identities, visits] = (await connection.atomic(sql.expunge(ids, before))) ?? [];
    return { visits: visits?.affected ?? 0, identities: identities?.affected ?? 0 };
  }

  protected referenceIn(error: unknown): Reference | undefined {
    return this.access().connection.dialect.referenceIn(error);
  }

  protected async expungeRevocations(before: number): Promise<void> {
    const { connection, sql } = this.access();
    await connection.run(sql.expungeRevocations(before));
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
    const { connection, sql } = this.access();
    const { rows } = await connection.run(sql.unwiped({ from, before, limit: most }));
    return rows.map(({ id, expiry }) => ({ id: String(id), expiry: Number(expiry) }));
  }

  protected async wipeThese(ids: readonly string[], before: number): Promise<number> {
    const { connection, sql } = this.access();
    return (await connection.run(sql.wipe(ids, before))).affected;
  }

  async #ids(statement: Statement): Promise<string[]> {
    const { rows } = await this.access().connection.run(statement);
    return rows.map(({ id }) => String(id));
  }

  async #count(statement: Statement): Promise<number> {
    const { rows } = await this.access().connection.run(statement);
    return Number(rows[0]?.count);
  }
}
