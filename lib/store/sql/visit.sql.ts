import { createHash } from 'node:crypto';
import { EVERYBODY, NO_ID, userHashOf, type StalePlace, type VisitToEnd } from '../table-visit.store.js';
import { rowWriter, type Writers } from '../record.rows.js';
import { toConfidential } from '../sql.values.js';
import {
  columnNameOf,
  IDENTITY_COLUMNS,
  IDENTITY_FIELDS,
  listed,
  LISTED_COLUMNS,
  LOCK_COLUMNS,
  namesIn,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type Column,
  type IdentityColumn,
  type LockColumn,
  type RevocationColumn,
  type VisitColumn,
} from '../visit.columns.js';
import { rekeyGuard } from '../visit.record.js';
import type { Lock, UserList } from '../visit.facets.js';
import type { Ending, IdentityRecord, Rekey, SessionSave, Touch, VisitRecord, WriteGuard } from '../visit.store.js';
import type { SqlDialect } from './sql.dialect.js';
import type { Result, Statement, Step } from './statement.js';

/** The names of a table and its columns, not yet escaped. */
export interface SqlTable<Name extends string> {
  /** With schema or database, if there is one: `['app', 'visit']`. */
  readonly path: readonly string[];
  readonly columns: Readonly<Record<Name, string>>;
}

/** The three tables. */
export interface VisitTables {
  readonly visit: SqlTable<VisitColumn | LockColumn>;
  readonly identity: SqlTable<IdentityColumn | 'visitId'>;
  readonly revocation: SqlTable<RevocationColumn>;
}

type Names<Table extends keyof VisitTables> = VisitTables[Table]['columns'];

/** The columns of each table. */
export const TABLE_COLUMNS = {
  visit: { ...VISIT_COLUMNS, ...LOCK_COLUMNS },
  identity: { visitId: VISIT_COLUMNS.id, ...IDENTITY_COLUMNS },
  revocation: REVOCATION_COLUMNS,
} as const satisfies { readonly [Table in keyof VisitTables]: Readonly<Record<keyof Names<Table>, Column>> };

/**
 * The tables with their default names.
 *
 * @param schema their schema; for MySQL, their database
 */
export function visitTablesIn(schema?: string): VisitTables {
  const table = <Name extends string>(name: string, columns: Readonly<Record<Name, Column>>): SqlTable<Name> => ({
    path: schema === undefined ? [name] : [schema, name],
    columns: Object.fromEntries(namesIn(columns).map((column) => [column, columnNameOf(column)])) as Record<
      Name,
      string
    >,
  });
  const { visit, identity, revocation } = TABLE_COLUMNS;
  return {
    visit: table('visit', visit),
    identity: table('visit_identity', identity),
    revocation: table('visit_revocation', revocation),
  };
}

const VISIT_NAMES = namesIn(VISIT_COLUMNS);

const isNumber = ({ kind }: Column): boolean => kind === 'instant' || kind === 'count' || kind === 'flag';

const asIs = <T>(value: T): T => value;

/** The maximum number of visits in a touch that is kept prepared. */
const MAX_KEPT = 64;

/** The parameters of a save, for dialects that accept arrays. */
const SAVED: readonly { name: string; type: string; of: (save: SessionSave) => unknown }[] = [
  { name: 'saved_id', type: 'text', of: ({ id }) => id },
  { name: 'saved_data', type: 'bytea', of: ({ data }) => data && toConfidential(data) },
  { name: 'saved_version', type: 'bigint', of: ({ version }) => version },
  { name: 'saved_key', type: 'text', of: ({ keyHash }) => keyHash },
  { name: 'saved_at', type: 'bigint', of: ({ now }) => now },
  { name: 'saved_owner', type: 'text', of: ({ lockOwner }) => lockOwner ?? null },
];

/**
 * All statements of a store over SQL, as text with `?` for each parameter. Every write except an insert finds its rows
 * by primary key, and repeats the conditions that must hold. These conditions are written so that no index can be used
 * for them (`ended_at + 0`): a planner with outdated statistics would otherwise scan all visits that have not ended.
 */
export class VisitSql {
  readonly #dialect: SqlDialect;
  readonly #tables: VisitTables;
  /** Escaped names. */
  readonly #visit: string;
  readonly #identity: string;
  readonly #revocation: string;
  readonly #v: Names<'visit'>;
  readonly #i: Names<'identity'>;
  readonly #r: Names<'revocation'>;
  readonly #select: string;
  /** Without session data. */
  readonly #list: string;
  readonly #isLive: string;
  /** The name of the prepared statement. */
  readonly #createName: string;
  readonly #findName: string;
  readonly #saveName: string;
  readonly #touchName: string;
  readonly #visitValues: (visit: VisitRecord) => unknown[];
  readonly #identityValues: (identity: IdentityRecord) => unknown[];

  constructor(dialect: SqlDialect, tables: VisitTables) {
    const escaped = <Name extends string>(
      { columns }: SqlTable<Name>,
      given: Readonly<Record<Name, Column>>,
    ): Record<Name, string> =>
      Object.fromEntries(namesIn(given).map((name) => [name, dialect.escape(columns[name])])) as Record<Name, string>;
    const pathOf = ({ path }: SqlTable<never>): string => path.map((name) => dialect.escape(name)).join('.');
    this.#dialect = dialect;
    this.#tables = tables;
    [this.#visit, this.#identity, this.#revocation] = [
      pathOf(tables.visit),
      pathOf(tables.identity),
      pathOf(tables.revocation),
    ];
    this.#v = escaped(tables.visit, TABLE_COLUMNS.visit);
    this.#i = escaped(tables.identity, TABLE_COLUMNS.identity);
    this.#r = escaped(tables.revocation, TABLE_COLUMNS.revocation);
    const flag = (value: boolean): unknown => dialect.flag(value);
    const writers: Writers = {
      hex: asIs,
      text: asIs,
      exact: asIs,
      instant: asIs,
      count: asIs,
      flag,
      bytes: toConfidential,
    };
    this.#visitValues = rowWriter(VISIT_COLUMNS, writers);
    this.#identityValues = rowWriter(IDENTITY_COLUMNS, writers);
    this.#isLive = `${this.#v.endedAt} + 0 IS NULL`;
    const read = (field: string, column: Column, name: string): string =>
      `${isNumber(column) ? dialect.readNumber(name) : name} AS "${field}"`;
    const select = (given: Readonly<Partial<Record<VisitColumn, Column>>>): string => {
      const columns = [
        ...listed(given as Record<VisitColumn, Column>).map((column) =>
          read(column.name, column, `v.${this.#v[column.name]}`),
        ),
        ...listed(IDENTITY_COLUMNS).map((column) =>
          read(IDENTITY_FIELDS[column.name], column, `i.${this.#i[column.name]}`),
        ),
      ];
      return (
        `SELECT ${columns.join(', ')} FROM ${this.#visit} v LEFT JOIN ${this.#identity} i ON i.${this.#i.visitId} ` +
        `= v.${this.#v.id}`
      );
    };
    this.#select = select(VISIT_COLUMNS);
    this.#list = select(LISTED_COLUMNS);
    // Stores with other tables may share the connections.
    const shared = hashOf(`${this.#select} ${this.#v.lockOwner}`).slice(0, 12);
    this.#createName = `nest-visit-create-${shared}`;
    this.#findName = `nest-visit-find-${shared}`;
    this.#saveName = `nest-visit-save-${shared}`;
    this.#touchName = `nest-visit-touch-${shared}`;
  }

  /**
   * For each table, a statement that returns nothing, but fails if a column of this version of the schema is missing.
   * Columns are qualified, because SQLite treats an unknown quoted name as text.
   */
  probes(version: number): { readonly table: string; readonly statement: Statement }[] {
    const probe = (
      table: string,
      { path }: SqlTable<never>,
      names: Readonly<Record<string, string>>,
      columns: Readonly<Record<string, Column>>,
    ) => {
      const needed = listed(columns).filter(({ since }) => since <= version);
      const sql = `SELECT ${needed.map(({ name }) => `t.${names[name]}`).join(', ')} FROM ${table} t WHERE 1 = 0`;
      return { table: path.join('.'), statement: { sql, params: [] } };
    };
    const { visit, identity, revocation } = this.#tables;
    return [
      probe(this.#visit, visit, this.#v, TABLE_COLUMNS.visit),
      probe(this.#identity, identity, this.#i, TABLE_COLUMNS.identity),
      probe(this.#revocation, revocation, this.#r, TABLE_COLUMNS.revocation),
    ];
  }

  /**
   * For each table, the columns that need an index, and a statement that selects the first columns of existing indexes
   * as `first`.
   */
  get indexes(): { readonly table: string; readonly columns: readonly string[]; readonly statement: Statement }[] {
    const indexesOf = <Name extends string>(
      { path, columns: names }: SqlTable<Name>,
      columns: Readonly<Record<Name, Column>>,
    ) => ({
      table: path.join('.'),
      columns: listed(columns).flatMap(({ name, indexed }) => (indexed ? names[name] : [])),
      statement: this.#dialect.indexesOf(path),
    });
    const { visit, identity, revocation } = this.#tables;
    return [
      indexesOf(visit, TABLE_COLUMNS.visit),
      indexesOf(identity, TABLE_COLUMNS.identity),
      indexesOf(revocation, TABLE_COLUMNS.revocation),
    ];
  }

  /** The time of the server, in seconds. */
  get time(): Statement {
    return { sql: `SELECT ${this.#dialect.unixTime} AS "now"`, params: [] };
  }

  /** A write that matches no row. */
  get write(): Statement {
    const { id, sessionVersion } = this.#v;
    return { sql: `UPDATE ${this.#visit} SET ${sessionVersion} = ${sessionVersion} WHERE ${id} = ?`, params: [NO_ID] };
  }

  /** The complete rows of these visits, with their identities. */
  find(ids: readonly string[]): Statement {
    // PostgreSQL plans a prepared `= ANY` each time, and `=` only once. This is noticeable if requests arrive one at a
    // time.
    if (ids.length === 1)
      return { sql: `${this.#select} WHERE v.${this.#v.id} = ?`, params: ids, name: `${this.#findName}-one` };
    const { sql, params } = this.#dialect.isOneOf(
      `v.${this.#v.id}`,
      this.#dialect.padded(ids, (id) => id),
    );
    return { sql: `${this.#select} WHERE ${sql}`, params, name: this.#findName };
  }

  /** New visits, all or none. */
  insertVisits(visits: readonly VisitRecord[]): Statement {
    const statement = insert(
      this.#visit,
      VISIT_NAMES.map((name) => this.#v[name]),
      visits.map(this.#visitValues),
    );
    // The usual one. With an identity, it is part of a transaction, which would not survive a statement that can no
    // longer be prepared.
    return visits.length === 1 && !visits[0]?.identity ? { ...statement, name: this.#createName } : statement;
  }

  /** The identities of new visits that have one. */
  insertIdentities(visits: readonly VisitRecord[]): Statement {
    const rows = visits.flatMap(({ id, identity }) => (identity ? [[id, ...this.#identityValues(identity)]] : []));
    return insert(this.#identity, Object.values(this.#i), rows);
  }

  /**
   * If the dialect supports it, the statement returns the ids that it has written; otherwise it writes all of them or
   * none.
   */
  save(saves: readonly SessionSave[]): Statement {
    return this.#dialect.arrays ? this.#saveByArrays(saves) : this.#saveByCases(saves);
  }

  #saveByArrays(saves: readonly SessionSave[]): Statement {
    const v = this.#v;
    const values = SAVED.map(({ type }) => `CAST(? AS ${type}[])`).join(', ');
    const names = SAVED.map(({ name }) => name).join(', ');
    const { sql: isAmong, params } = this.#isAmong(saves.map(({ id }) => id));
    return {
      sql:
        `${this.#update} SET ${v.sessionData} = saves.saved_data, ${v.sessionVersion} = ${v.sessionVersion} + 1` +
        ` FROM unnest(${values}) AS saves (${names})` +
        ` WHERE ${v.id} = saves.saved_id AND ${isAmong} AND ${this.#isLive}` +
        ` AND ${v.sessionVersion} = saves.saved_version AND ${this.#guard('saves.saved_key', 'saves.saved_at')}` +
        ' AND (saves.saved_owner IS NULL' +
        ` OR (${v.lockOwner} = saves.saved_owner AND ${v.lockedUntil} > saves.saved_at))` +
        ` RETURNING ${v.id} AS "id"`,
      params: [...SAVED.map(({ of }) => saves.map(of)), ...params],
      name: this.#saveName,
    };
  }

  #saveByCases(given: readonly SessionSave[]): Statement {
    const v = this.#v;
    const { returning, bytes } = this.#dialect;
    // The first matching case applies.
    const saves = this.#dialect.padded(given, (save) => ({ ...save, data: null }));
    const locked = (save: SessionSave) =>
      save.lockOwner === undefined ? '' : ` AND ${v.lockOwner} = ? AND ${v.lockedUntil} > ?`;
    const conditions = saves
      .map((save) => `WHEN ? THEN ${v.sessionVersion} = ? AND ${this.#guard()}${locked(save)}`)
      .join(' ');
    const { sql: isAmong, params } = this.#isAmong(saves.map(({ id }) => id));
    const isLive = this.#dialect.allOrNone(`${this.#isLive} AND CASE ${v.id} ${conditions} END`, v.sessionVersion);
    return {
      sql:
        `${this.#update} SET ${v.sessionData} = CASE ${v.id}` +
        ` ${saves.map(() => `WHEN ? THEN ${bytes}`).join(' ')} END,` +
        ` ${v.sessionVersion} = ${v.sessionVersion} + 1 WHERE ${isAmong} AND ${isLive}` +
        (returning ? ` RETURNING ${v.id} AS "id"` : ''),
      params: [
        ...saves.flatMap((save) => [save.id, save.data && toConfidential(save.data)]),
        ...params,
        ...saves.flatMap((save) => [
          save.id,
          save.version,
          ...guardParams(save),
          ...(save.lockOwner === undefined ? [] : [save.lockOwner, save.now]),
        ]),
      ],
      ...(saves.every(({ lockOwner }) => lockOwner === undefined) && { name: this.#saveName }),
    };
  }

  /** Sets when the visits were used and when they expire. Neither moves back, and ended visits are not changed. */
  touch(touches: readonly Required<Touch>[]): Statement {
    const { id, accessed, expiry, keyChanged } = this.#v;
    // A long one would take a connection more memory than preparing it anew costs.
    const isKept = !this.#dialect.arrays && touches.length <= MAX_KEPT;
    const rows = isKept ? this.#dialect.padded(touches, (touch) => touch) : touches;
    const chosen = `CASE ${id} ${rows.map(() => `WHEN ? THEN ${this.#dialect.number}`).join(' ')} END`;
    const forward = (column: string) => `${column} = ${this.#dialect.greatest}(${column}, ${chosen})`;
    const { sql: isAmong, params } = this.#isAmong(rows.map((touch) => touch.id));
    return {
      sql:
        `${this.#update} SET ${forward(accessed)}, ${forward(expiry)}` +
        ` WHERE ${isAmong} AND ${this.#isLive} AND ${keyChanged} + 0 <= ${chosen}`,
      params: [
        ...rows.flatMap((touch) => [touch.id, touch.accessed]),
        ...rows.flatMap((touch) => [touch.id, touch.expiry]),
        ...params,
        ...rows.flatMap((touch) => [touch.id, touch.keyChanged]),
      ],
      isIdempotent: true,
      ...(isKept && { name: this.#touchName }),
    };
  }

  /** Sets the new key and, in a second statement, the identity if it changes. */
  rekey(change: Rekey): Statement[] {
    const v = this.#v;
    // MySQL assigns from left to right: the old hash must be read before it is replaced.
    const { previousKeyHash } = change;
    const assignments = [`${v.previousKeyHash} = ${previousKeyHash === undefined ? v.keyHash : '?'}`];
    assignments.push(`${v.previousKeyUntil} = ?`, `${v.keyChanged} = ?`, `${v.keyHash} = ?`);
    const values: unknown[] = previousKeyHash === undefined ? [] : [previousKeyHash];
    values.push(change.previousKeyUntil, change.now, change.newKeyHash);
    if (change.permanent !== undefined) {
      assignments.push(`${v.permanent} = ?`);
      values.push(this.#dialect.flag(change.permanent));
    }
    if (change.expiry !== undefined) {
      const isRenewal = change.previousKeyUntil !== null;
      assignments.push(`${v.expiry} = ${isRenewal ? `${this.#dialect.greatest}(${v.expiry}, ?)` : '?'}`);
      values.push(change.expiry);
    }
    if (change.absoluteExpiry !== undefined) {
      assignments.push(`${v.absoluteExpiry} = ?`);
      values.push(change.absoluteExpiry);
    }
    const key: Statement = {
      sql: `${this.#update} SET ${assignments.join(', ')} WHERE ${v.id} = ? AND ${this.#isLive} AND ${this.#guard()}`,
      params: [...values, change.id, ...guardParams(rekeyGuard(change))],
      mustChange: 1,
    };
    return change.identity === undefined ? [key] : [key, this.#link(change)];
  }

  /** Takes the lock of a live visit with a valid key, if it is free, has expired, or belongs to the owner. */
  lock(lock: Lock): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const isFree = lock.renews
      ? `${lockOwner} = ? AND ${lockedUntil} > ?`
      : `(${lockOwner} IS NULL OR ${lockOwner} = ? OR ${lockedUntil} <= ?)`;
    return {
      sql:
        `${this.#update} SET ${lockOwner} = ?, ${lockedUntil} = ? WHERE ${id} = ? AND ${this.#isLive} AND ` +
        `${this.#guard()} AND ${isFree}`,
      params: [lock.owner, lock.until, lock.id, ...guardParams(lock), lock.owner, lock.now],
    };
  }

  /** Releases the lock if this owner still has it. */
  unlock(visitId: string, owner: string): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const sql =
      `${this.#update} SET ${lockOwner} = NULL, ${lockedUntil} = NULL` +
      ` WHERE ${id} = ? AND ${this.#isLive} AND ${lockOwner} = ?`;
    return { sql, params: [visitId, owner], isIdempotent: true };
  }

  /** The owner of the lock, and its expiry. */
  lease(visitId: string): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const columns = `${lockOwner} AS "lockOwner", ${lockedUntil} AS "lockedUntil"`;
    const sql = `SELECT ${columns} FROM ${this.#visit} WHERE ${id} = ?`;
    return { sql, params: [visitId] };
  }

  /**
   * `mark` becomes the owner of the locks. No two visits have the same key, and a key never returns to a visit that now
   * belongs to another user.
   */
  end(visits: readonly VisitToEnd[], { reason, at, retiresKey = false }: Ending, mark: string): Statement {
    const v = this.#v;
    const retired = retiresKey ? `${v.previousKeyUntil} = ?, ${v.keyChanged} = ?, ` : '';
    const ids = visits.map(({ id }) => id);
    const keyHashes = visits.flatMap(({ keyHash }) => keyHash ?? []);
    const among = ids.length === 1 ? { sql: `${v.id} = ?`, params: ids } : this.#isAmong(ids);
    const unchanged = keyHashes.length > 0 ? this.#dialect.isOneOf(v.keyHash, keyHashes) : { sql: '', params: [] };
    return {
      sql:
        `${this.#update} SET ${retired}${v.endedAt} = ?, ${v.endReason} = ?, ${v.sessionData} = NULL,` +
        ` ${v.sessionVersion} = ${v.sessionVersion} + 1, ${v.lockOwner} = ? WHERE ${among.sql} AND ${this.#isLive}` +
        (unchanged.sql && ` AND ${unchanged.sql}`) +
        (this.#dialect.returning ? ` RETURNING ${v.id} AS "id"` : ''),
      params: [...(retiresKey ? [at, at] : []), at, reason, mark, ...among.params, ...unchanged.params],
    };
  }

  /** The visits that `end` has marked. */
  marked(ids: readonly string[], mark: string): Statement {
    const { id, lockOwner } = this.#v;
    const { sql, params } = this.#dialect.isOneOf(id, ids);
    return {
      sql: `SELECT ${id} AS "id" FROM ${this.#visit} WHERE ${sql} AND ${lockOwner} = ?`,
      params: [...params, mark],
    };
  }

  /** Stores that all visits of the user end now; a later instant is kept. */
  revoke(userId: string, at: number): Statement {
    const { userHash, endedAt } = this.#r;
    const { sql, params } = insert(this.#revocation, [userHash, endedAt], [[userHashOf(userId), at]]);
    const stored = `${this.#revocation}.${endedAt}`;
    return {
      sql: `${sql} ${this.#dialect.onDuplicate(userHash)} ${endedAt} = ${this.#dialect.greatest}(${stored}, ?)`,
      params: [...params, at],
      isIdempotent: true,
    };
  }

  /** When all visits of the user were last ended. */
  revokedAt(userId: string): Statement {
    const { userHash, endedAt } = this.#r;
    return {
      sql: `SELECT MAX(${endedAt}) AS "endedAt" FROM ${this.#revocation} WHERE ${userHash} IN (?, ?)`,
      params: [userHashOf(userId), userHashOf(EVERYBODY)],
    };
  }

  /** Deletes such instants from before this one. */
  expungeRevocations(before: number): Statement {
    const sql = `DELETE FROM ${this.#revocation} WHERE ${this.#r.endedAt} < ?${this.#dialect.unbounded}`;
    return { sql, params: [before], isSlow: true };
  }

  /** The ids of visits that have not ended, in order, after `after`. */
  liveIds(after: string, limit: number): Statement {
    const { id, endedAt } = this.#v;
    const sql =
      `SELECT ${id} AS "id" FROM ${this.#visit} WHERE ${endedAt} IS NULL AND ${id} > ?` +
      ` ORDER BY ${id} LIMIT ${limit}`;
    return { sql, params: [after] };
  }

  /** The visits of a user that have not ended, whether expired or not. */
  keysOfUser(userId: string, except: string, limit: number): Statement {
    const v = this.#v;
    return {
      sql:
        `SELECT v.${v.id} AS "id", v.${v.keyHash} AS "keyHash" FROM ${this.#identity} i JOIN ${this.#visit} v ON ` +
        `v.${v.id} = i.${this.#i.visitId}` +
        ` WHERE ${this.#isOfUser} AND v.${v.endedAt} IS NULL AND v.${v.id} <> ? ORDER BY v.${v.id} LIMIT ${limit}`,
      params: [userId, userId, except],
    };
  }

  /** The live visits of a user, without session data: a page of them, the one that was used last first. */
  listForUser({ userId, now, limit, after }: UserList): Statement {
    const v = this.#v;
    const isBehind = after ? ` AND (v.${v.accessed} < ? OR (v.${v.accessed} = ? AND v.${v.id} > ?))` : '';
    return {
      sql:
        `${this.#list} WHERE ${this.#isOfUser} AND v.${v.endedAt} IS NULL AND v.${v.expiry} > ?${isBehind}` +
        ` ORDER BY v.${v.accessed} DESC, v.${v.id} LIMIT ${limit}`,
      params: [userId, userId, now, ...(after ? [after.accessed, after.accessed, after.id] : [])],
    };
  }

  /** The live visits after this id, without session data, in the order of ids. */
  liveVisits(after: string, limit: number, now: number): Statement {
    const { id, endedAt, expiry } = this.#v;
    return {
      sql:
        `${this.#list} WHERE v.${id} > ? AND v.${endedAt} IS NULL AND v.${expiry} > ? ORDER BY v.${id} LIMIT ` + limit,
      params: [after || NO_ID, now],
    };
  }

  /** The user agents with which the user had signed in before this instant, including those of ended visits. */
  userAgentsOf(userId: string, before: number): Statement {
    const [v, i] = [this.#v, this.#i];
    return {
      sql:
        `SELECT DISTINCT v.${v.userAgent} AS "userAgent" FROM ${this.#identity} i JOIN ${this.#visit} v ON ` +
        `v.${v.id} = i.${i.visitId}` +
        ` WHERE ${this.#isOfUser} AND i.${i.created} < ?`,
      params: [userId, userId, before],
    };
  }

  /** Two statements, each on its index, instead of one with OR that may use none. See `TableVisitStore.staleBehind`. */
  staleIds(place: StalePlace, before: number, limit: number): Statement {
    const { id, expiry, [place.column]: column } = this.#v;
    // The first condition uses the index: after an instant, or at this instant after an id.
    const isBehind = `${column} >= ? AND ${column} < ? AND (${column} > ? OR ${id} > ?)`;
    const isLeft = place.column === 'endedAt' ? ` AND ${expiry} + 0 >= ?` : '';
    return {
      sql:
        `SELECT ${id} AS "id", ${column} AS "instant" FROM ${this.#visit} WHERE ${isBehind}${isLeft}` +
        ` ORDER BY ${column}, ${id} LIMIT ${limit}`,
      params: [place.instant, before, place.instant, place.id, ...(isLeft ? [before] : [])],
      isSlow: true,
    };
  }

  /**
   * Locks those visits that are still stale, then deletes their identities, then the visits. The last two results are
   * the counts.
   */
  expunge(ids: readonly string[], before: number): [Step, Step, Step] {
    const { id, expiry, endedAt } = this.#v;
    const { lock, byPrimaryKey } = this.#dialect;
    const stale = `${id} IN (${marks(ids)}) AND (${expiry} + 0 < ? OR ${endedAt} + 0 < ?)`;
    const deleteThem = (table: string, key: string) => (results: readonly Result[]) => {
      const locked = results[0]?.rows.map((row) => String(row['id'])) ?? [];
      return this.#dialect.deleteAmong(table, key, locked);
    };
    return [
      {
        sql: `SELECT ${id} AS "id" FROM ${this.#visit}${byPrimaryKey} WHERE ${stale} ORDER BY ${id}${lock}`,
        params: [...ids, before, before],
        isSlow: true,
      },
      deleteThem(this.#identity, this.#i.visitId),
      deleteThem(this.#visit, id),
    ];
  }

  /** How many visits, and how many identities, a clean-up would delete. */
  countStale(before: number): { visits: Statement; identities: Statement } {
    const { id, expiry, endedAt } = this.#v;
    const where = `WHERE v.${expiry} < ? OR v.${endedAt} < ?`;
    const params = [before, before];
    const join = `JOIN ${this.#identity} i ON i.${this.#i.visitId} = v.${id}`;
    return {
      visits: { sql: `SELECT COUNT(*) AS "count" FROM ${this.#visit} v ${where}`, params, isSlow: true },
      identities: { sql: `SELECT COUNT(*) AS "count" FROM ${this.#visit} v ${join} ${where}`, params, isSlow: true },
    };
  }

  /** Expired visits with session data, the earliest expiry first. */
  unwiped({ from, before, limit }: { from: number; before: number; limit: number }): Statement {
    const { id, expiry, sessionData } = this.#v;
    return {
      sql:
        `SELECT ${id} AS "id", ${expiry} AS "expiry" FROM ${this.#visit}` +
        ` WHERE ${expiry} >= ? AND ${expiry} < ? AND ${sessionData} IS NOT NULL ORDER BY ${expiry} LIMIT ${limit}`,
      params: [from, before],
      isSlow: true,
    };
  }

  /** Deletes the session data of those of these visits that expired before this instant. */
  wipe(ids: readonly string[], before: number): Statement {
    const { expiry, sessionData, sessionVersion } = this.#v;
    const { sql: isAmong, params } = this.#isAmong(ids);
    return {
      sql:
        `${this.#update} SET ${sessionData} = NULL, ${sessionVersion} = ${sessionVersion} + 1` +
        ` WHERE ${isAmong} AND ${expiry} + 0 < ? AND ${sessionData} IS NOT NULL`,
      params: [...params, before],
      isSlow: true,
    };
  }

  /** The number of visits with session data that expired before this instant. */
  countUnwiped(before: number): Statement {
    const { expiry, sessionData } = this.#v;
    const sql = `SELECT COUNT(*) AS "count" FROM ${this.#visit} WHERE ${expiry} < ? AND ${sessionData} IS NOT NULL`;
    return { sql, params: [before], isSlow: true };
  }

  get #update(): string {
    return `UPDATE ${this.#visit}${this.#dialect.byPrimaryKey}`;
  }

  #isAmong(ids: readonly string[]): Statement {
    return this.#dialect.isAmong(this.#visit, this.#v.id, ids);
  }

  /** The condition that the key of a write is valid. */
  #guard(hash = '?', at = '?'): string {
    const { keyHash, previousKeyHash, previousKeyUntil } = this.#v;
    return `(${keyHash} = ${hash} OR (${previousKeyHash} = ${hash} AND ${previousKeyUntil} > ${at}))`;
  }

  get #isOfUser(): string {
    return this.#dialect.sameText(`i.${this.#i.userId}`);
  }

  #link({ id, identity }: Rekey): Statement {
    const i = this.#i;
    if (!identity) return { sql: `DELETE FROM ${this.#identity} WHERE ${i.visitId} = ?`, params: [id] };
    const values = this.#identityValues(identity);
    const { sql, params } = insert(this.#identity, Object.values(i), [[id, ...values]]);
    const assignments = namesIn(IDENTITY_COLUMNS)
      .map((name) => `${i[name]} = ?`)
      .join(', ');
    return { sql: `${sql} ${this.#dialect.onDuplicate(i.visitId)} ${assignments}`, params: [...params, ...values] };
  }
}

function insert(table: string, columns: readonly string[], rows: readonly (readonly unknown[])[]): Statement {
  const values = rows.map((row) => `(${marks(row)})`).join(', ');
  return { sql: `INSERT INTO ${table} (${columns.join(', ')}) VALUES ${values}`, params: rows.flat() };
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function guardParams({ keyHash, now }: WriteGuard): unknown[] {
  return [keyHash, keyHash, now];
}

/** For an empty list `NULL`: valid, and equal to nothing. */
function marks(values: readonly unknown[]): string {
  return values.map(() => '?').join(', ') || 'NULL';
}
