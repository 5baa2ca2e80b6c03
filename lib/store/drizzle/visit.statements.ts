import { getTableColumns, sql, type Column as TableColumn, type SQL, type Table } from 'drizzle-orm';
import { rowWriter, type Writers } from '../record.rows.js';
import { toConfidential } from '../sql.values.js';
import { byId, EVERYBODY, NO_ID, userHashOf, type StalePlace, type VisitToEnd } from '../table-visit.store.js';
import {
  IDENTITY_COLUMNS,
  IDENTITY_FIELDS,
  LISTED_COLUMNS,
  LOCK_COLUMNS,
  namesIn,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type LockColumn,
  type VisitColumn,
} from '../visit.columns.js';
import type { Lock, UserList } from '../visit.facets.js';
import { rekeyGuard } from '../visit.record.js';
import type { Ending, IdentityRecord, Rekey, SessionSave, Touch, VisitRecord, WriteGuard } from '../visit.store.js';
import type { Dialect } from './drizzle.dialects.js';

/** The three tables of visits, as `pgVisitTables()` or `mysqlVisitTables()` defines them. */
export interface DrizzleVisitTables {
  readonly visit: Table;
  readonly visitIdentity: Table;
  readonly visitRevocation: Table;
}

const VISIT_NAMES = namesIn(VISIT_COLUMNS);
const LOCK_NAMES = namesIn(LOCK_COLUMNS);
const IDENTITY_NAMES = ['visitId', ...namesIn(IDENTITY_COLUMNS)] as const;
const REVOCATION_NAMES = namesIn(REVOCATION_COLUMNS);

type Names<Name extends string> = Readonly<Record<Name, SQL>>;
type VisitNames = Names<VisitColumn | LockColumn>;

const SPACE = sql` `;
const COMMA = sql`, `;
const NOTHING = sql``;

/** The properties of tables that must be there, with those that are not. */
export function missingIn({ visit, visitIdentity, visitRevocation }: DrizzleVisitTables): string[] {
  const lacks = (table: string, given: Table, names: readonly string[]): string[] => {
    const columns = getTableColumns(given);
    return names.filter((name) => !(name in columns)).map((name) => `${table}.${name}`);
  };
  return [
    ...lacks('visit', visit, [...VISIT_NAMES, ...LOCK_NAMES]),
    ...lacks('visitIdentity', visitIdentity, IDENTITY_NAMES),
    ...lacks('visitRevocation', visitRevocation, REVOCATION_NAMES),
  ];
}

/**
 * All statements of the store, in words that Drizzle fills in with names and values. What every write but an insert has in common: it finds
 * its rows by primary key, and it says again what must hold of them, so that no index serves that (`ended_at + 0`): a planner could
 * otherwise go through all visits that have not ended.
 */
export class VisitStatements {
  readonly #dialect: Dialect;
  readonly #tables: DrizzleVisitTables;
  readonly #v: VisitNames;
  readonly #i: Names<(typeof IDENTITY_NAMES)[number]>;
  readonly #r: Names<keyof typeof REVOCATION_COLUMNS>;
  /** The columns of a visit, where one row has those of its identity, too. */
  readonly #ofVisit: VisitNames;
  readonly #isLive: SQL;
  readonly #select: SQL;
  readonly #list: SQL;
  readonly #returning: SQL;
  readonly #visitValues: (visit: VisitRecord) => unknown[];
  readonly #identityValues: (identity: IdentityRecord) => unknown[];

  constructor(dialect: Dialect, tables: DrizzleVisitTables) {
    const { quote } = dialect;
    const escape = (name: string): string => quote + name.replaceAll(quote, quote + quote) + quote;
    const namesOf = <Name extends string>(table: Table, names: readonly Name[], prefix = ''): Names<Name> => {
      const columns: Readonly<Record<string, TableColumn>> = getTableColumns(table);
      return Object.fromEntries(names.map((name) => [name, sql.raw(prefix + escape(columns[name]!.name))])) as Names<Name>;
    };
    const { visit, visitIdentity, visitRevocation } = tables;
    const names = [...VISIT_NAMES, ...LOCK_NAMES];
    this.#dialect = dialect;
    this.#tables = tables;
    this.#v = namesOf(visit, names);
    this.#i = namesOf(visitIdentity, IDENTITY_NAMES);
    this.#r = namesOf(visitRevocation, REVOCATION_NAMES);
    this.#ofVisit = namesOf(visit, names, 'v.');
    const ofIdentity = namesOf(visitIdentity, IDENTITY_NAMES, 'i.');
    const as = (column: SQL, field: string): SQL => sql`${column} AS ${sql.raw(escape(field))}`;
    const select = (fields: readonly (VisitColumn | LockColumn)[]): SQL => {
      const columns = [
        ...fields.map((name) => as(this.#ofVisit[name], name)),
        ...namesIn(IDENTITY_COLUMNS).map((name) => as(ofIdentity[name], IDENTITY_FIELDS[name])),
      ];
      return sql`SELECT ${sql.join(columns, COMMA)} FROM ${visit} v LEFT JOIN ${visitIdentity} i ON ${ofIdentity.visitId} = ${this.#ofVisit.id}`;
    };
    this.#select = select([...VISIT_NAMES, ...LOCK_NAMES]);
    this.#list = select(namesIn(LISTED_COLUMNS));
    this.#isLive = sql`${this.#v.endedAt} + 0 IS NULL`;
    this.#returning = dialect.returns ? sql` RETURNING ${as(this.#v.id, 'id')}` : NOTHING;
    const asIs = <T>(value: T): T => value;
    const writers: Writers = {
      hex: asIs,
      text: dialect.text,
      exact: dialect.text,
      instant: asIs,
      count: asIs,
      flag: dialect.flag,
      bytes: toConfidential,
    };
    this.#visitValues = rowWriter(VISIT_COLUMNS, writers);
    this.#identityValues = rowWriter(IDENTITY_COLUMNS, writers);
  }

  /** Read nothing, but fail if a column is not there. */
  get probes(): readonly SQL[] {
    return Object.values(this.#tables).map((table: Table) => {
      return sql`SELECT ${sql.join(Object.values(getTableColumns(table)), COMMA)} FROM ${table} WHERE 1 = 0`;
    });
  }

  /** What time it is by the server's clock. */
  get time(): SQL {
    return sql`SELECT ${this.#dialect.unixTime} AS now`;
  }

  find(ids: readonly string[]): SQL {
    return sql`${this.#select} WHERE ${this.#isAmong(this.#ofVisit.id, ids)}`;
  }

  insertVisits(visits: readonly VisitRecord[]): SQL {
    return this.#insert(
      this.#tables.visit,
      VISIT_NAMES.map((name) => this.#v[name]),
      visits.map(this.#visitValues),
    );
  }

  /** Of visits that have one. */
  insertIdentities(visits: readonly { readonly id: string; readonly identity: IdentityRecord }[]): SQL {
    return this.#insert(
      this.#tables.visitIdentity,
      Object.values(this.#i),
      visits.map(({ id, identity }) => [id, ...this.#identityValues(identity)]),
    );
  }

  /** Of different visits. Where statements return nothing it writes all visits that are there, or none. */
  save(saves: readonly SessionSave[]): SQL {
    const v = this.#v;
    const holds = ({ version, lockOwner, ...guard }: SessionSave): SQL => {
      const isHeld = lockOwner === undefined ? NOTHING : sql` AND ${this.#isHeld(lockOwner, guard.now)}`;
      return sql`${v.sessionVersion} = ${version} AND ${this.#guard(guard)}${isHeld}`;
    };
    const dataOf = ({ data }: SessionSave): unknown => this.#dialect.bytes(data && toConfidential(data));
    const [first, second] = saves;
    const isOne = first && !second;
    const data = isOne ? sql`${dataOf(first)}` : this.#cases(saves, dataOf);
    const isMet = isOne
      ? sql`${this.#isLive} AND ${holds(first)}`
      : this.#dialect.allOrNone(sql`${this.#isLive} AND ${this.#cases(saves, holds)}`, v.sessionVersion);
    return sql`${this.#update} SET ${v.sessionData} = ${data}, ${v.sessionVersion} = ${v.sessionVersion} + 1
      WHERE ${this.#isAmong(v.id, idsOf(saves))} AND ${isMet}${this.#returning}`;
  }

  touch(touches: readonly Required<Touch>[]): SQL {
    const { id, accessed, expiry, keyChanged } = this.#v;
    const given = (field: 'accessed' | 'expiry' | 'keyChanged') => this.#cases(touches, (touch) => this.#dialect.number(touch[field]));
    return sql`${this.#update} SET ${this.#forward(accessed, given('accessed'))}, ${this.#forward(expiry, given('expiry'))}
      WHERE ${this.#isAmong(id, idsOf(touches))} AND ${this.#isLive} AND ${keyChanged} + 0 <= ${given('keyChanged')}`;
  }

  rekey(change: Rekey): SQL {
    const { previousKeyHash, previousKeyUntil, now, newKeyHash, permanent, expiry, absoluteExpiry } = change;
    const v = this.#v;
    // MySQL assigns from left to right: the old hash must be read before it is replaced.
    const assignments = [
      sql`${v.previousKeyHash} = ${previousKeyHash ?? v.keyHash}`,
      sql`${v.previousKeyUntil} = ${previousKeyUntil}`,
      sql`${v.keyChanged} = ${now}`,
      sql`${v.keyHash} = ${newKeyHash}`,
    ];
    if (permanent !== undefined) assignments.push(sql`${v.permanent} = ${this.#dialect.flag(permanent)}`);
    if (absoluteExpiry !== undefined) assignments.push(sql`${v.absoluteExpiry} = ${absoluteExpiry}`);
    if (expiry !== undefined)
      assignments.push(
        previousKeyUntil === null ? sql`${v.expiry} = ${expiry}` : this.#forward(v.expiry, sql`${this.#dialect.number(expiry)}`),
      );
    return sql`${this.#update} SET ${sql.join(assignments, COMMA)}
      WHERE ${v.id} = ${change.id} AND ${this.#isLive} AND ${this.#guard(rekeyGuard(change))}${this.#returning}`;
  }

  link(id: string, identity: IdentityRecord): SQL {
    const values = this.#identityValues(identity);
    const columns = namesIn(IDENTITY_COLUMNS).map((name, index) => sql`${this.#i[name]} = ${values[index]}`);
    return sql`${this.insertIdentities([{ id, identity }])} ${this.#dialect.onDuplicate(this.#i.visitId)} ${sql.join(columns, COMMA)}`;
  }

  unlink(ids: readonly string[]): SQL {
    const { visitId } = this.#i;
    const returning = this.#dialect.returns ? sql` RETURNING ${visitId}` : NOTHING;
    return sql`DELETE FROM ${this.#tables.visitIdentity} WHERE ${this.#isAmong(visitId, ids)}${returning}`;
  }

  lock({ id, keyHash, owner, until, now, renews }: Lock): SQL {
    const v = this.#v;
    const isFree = sql`(${v.lockOwner} IS NULL OR ${v.lockOwner} = ${owner} OR ${v.lockedUntil} <= ${now})`;
    return sql`${this.#update} SET ${v.lockOwner} = ${owner}, ${v.lockedUntil} = ${until}
      WHERE ${v.id} = ${id} AND ${this.#isLive} AND ${this.#guard({ keyHash, now })}
      AND ${renews ? this.#isHeld(owner, now) : isFree}${this.#returning}`;
  }

  unlock(id: string, owner: string): SQL {
    const v = this.#v;
    return sql`${this.#update} SET ${v.lockOwner} = NULL, ${v.lockedUntil} = NULL
      WHERE ${v.id} = ${id} AND ${this.#isLive} AND ${v.lockOwner} = ${owner}`;
  }

  end(visits: readonly VisitToEnd[], { reason, at, retiresKey = false }: Ending, mark: string): SQL {
    const v = this.#v;
    const retired = retiresKey ? sql`${v.previousKeyUntil} = ${at}, ${v.keyChanged} = ${at}, ` : NOTHING;
    const keyHashes = visits.flatMap(({ keyHash }) => keyHash ?? []);
    const isUnchanged = keyHashes.length > 0 ? sql` AND ${this.#isAmong(v.keyHash, keyHashes)}` : NOTHING;
    return sql`${this.#update} SET ${retired}${v.endedAt} = ${at}, ${v.endReason} = ${this.#dialect.text(reason)},
      ${v.sessionData} = NULL, ${v.sessionVersion} = ${v.sessionVersion} + 1, ${v.lockOwner} = ${mark}
      WHERE ${this.#isAmong(v.id, idsOf(visits))} AND ${this.#isLive}${isUnchanged}${this.#returning}`;
  }

  marked(ids: readonly string[], mark: string): SQL {
    const { id, lockOwner } = this.#v;
    return sql`${this.#ids} WHERE ${this.#isAmong(id, ids)} AND ${lockOwner} = ${mark}`;
  }

  /** All visits of the user end now; a later instant that is remembered stays. */
  revoke(userId: string, at: number): SQL {
    const { userHash, endedAt } = this.#r;
    const { visitRevocation } = this.#tables;
    const stored = (getTableColumns(visitRevocation) as Readonly<Record<string, TableColumn>>).endedAt!;
    const later = sql`${endedAt} = GREATEST(${stored}, ${this.#dialect.number(at)})`;
    const insert = this.#insert(visitRevocation, [userHash, endedAt], [[userHashOf(userId), at]]);
    return sql`${insert} ${this.#dialect.onDuplicate(userHash)} ${later}`;
  }

  revoked(userId: string): SQL {
    const { userHash, endedAt } = this.#r;
    return sql`SELECT MAX(${endedAt}) AS at FROM ${this.#tables.visitRevocation}
      WHERE ${this.#isAmong(userHash, [userHashOf(userId), userHashOf(EVERYBODY)])}`;
  }

  listForUser({ userId, now, limit, after }: UserList): SQL {
    const { id, accessed, endedAt, expiry } = this.#ofVisit;
    const isBehind = after
      ? sql` AND (${accessed} < ${after.accessed} OR (${accessed} = ${after.accessed} AND ${id} > ${after.id}))`
      : NOTHING;
    return sql`${this.#list} WHERE ${endedAt} IS NULL AND ${expiry} > ${now} AND ${this.#isOf(userId)}${isBehind}
      ORDER BY ${accessed} DESC, ${id} LIMIT ${limit}`;
  }

  liveVisits(behind: string, now: number, most: number): SQL {
    const { id, endedAt, expiry } = this.#ofVisit;
    return sql`${this.#list} WHERE ${id} > ${behind || NO_ID} AND ${endedAt} IS NULL AND ${expiry} > ${now} ORDER BY ${id} LIMIT ${most}`;
  }

  userAgentsOf(userId: string, before: number): SQL {
    const { visit, visitIdentity } = this.#tables;
    const { id, userAgent } = this.#v;
    const { visitId, created } = this.#i;
    const linked = sql`SELECT ${visitId} FROM ${visitIdentity} i WHERE ${this.#isOf(userId)} AND ${created} < ${before}`;
    return sql`SELECT ${userAgent} AS agent FROM ${visit} WHERE ${id} IN (${linked})`;
  }

  keysOfUser(userId: string, except: string, most: number): SQL {
    const { id, keyHash, endedAt } = this.#v;
    const { visitId } = this.#i;
    const { visit, visitIdentity } = this.#tables;
    const linked = sql`SELECT ${visitId} FROM ${visitIdentity} i WHERE ${this.#isOf(userId)}`;
    return sql`SELECT ${id} AS id, ${keyHash} AS hash FROM ${visit}
      WHERE ${endedAt} IS NULL AND ${id} <> ${except || NO_ID} AND ${id} IN (${linked}) ORDER BY ${id} LIMIT ${most}`;
  }

  liveIds(behind: string, most: number): SQL {
    const { id, endedAt } = this.#v;
    return sql`${this.#ids} WHERE ${endedAt} IS NULL AND ${id} > ${behind || NO_ID} ORDER BY ${id} LIMIT ${most}`;
  }

  staleBehind(place: StalePlace, before: number, most: number): SQL {
    const { id, expiry } = this.#v;
    const column = this.#v[place.column];
    const others = place.column === 'endedAt' ? sql` AND ${expiry} >= ${before}` : NOTHING;
    return sql`SELECT ${id} AS id, ${column} AS instant FROM ${this.#tables.visit}
      WHERE ${column} >= ${place.instant} AND ${column} < ${before}${others} AND (${column} > ${place.instant} OR ${id} > ${place.id})
      ORDER BY ${column}, ${id} LIMIT ${most}`;
  }

  /** Locks those of the visits that are stale still: a touch that is on its way comes before, and then its visit lives, or finds none. */
  lockStale(ids: readonly string[], before: number): SQL {
    const { id } = this.#v;
    return sql`${this.#ids} WHERE ${this.#isAmong(id, ids)} AND ${this.#isStale(before)} ORDER BY ${id} FOR UPDATE`;
  }

  delete(ids: readonly string[]): SQL {
    return sql`DELETE FROM ${this.#tables.visit} WHERE ${this.#isAmong(this.#v.id, ids)}`;
  }

  expungeRevocations(before: number): SQL {
    return sql`DELETE FROM ${this.#tables.visitRevocation} WHERE ${this.#r.endedAt} < ${before}`;
  }

  unwiped(from: number, before: number, most: number): SQL {
    const { id, expiry } = this.#v;
    return sql`SELECT ${id} AS id, ${expiry} AS expiry FROM ${this.#tables.visit}
      WHERE ${expiry} >= ${from} AND ${this.#isUnwiped(before)} ORDER BY ${expiry} LIMIT ${most}`;
  }

  wipe(ids: readonly string[], before: number): SQL {
    const { id, sessionData, sessionVersion } = this.#v;
    return sql`${this.#update} SET ${sessionData} = NULL, ${sessionVersion} = ${sessionVersion} + 1
      WHERE ${this.#isAmong(id, ids)} AND ${this.#isUnwiped(before)}${this.#returning}`;
  }

  countStale(before: number): SQL {
    const { visit, visitIdentity } = this.#tables;
    const stale = sql`SELECT ${this.#v.id} FROM ${visit} WHERE ${this.#isStale(before)}`;
    return sql`SELECT (SELECT COUNT(*) FROM ${visit} WHERE ${this.#isStale(before)}) AS visits,
      (SELECT COUNT(*) FROM ${visitIdentity} WHERE ${this.#i.visitId} IN (${stale})) AS identities`;
  }

  countUnwiped(before: number): SQL {
    return sql`SELECT COUNT(*) AS visits FROM ${this.#tables.visit} WHERE ${this.#isUnwiped(before)}`;
  }

  get #update(): SQL {
    return sql`UPDATE ${this.#tables.visit}`;
  }

  get #ids(): SQL {
    return sql`SELECT ${this.#v.id} AS id FROM ${this.#tables.visit}`;
  }

  #insert(table: Table, columns: readonly SQL[], rows: readonly (readonly unknown[])[]): SQL {
    const values = rows.map((row) => sql`${row}`);
    return sql`INSERT INTO ${table} (${sql.join([...columns], COMMA)}) VALUES ${sql.join(values, COMMA)}`;
  }

  /** What each visit gets of its own. */
  #cases<T extends { readonly id: string }>(items: readonly T[], valueOf: (item: T) => unknown): SQL {
    const cases = items.map((item) => sql`WHEN ${item.id} THEN ${valueOf(item)}`);
    return sql`CASE ${this.#v.id} ${sql.join(cases, SPACE)} END`;
  }

  #isAmong(column: SQL, values: readonly string[]): SQL {
    return values.length === 1 ? sql`${column} = ${values[0]}` : sql`${column} IN ${values}`;
  }

  /** Of an identity whose table is called `i`. */
  #isOf(userId: string): SQL {
    return this.#dialect.isSame(sql`i.${this.#i.userId}`, userId);
  }

  #forward(column: SQL, value: SQL): SQL {
    return sql`${column} = GREATEST(${column}, ${value})`;
  }

  /** That a write comes with a key which is valid. */
  #guard({ keyHash, now }: Pick<WriteGuard, 'keyHash' | 'now'>): SQL {
    const v = this.#v;
    return sql`(${v.keyHash} = ${keyHash} OR (${v.previousKeyHash} = ${keyHash} AND ${v.previousKeyUntil} > ${now}))`;
  }

  /** That the lock is this owner's, and its lease has not run out. */
  #isHeld(owner: string, now: number): SQL {
    return sql`${this.#v.lockOwner} = ${owner} AND ${this.#v.lockedUntil} > ${now}`;
  }

  #isStale(before: number): SQL {
    return sql`(${this.#v.expiry} < ${before} OR ${this.#v.endedAt} < ${before})`;
  }

  #isUnwiped(before: number): SQL {
    return sql`${this.#v.expiry} < ${before} AND ${this.#v.sessionData} IS NOT NULL`;
  }
}

/** In the order in which rows are locked. */
function idsOf(items: readonly { readonly id: string }[]): string[] {
  return [...items].sort(byId).map(({ id }) => id);
}
