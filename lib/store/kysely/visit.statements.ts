import { toConfidential } from '../sql.values.js';
import { EVERYBODY, NO_ID, userHashOf, type StalePlace, type VisitToEnd } from '../table-visit.store.js';
import { IDENTITY_COLUMNS, IDENTITY_FIELDS, LISTED_COLUMNS, namesIn, VISIT_COLUMNS, type VisitColumn } from '../visit.columns.js';
import { rekeyGuard } from '../visit.record.js';
import type { Lock, UserList } from '../visit.facets.js';
import type { Ending, Rekey, SessionSave, Touch, VisitRecord, WriteGuard } from '../visit.store.js';
import type { Statement } from './kysely.connection.js';
import type { Dialect } from './kysely.dialects.js';
import { identityValues, visitValues } from './visit.row.js';
import type { Tables } from './visit.tables.js';

/** What a save brings along, for PostgreSQL, which takes it as arrays. */
const SAVED: readonly { name: string; type: string; of: (save: SessionSave) => unknown }[] = [
  { name: 'saved_id', type: 'text', of: ({ id }) => id },
  { name: 'saved_data', type: 'bytea', of: ({ data }) => data && toConfidential(data) },
  { name: 'saved_version', type: 'bigint', of: ({ version }) => version },
  { name: 'saved_key', type: 'text', of: ({ keyHash }) => keyHash },
  { name: 'saved_at', type: 'bigint', of: ({ now }) => now },
  { name: 'saved_owner', type: 'text', of: ({ lockOwner }) => lockOwner ?? null },
];

/**
 * All SQL of the store. Every write but an insert finds its rows by primary key, and says again what must hold of them. That condition is
 * written so that no index serves it (`ended_at + 0`): a planner with old statistics would otherwise go through all visits that have not
 * ended.
 */
export class VisitStatements {
  readonly #dialect: Dialect;
  readonly #visit: string;
  readonly #identity: string;
  readonly #revocation: string;
  readonly #v: Tables['visit']['columns'];
  readonly #i: Tables['identity']['columns'];
  readonly #r: Tables['revocation']['columns'];
  readonly #select: string;
  /** Without session data. */
  readonly #list: string;
  readonly #update: string;
  readonly #isLive: string;
  readonly #isOfUser: string;

  constructor(dialect: Dialect, { visit, identity, revocation }: Tables) {
    this.#dialect = dialect;
    [this.#visit, this.#identity, this.#revocation] = [visit.path, identity.path, revocation.path];
    const [v, i] = [visit.columns, identity.columns];
    [this.#v, this.#i, this.#r] = [v, i, revocation.columns];
    this.#update = `UPDATE ${this.#visit}${dialect.byPrimaryKey}`;
    this.#isLive = `${v.endedAt} + 0 IS NULL`;
    this.#isOfUser = dialect.sameText(`i.${i.userId}`);
    const select = (names: readonly VisitColumn[]): string => {
      const columns = [
        ...names.map((name) => `v.${v[name]} AS "${name}"`),
        ...namesIn(IDENTITY_COLUMNS).map((name) => `i.${i[name]} AS "${IDENTITY_FIELDS[name]}"`),
      ];
      return `SELECT ${columns.join(', ')} FROM ${this.#visit} v LEFT JOIN ${this.#identity} i ON i.${i.visitId} = v.${v.id}`;
    };
    this.#select = select(namesIn(VISIT_COLUMNS));
    this.#list = select(namesIn(LISTED_COLUMNS));
  }

  /** Read nothing, but fail if a column is not there. Columns are qualified: SQLite takes a lone quoted name it does not know for text. */
  get probes(): readonly { readonly table: string; readonly probe: Statement }[] {
    const probe = (table: string, columns: Readonly<Record<string, string>>) => {
      const names = Object.values(columns).map((column) => `t.${column}`);
      return { table, probe: { sql: `SELECT ${names.join(', ')} FROM ${table} t WHERE 1 = 0`, params: [] } };
    };
    return [probe(this.#visit, this.#v), probe(this.#identity, this.#i), probe(this.#revocation, this.#r)];
  }

  get serverTime(): Statement {
    return { sql: `SELECT ${this.#dialect.unixTime} AS "now"`, params: [] };
  }

  find(ids: readonly string[]): Statement {
    const { sql, params } = this.#dialect.isOneOf(`v.${this.#v.id}`, ids);
    return { sql: `${this.#select} WHERE ${sql}`, params };
  }

  insertVisits(visits: readonly VisitRecord[]): Statement {
    const columns = namesIn(VISIT_COLUMNS).map((name) => this.#v[name]);
    return insert(this.#visit, columns, visits.map(visitValues));
  }

  insertIdentities(visits: readonly VisitRecord[]): Statement {
    const rows = visits.flatMap(({ id, identity }) => (identity ? [[id, ...identityValues(identity)]] : []));
    return insert(this.#identity, Object.values(this.#i), rows);
  }

  /** With RETURNING, the ids that it has written; without, it writes all that are there, or by an error none. See `isUnmet`. */
  save(saves: readonly SessionSave[]): Statement {
    return this.#dialect.name === 'postgres' ? this.#saveByArrays(saves) : this.#saveByCases(saves);
  }

  #saveByArrays(saves: readonly SessionSave[]): Statement {
    const v = this.#v;
    const values = SAVED.map(({ type }) => `CAST(? AS ${type}[])`).join(', ');
    const { sql: isAmong, params } = this.#isAmong(saves.map(({ id }) => id));
    return {
      sql:
        `${this.#update} SET ${v.sessionData} = saves.saved_data, ${v.sessionVersion} = ${v.sessionVersion} + 1` +
        ` FROM unnest(${values}) AS saves (${SAVED.map(({ name }) => name).join(', ')})` +
        ` WHERE ${v.id} = saves.saved_id AND ${isAmong} AND ${this.#isLive}` +
        ` AND ${v.sessionVersion} = saves.saved_version AND ${this.#guard('saves.saved_key', 'saves.saved_at')}` +
        ` AND (saves.saved_owner IS NULL OR (${v.lockOwner} = saves.saved_owner AND ${v.lockedUntil} > saves.saved_at))` +
        ` RETURNING ${v.id} AS "id"`,
      params: [...SAVED.map(({ of }) => saves.map(of)), ...params],
    };
  }

  #saveByCases(saves: readonly SessionSave[]): Statement {
    const v = this.#v;
    const { returning } = this.#dialect;
    const locked = ({ lockOwner }: SessionSave) => (lockOwner === undefined ? '' : ` AND ${v.lockOwner} = ? AND ${v.lockedUntil} > ?`);
    const cases = saves.map((save) => `WHEN ? THEN ${v.sessionVersion} = ? AND ${this.#guard()}${locked(save)}`).join(' ');
    const { sql: isAmong, params } = this.#isAmong(saves.map(({ id }) => id));
    const holds = `${this.#isLive} AND CASE ${v.id} ${cases} END`;
    // One more than the largest number there is fails, whatever the SQL mode, and undoes the statement.
    const isWanted = returning ? holds : `IF(${holds}, TRUE, ~0 + ${v.sessionVersion} + 1)`;
    return {
      sql:
        `${this.#update} SET ${v.sessionData} = CASE ${v.id} ${saves.map(() => 'WHEN ? THEN ?').join(' ')} END,` +
        ` ${v.sessionVersion} = ${v.sessionVersion} + 1 WHERE ${isAmong} AND ${isWanted}` +
        (returning ? ` RETURNING ${v.id} AS "id"` : ''),
      params: [
        ...saves.flatMap(({ id, data }) => [id, data && toConfidential(data)]),
        ...params,
        ...saves.flatMap((save) => [
          save.id,
          save.version,
          ...guardParams(save),
          ...(save.lockOwner === undefined ? [] : [save.lockOwner, save.now]),
        ]),
      ],
    };
  }

  touch(touches: readonly Required<Touch>[]): Statement {
    const { id, accessed, expiry, keyChanged } = this.#v;
    const given = `CASE ${id} ${touches.map(() => `WHEN ? THEN ${this.#dialect.number}`).join(' ')} END`;
    const forward = (column: string) => `${column} = ${this.#dialect.greatest}(${column}, ${given})`;
    const { sql: isAmong, params } = this.#isAmong(touches.map((touch) => touch.id));
    return {
      sql:
        `${this.#update} SET ${forward(accessed)}, ${forward(expiry)}` +
        ` WHERE ${isAmong} AND ${this.#isLive} AND ${keyChanged} + 0 <= ${given}`,
      params: [
        ...touches.flatMap((touch) => [touch.id, touch.accessed]),
        ...touches.flatMap((touch) => [touch.id, touch.expiry]),
        ...params,
        ...touches.flatMap((touch) => [touch.id, touch.keyChanged]),
      ],
    };
  }

  rekey(change: Rekey): Statement {
    const v = this.#v;
    const { previousKeyHash, previousKeyUntil, now, newKeyHash, permanent, expiry, absoluteExpiry } = change;
    const sets: [text: string, ...values: unknown[]][] = [
      // First, because MySQL assigns from left to right: the old hash must be read before it is replaced.
      previousKeyHash === undefined ? [`${v.previousKeyHash} = ${v.keyHash}`] : [`${v.previousKeyHash} = ?`, previousKeyHash],
      [`${v.previousKeyUntil} = ?`, previousKeyUntil],
      [`${v.keyChanged} = ?`, now],
      [`${v.keyHash} = ?`, newKeyHash],
    ];
    if (permanent !== undefined) sets.push([`${v.permanent} = ?`, permanent ? 1 : 0]);
    if (absoluteExpiry !== undefined) sets.push([`${v.absoluteExpiry} = ?`, absoluteExpiry]);
    if (expiry !== undefined) {
      const isRenewal = previousKeyUntil !== null;
      sets.push([`${v.expiry} = ${isRenewal ? `${this.#dialect.greatest}(${v.expiry}, ${this.#dialect.number})` : '?'}`, expiry]);
    }
    return {
      sql: `${this.#update} SET ${sets.map(([text]) => text).join(', ')} WHERE ${v.id} = ? AND ${this.#isLive} AND ${this.#guard()}`,
      params: [...sets.flatMap(([, ...values]) => values), change.id, ...guardParams(rekeyGuard(change))],
    };
  }

  /** Whose the visit is from now on. */
  link({ id, identity }: Rekey): Statement {
    const i = this.#i;
    if (!identity) return { sql: `DELETE FROM ${this.#identity} WHERE ${i.visitId} = ?`, params: [id] };
    const values = identityValues(identity);
    const { sql, params } = insert(this.#identity, Object.values(i), [[id, ...values]]);
    const sets = namesIn(IDENTITY_COLUMNS).map((name) => `${i[name]} = ?`);
    return { sql: `${sql} ${this.#dialect.onDuplicate(i.visitId)} ${sets.join(', ')}`, params: [...params, ...values] };
  }

  lock(lock: Lock): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const isFree = lock.renews
      ? `${lockOwner} = ? AND ${lockedUntil} > ?`
      : `(${lockOwner} IS NULL OR ${lockOwner} = ? OR ${lockedUntil} <= ?)`;
    return {
      sql: `${this.#update} SET ${lockOwner} = ?, ${lockedUntil} = ? WHERE ${id} = ? AND ${this.#isLive} AND ${this.#guard()} AND ${isFree}`,
      params: [lock.owner, lock.until, lock.id, ...guardParams(lock), lock.owner, lock.now],
    };
  }

  unlock(visitId: string, owner: string): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const sql = `${this.#update} SET ${lockOwner} = NULL, ${lockedUntil} = NULL WHERE ${id} = ? AND ${this.#isLive} AND ${lockOwner} = ?`;
    return { sql, params: [visitId, owner] };
  }

  /** Who holds the lock, and until when. */
  lease(visitId: string): Statement {
    const { id, lockOwner, lockedUntil } = this.#v;
    const sql = `SELECT ${lockOwner} AS "lockOwner", ${lockedUntil} AS "lockedUntil" FROM ${this.#visit} WHERE ${id} = ?`;
    return { sql, params: [visitId] };
  }

  /** `mark` becomes the owner of the locks. No two visits have the same key, nor does a key come back to a visit whose user is another one. */
  end(visits: readonly VisitToEnd[], { reason, at, retiresKey = false }: Ending, mark: string): Statement {
    const v = this.#v;
    const retired = retiresKey ? `${v.previousKeyUntil} = ?, ${v.keyChanged} = ?, ` : '';
    const among = this.#isAmong(visits.map(({ id }) => id));
    const keyHashes = visits.flatMap(({ keyHash }) => keyHash ?? []);
    const unchanged = keyHashes.length > 0 ? this.#dialect.isOneOf(v.keyHash, keyHashes) : undefined;
    return {
      sql:
        `${this.#update} SET ${retired}${v.endedAt} = ?, ${v.endReason} = ?, ${v.sessionData} = NULL,` +
        ` ${v.sessionVersion} = ${v.sessionVersion} + 1, ${v.lockOwner} = ? WHERE ${among.sql} AND ${this.#isLive}` +
        (unchanged ? ` AND ${unchanged.sql}` : '') +
        (this.#dialect.returning ? ` RETURNING ${v.id} AS "id"` : ''),
      params: [...(retiresKey ? [at, at] : []), at, reason, mark, ...among.params, ...(unchanged?.params ?? [])],
    };
  }

  /** Those of the visits that `end` has marked so. */
  marked(ids: readonly string[], mark: string): Statement {
    const { id, lockOwner } = this.#v;
    const { sql, params } = this.#dialect.isOneOf(id, ids);
    return { sql: `SELECT ${id} AS "id" FROM ${this.#visit} WHERE ${sql} AND ${lockOwner} = ?`, params: [...params, mark] };
  }

  /** All visits of the user end now; what was remembered before, if it is later, stays. */
  revoke(userId: string, at: number): Statement {
    const { userHash, endedAt } = this.#r;
    const { greatest, number } = this.#dialect;
    const { sql, params } = insert(this.#revocation, [userHash, endedAt], [[userHashOf(userId), at]]);
    const latest = `${greatest}(${this.#revocation}.${endedAt}, ${number})`;
    return { sql: `${sql} ${this.#dialect.onDuplicate(userHash)} ${endedAt} = ${latest}`, params: [...params, at] };
  }

  revokedAt(userId: string): Statement {
    const { userHash, endedAt } = this.#r;
    return {
      sql: `SELECT MAX(${endedAt}) AS "endedAt" FROM ${this.#revocation} WHERE ${userHash} IN (?, ?)`,
      params: [userHashOf(userId), userHashOf(EVERYBODY)],
    };
  }

  expungeRevocations(before: number): Statement {
    return { sql: `DELETE FROM ${this.#revocation} WHERE ${this.#r.endedAt} < ?${this.#dialect.unbounded}`, params: [before] };
  }

  liveIds(after: string, most: number): Statement {
    const { id, endedAt } = this.#v;
    const sql = `SELECT ${id} AS "id" FROM ${this.#visit} WHERE ${endedAt} IS NULL AND ${id} > ? ORDER BY ${id} LIMIT ?`;
    return { sql, params: [after || NO_ID, most] };
  }

  keysOfUser(userId: string, except: string, most: number): Statement {
    const v = this.#v;
    return {
      sql:
        `SELECT v.${v.id} AS "id", v.${v.keyHash} AS "keyHash" FROM ${this.#identity} i JOIN ${this.#visit} v ON v.${v.id} = i.${this.#i.visitId}` +
        ` WHERE ${this.#isOfUser} AND v.${v.endedAt} IS NULL AND v.${v.id} <> ? ORDER BY v.${v.id} LIMIT ?`,
      params: [userId, userId, except || NO_ID, most],
    };
  }

  listForUser({ userId, now, limit, after }: UserList): Statement {
    const v = this.#v;
    const isBehind = after ? ` AND (v.${v.accessed} < ? OR (v.${v.accessed} = ? AND v.${v.id} > ?))` : '';
    return {
      sql:
        `${this.#list} WHERE ${this.#isOfUser} AND v.${v.endedAt} IS NULL AND v.${v.expiry} > ?${isBehind}` +
        ` ORDER BY v.${v.accessed} DESC, v.${v.id} LIMIT ?`,
      params: [userId, userId, now, ...(after ? [after.accessed, after.accessed, after.id] : []), limit],
    };
  }

  liveVisits(after: string, most: number, now: number): Statement {
    const { id, endedAt, expiry } = this.#v;
    return {
      sql: `${this.#list} WHERE v.${id} > ? AND v.${endedAt} IS NULL AND v.${expiry} > ? ORDER BY v.${id} LIMIT ?`,
      params: [after || NO_ID, now, most],
    };
  }

  userAgentsOf(userId: string, before: number): Statement {
    const [v, i] = [this.#v, this.#i];
    return {
      sql:
        `SELECT DISTINCT v.${v.userAgent} AS "userAgent" FROM ${this.#identity} i JOIN ${this.#visit} v ON v.${v.id} = i.${i.visitId}` +
        ` WHERE ${this.#isOfUser} AND i.${i.created} < ?`,
      params: [userId, userId, before],
    };
  }

  /** See `TableVisitStore.staleBehind`: a statement for each of the two indexes, instead of one with OR that may use none. */
  staleIds(place: StalePlace, before: number, most: number): Statement {
    const { id, expiry, [place.column]: column } = this.#v;
    const isLeft = place.column === 'endedAt' ? ` AND ${expiry} + 0 >= ?` : '';
    return {
      sql:
        `SELECT ${id} AS "id", ${column} AS "instant" FROM ${this.#visit}` +
        ` WHERE ${column} >= ? AND ${column} < ? AND (${column} > ? OR ${id} > ?)${isLeft} ORDER BY ${column}, ${id} LIMIT ?`,
      params: [place.instant, before, place.instant, place.id, ...(isLeft ? [before] : []), most],
    };
  }

  /** Locks those of the visits that are stale still. */
  lockStale(ids: readonly string[], before: number): Statement {
    const { id, expiry, endedAt } = this.#v;
    const { lock, byPrimaryKey } = this.#dialect;
    const { sql, params } = this.#dialect.isOneOf(id, ids);
    return {
      sql:
        `SELECT ${id} AS "id" FROM ${this.#visit}${byPrimaryKey} WHERE ${sql} AND (${expiry} + 0 < ? OR ${endedAt} + 0 < ?)` +
        ` ORDER BY ${id}${lock}`,
      params: [...params, before, before],
    };
  }

  deleteIdentities(ids: readonly string[]): Statement {
    const { sql, params } = this.#dialect.isOneOf(this.#i.visitId, ids);
    return { sql: `DELETE FROM ${this.#identity} WHERE ${sql}`, params };
  }

  deleteVisits(ids: readonly string[]): Statement {
    const { sql, params } = this.#dialect.isOneOf(this.#v.id, ids);
    return { sql: `DELETE FROM ${this.#visit} WHERE ${sql}`, params };
  }

  countStale(before: number): { readonly visits: Statement; readonly identities: Statement } {
    const { id, expiry, endedAt } = this.#v;
    const where = `WHERE v.${expiry} < ? OR v.${endedAt} < ?`;
    const join = `JOIN ${this.#identity} i ON i.${this.#i.visitId} = v.${id}`;
    return {
      visits: { sql: `SELECT COUNT(*) AS "count" FROM ${this.#visit} v ${where}`, params: [before, before] },
      identities: { sql: `SELECT COUNT(*) AS "count" FROM ${this.#visit} v ${join} ${where}`, params: [before, before] },
    };
  }

  /** Expired visits that hold data, the earliest expiry first. */
  unwiped({ from, before, most }: { from: number; before: number; most: number }): Statement {
    const { id, expiry, sessionData } = this.#v;
    return {
      sql:
        `SELECT ${id} AS "id", ${expiry} AS "expiry" FROM ${this.#visit}` +
        ` WHERE ${expiry} >= ? AND ${expiry} < ? AND ${sessionData} IS NOT NULL ORDER BY ${expiry} LIMIT ?`,
      params: [from, before, most],
    };
  }

  wipe(ids: readonly string[], before: number): Statement {
    const { expiry, sessionData, sessionVersion } = this.#v;
    const { sql: isAmong, params } = this.#isAmong(ids);
    return {
      sql:
        `${this.#update} SET ${sessionData} = NULL, ${sessionVersion} = ${sessionVersion} + 1` +
        ` WHERE ${isAmong} AND ${expiry} + 0 < ? AND ${sessionData} IS NOT NULL`,
      params: [...params, before],
    };
  }

  countUnwiped(before: number): Statement {
    const { expiry, sessionData } = this.#v;
    const sql = `SELECT COUNT(*) AS "count" FROM ${this.#visit} WHERE ${expiry} < ? AND ${sessionData} IS NOT NULL`;
    return { sql, params: [before] };
  }

  #isAmong(ids: readonly string[]): Statement {
    return this.#dialect.isAmong(this.#visit, this.#v.id, ids);
  }

  /** That a write comes with a key which is valid: the hash of the key, and when. */
  #guard(hash = '?', at = '?'): string {
    const { keyHash, previousKeyHash, previousKeyUntil } = this.#v;
    return `(${keyHash} = ${hash} OR (${previousKeyHash} = ${hash} AND ${previousKeyUntil} > ${at}))`;
  }
}

function insert(table: string, columns: readonly string[], rows: readonly (readonly unknown[])[]): Statement {
  const values = rows.map((row) => `(${row.map(() => '?').join(', ')})`).join(', ');
  return { sql: `INSERT INTO ${table} (${columns.join(', ')}) VALUES ${values}`, params: rows.flat() };
}

function guardParams({ keyHash, now }: WriteGuard): unknown[] {
  return [keyHash, keyHash, now];
}
