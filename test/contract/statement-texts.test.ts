import { randomBytes } from 'node:crypto';
import { Kysely, MysqlDialect } from 'kysely';
import { createPool } from 'mysql2';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { KyselyVisitStore } from 'nest-visit/kysely';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSourceOptions } from 'typeorm';
import { expect, onTestFinished, test, vi } from 'vitest';
import { VisitSql } from '../../lib/store/sql/visit.sql.js';
import { DAY, newVisit, NOW, saveOf } from '../../lib/testing/samples.js';
import { describeDatabases, type DatabaseName } from '../support/databases.js';
import { openDrizzle } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { openMigrated } from '../support/open-migrated.js';
import { openPrisma } from '../support/prisma-client.mjs';
import { tapSqlite, tapStatements } from '../support/statements.js';
import { useAll, type TableStore } from '../support/use-all.js';

type Open = (name: DatabaseName, options: DataSourceOptions) => Promise<[TableStore, close: () => Promise<unknown>]>;

const STORES: Record<string, Open> = {
  TypeORM: async (_, options) => {
    const dataSource = await openMigrated(options);
    return [new TypeOrmVisitStore(dataSource), () => dataSource.destroy()];
  },
  Kysely: async (name, options) => {
    const db = openKysely(name, { options });
    return [new KyselyVisitStore({ db }), () => db.destroy()];
  },
  'Kysely with its pool': async (_, options) => {
    const pool = createPool({ uri: (options as { url: string }).url });
    const db = new Kysely<object>({ dialect: new MysqlDialect({ pool }) });
    return [new KyselyVisitStore({ db, pool }), () => db.destroy()];
  },
  Drizzle: async (name, options) => {
    const { db, close } = openDrizzle(name, { options });
    return [new DrizzleVisitStore(db), close];
  },
  Prisma: async (name, options) => {
    const prisma = await openPrisma(name as 'mariadb' | 'postgres', (options as { url: string }).url);
    return [new PrismaVisitStore(prisma), () => prisma.$disconnect()];
  },
};

/** Where there is none, or where it is no other than one above. */
const NOT_ON: Readonly<Record<string, readonly DatabaseName[]>> = {
  'Kysely with its pool': ['postgres', 'sqlite'],
  Prisma: ['sqlite'],
};

/** In a text: names, which are the application's; our own marks of parameters. */
const NAMES: Record<DatabaseName, RegExp> = {
  mariadb: /`[^`]*`|\bAS "\w+"/g,
  postgres: /"[^"]*"|\$\d+/g,
  sqlite: /"[^"]*"|\$\d+/g,
};

/** What our statements say by themselves: limits of lists, comparisons that keep a planner from an index, and such. */
const OWN = [
  /\bLIMIT (ALL|\d+)|\bOFFSET \d+/g,
  /\+ (0e0|[01])\b|~0\b|\b1 ?= ?[01]\b|\bSELECT 1\b/g,
  // What is looked at at the start, and the settings of a connection.
  /\bstrftime\('%s', 'now'\)/g,
  /\b(Variable_name|name) IN \('\w+'(, '\w+')*\)/g,
  /'(hex|UTF8|sql_select_limit)'/g,
  /\bPRAGMA busy_timeout = \d+/g,
  /\bchar set utf8mb4|\butf8mb4\b/gi,
];

const LITERAL = /\w*'(?:[^'\\]|\\.|'')*'|(?<![\w.])-?\d[\w.]*/g;

/**
 * Kysely prepares nothing, and then `mysql2` puts values into the text itself: so text is given to it as digits, unless
 * there is nothing in it that could be escaped.
 */
const OF_DRIVER = /^(X'[0-9a-fA-F]*'|'[\w .:;,/()+-]*'|-?\d+)$/;

/** What is sent in rarer cases. */
async function useRest(store: TableStore): Promise<void> {
  const [ended, visit] = [newVisit(), newVisit()];
  await store.create([ended, visit]);
  const notMine = { ...saveOf(visit), lockOwner: randomBytes(16).toString('hex') };
  expect(await store.save([notMine])).toMatchObject([{ outcome: 'refused', reason: 'unlocked' }]);
  const owner = randomBytes(16).toString('hex');
  const lock = { id: visit.id, keyHash: visit.keyHash, now: NOW, owner, until: NOW + DAY };
  expect(await store.lock(lock)).toEqual({ outcome: 'locked' });
  expect(await store.lock({ ...lock, renews: true })).toEqual({ outcome: 'locked' });
  for (const ids of [[ended.id], [ended.id, visit.id]])
    expect(await store.end(ids, { reason: "it's over", at: NOW })).toEqual(ids.slice(-1));
  await store.expunge({ before: 0, limit: 10 });
}

describeDatabases('The texts of statements', (db) => {
  const stores = Object.entries(STORES).filter(([library]) => !(NOT_ON[library] ?? []).includes(db.name));

  test.each(stores)('B60, B76: %s sends no values in them', async (library, open) => {
    const { options } = await db.open();
    const usual = await openMigrated(options);
    onTestFinished(() => usual.destroy());
    const texts = new Set<string>();
    const note = (text: string): void => void texts.add(text);
    let through = options;
    if (db.name !== 'sqlite') {
      const tap = await tapStatements(db.name, (options as { url: string }).url, note);
      onTestFinished(() => tap.close());
      through = { ...options, url: tap.url } as DataSourceOptions;
    }
    const [store, close] = await open(db.name, through);
    onTestFinished(async () => void (await close()));
    if (db.name === 'sqlite') onTestFinished(tapSqlite(note));
    // What TypeORM sends when it opens a data source is not ours.
    texts.clear();

    const makers = Object.entries(Object.getOwnPropertyDescriptors(VisitSql.prototype)).filter(
      ([name, { value }]) => name !== 'constructor' && typeof value === 'function',
    );
    const made = makers.map(([name]) => vi.spyOn(VisitSql.prototype, name as 'find'));
    onTestFinished(() => made.forEach((spy) => spy.mockRestore()));
    await store.check();
    await store.serverTime();
    await useAll(store, new TypeOrmVisitStore(usual));
    await useRest(store);
    if (library !== 'Prisma') {
      const unused = makers.filter((_, index) => made[index]!.mock.calls.length === 0).map(([name]) => name);
      // Which visits were ended is told by the statement itself, where it can.
      expect(unused, 'statements that were not sent').toEqual(db.name === 'mariadb' ? [] : ['marked']);
    }

    expect(texts.size).toBeGreaterThan(20);
    const found = [...texts].flatMap((text) => {
      const rest = OWN.reduce((left, own) => left.replaceAll(own, ''), text.replaceAll(NAMES[db.name], ''));
      return (rest.match(LITERAL) ?? []).map((literal) => ({ literal, text }));
    });
    const isOfDriver = db.name === 'mariadb' && library === 'Kysely';
    expect(found.filter(({ literal }) => !(isOfDriver && OF_DRIVER.test(literal)))).toEqual([]);
    // What is looked for is there to be found.
    expect(found.length > 0).toBe(isOfDriver);
  });
});
