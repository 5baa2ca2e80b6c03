import { randomBytes } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import { Logger } from '@nestjs/common';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres';
import { Kysely, MysqlDialect, PostgresDialect } from 'kysely';
import { createPool } from 'mysql2';
import { VisitServerSettingError } from 'nest-visit';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { KyselyVisitStore } from 'nest-visit/kysely';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { TypeOrmVisitStore, visitEntities, visitMigrations } from 'nest-visit/typeorm';
import { Pool } from 'pg';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { describeDatabases, type OpenDatabase } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { describePrisma } from '../support/prisma.js';
import { isSoak } from '../support/soak.js';
import { isForToday } from '../support/today.js';
import { useAll, type TableStore } from '../support/use-all.js';

async function expectRefused(store: TableStore, name: string): Promise<void> {
  const error = await store.check().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(VisitServerSettingError);
  const { settings, code, message } = error as VisitServerSettingError;
  expect(code).toBe('VISIT_SERVER_SETTING');
  expect(settings).toHaveLength(1);
  expect(settings[0]!.name).toContain(name);
  expect(message).toContain(settings[0]!.remedy);
}

const inSession = (setting: string): string => `SET ${setting.startsWith('NAMES') ? '' : 'SESSION '}${setting}`;

/** A role that is there for all databases of the server. */
async function addReader(dataSource: DataSource): Promise<void> {
  await dataSource.query(
    `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reader') THEN CREATE ROLE reader; END IF; END $$`,
  );
  await dataSource.query('GRANT SELECT ON visit, visit_identity, visit_revocation TO reader');
}

/** Every SQL mode that MariaDB has. */
const SQL_MODES = (
  'ALLOW_INVALID_DATES ANSI ANSI_QUOTES DB2 EMPTY_STRING_IS_NULL ERROR_FOR_DIVISION_BY_ZERO HIGH_NOT_PRECEDENCE ' +
  'IGNORE_BAD_TABLE_OPTIONS ' +
  'IGNORE_SPACE MAXDB MSSQL MYSQL323 MYSQL40 NO_AUTO_CREATE_USER NO_AUTO_VALUE_ON_ZERO NO_BACKSLASH_ESCAPES ' +
  'NO_DIR_IN_CREATE ' +
  'NO_ENGINE_SUBSTITUTION NO_FIELD_OPTIONS NO_KEY_OPTIONS NO_TABLE_OPTIONS NO_UNSIGNED_SUBTRACTION NO_ZERO_DATE ' +
  'NO_ZERO_IN_DATE ' +
  'ONLY_FULL_GROUP_BY ORACLE PAD_CHAR_TO_FULL_LENGTH PIPES_AS_CONCAT POSTGRESQL REAL_AS_FLOAT ' +
  'SIMULTANEOUS_ASSIGNMENT STRICT_ALL_TABLES ' +
  'STRICT_TRANS_TABLES TIME_ROUND_FRACTIONAL TRADITIONAL'
).split(' ');

interface Case {
  /** Sent on the connection. */
  readonly set?: readonly string[];
  /** Options of the data source. */
  readonly options?: object;
  /** The setting that is refused; left out, all works. */
  readonly refused?: string;
}

const isolations = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'];

const CASES: Record<'mariadb' | 'postgres', Record<string, Case>> = {
  mariadb: {
    'the default settings': {},
    'no SQL mode': { set: ["sql_mode = ''"] },
    ...Object.fromEntries(SQL_MODES.map((mode) => [mode, { set: [`sql_mode = '${mode}'`] }])),
    'all difficult settings at once': {
      set: ["sql_mode = 'NO_BACKSLASH_ESCAPES,EMPTY_STRING_IS_NULL,TRADITIONAL,ORACLE'", 'sql_safe_updates = 1'],
    },
    sql_safe_updates: { set: ['sql_safe_updates = 1'] },
    autocommit: { set: ['autocommit = 0'], refused: 'autocommit' },
    'completion_type CHAIN': { set: ["completion_type = 'CHAIN'"], refused: 'completion_type' },
    'completion_type RELEASE': { set: ["completion_type = 'RELEASE'"], refused: 'completion_type' },
    sql_select_limit: { set: ['sql_select_limit = 2'], refused: 'sql_select_limit' },
    ...Object.fromEntries(isolations.map((level) => [level, { set: [`TRANSACTION ISOLATION LEVEL ${level}`] }])),
    'READ UNCOMMITTED': { set: ['TRANSACTION ISOLATION LEVEL READ UNCOMMITTED'], refused: '_isolation' },
    'a read-only session': { set: ['TRANSACTION READ ONLY'], refused: 'read_only' },
    'the charset utf8mb4': { options: { charset: 'utf8mb4' } },
    'the charset utf8mb4, compared in binary': { options: { charset: 'UTF8MB4_BIN' } },
    'the charset latin1': { options: { charset: 'LATIN1_SWEDISH_CI' }, refused: 'character_set_' },
    'the charset utf8mb3': { options: { charset: 'UTF8_GENERAL_CI' }, refused: 'character_set_' },
    'the charset cp1251': { options: { charset: 'CP1251_GENERAL_CI' }, refused: 'character_set_' },
    'results in latin1': { set: ['character_set_results = latin1'], refused: 'character_set_' },
    'statements in latin1': { set: ['character_set_connection = latin1'], refused: 'character_set_' },
    'names in latin1': { set: ['NAMES latin1'], refused: 'character_set_' },
  },
  postgres: {
    'the default settings': {},
    ...Object.fromEntries(
      [...isolations, 'READ UNCOMMITTED'].map((level) => [
        level,
        { set: [`default_transaction_isolation = '${level}'`] },
      ]),
    ),
    'a read-only session': { set: ['default_transaction_read_only = on'], refused: 'transaction_read_only' },
    'a read-only role': { set: ['ROLE reader'], refused: 'privileges' },
    standard_conforming_strings: { set: ['standard_conforming_strings = off', "backslash_quote = 'off'"] },
    array_nulls: { set: ['array_nulls = off'], refused: 'array_nulls' },
    transform_null_equals: { set: ['transform_null_equals = on'] },
    bytea_output: { set: ["bytea_output = 'escape'"] },
    'dates and intervals': {
      set: ["DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kathmandu'"],
    },
    'generic plans': {
      set: ["plan_cache_mode = 'force_generic_plan'", 'enable_indexscan = off', 'enable_seqscan = off'],
    },
    'text in LATIN1': { set: ["client_encoding = 'LATIN1'"], refused: 'client_encoding' },
    'text in WIN1251': { set: ["client_encoding = 'WIN1251'"], refused: 'client_encoding' },
    'text in SQL_ASCII': { set: ["client_encoding = 'SQL_ASCII'"] },
  },
};

describeDatabases(
  'B60, B74, B76: settings of a foreign server',
  (db) => {
    let options: DataSourceOptions;
    let usual: DataSource;
    beforeAll(async () => {
      ({ options } = await db.open());
      usual = await openMigrated(options);
      if (db.name === 'postgres') await addReader(usual);
    });
    afterAll(() => usual?.destroy());

    // Half of them each day.
    test.each(Object.entries(CASES[db.name as keyof typeof CASES]).filter((_, index) => isForToday(index, 2)))(
      '%s',
      async (_, { set = [], options: more = {}, refused }) => {
        // One connection, so that what is set holds for all.
        const one = db.name === 'mariadb' ? { connectionLimit: 1 } : { max: 1 };
        const dataSource = new DataSource({ ...options, ...more, extra: one, entities: visitEntities });
        await dataSource.initialize();
        const store = new TypeOrmVisitStore(dataSource);
        try {
          const statements = set.map(inSession);
          for (const statement of statements) await dataSource.query(statement);
          // One that takes no writes is given up for another one.
          const { pool, master } = dataSource.driver as unknown as { pool?: EventEmitter; master?: EventEmitter };
          (pool ?? master)!.on(pool ? 'connection' : 'connect', (connection: { query(sql: string): void }) => {
            for (const statement of statements) connection.query(statement);
          });
          if (refused === undefined) {
            await store.check();
            await useAll(store, new TypeOrmVisitStore(usual));
          } else {
            await expectRefused(store, refused);
          }
        } finally {
          await store.close();
          await dataSource.destroy();
        }
      },
    );

    test('tables are transactional, whatever the default engine of the server', async () => {
      if (db.name !== 'mariadb') return;
      const { options: fresh } = await db.open();
      const all = { ...fresh, extra: { connectionLimit: 1 }, entities: visitEntities, migrations: visitMigrations };
      const dataSource = await new DataSource(all).initialize();
      try {
        await dataSource.query("SET SESSION default_storage_engine = 'MyISAM'");
        await dataSource.runMigrations();
        const tables = "TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'visit%'";
        const rows = (await dataSource.query(
          `SELECT ENGINE AS engine FROM information_schema.TABLES WHERE ${tables}`,
        )) as {
          engine: string;
        }[];
        expect(rows.map(({ engine }) => engine)).toEqual(['InnoDB', 'InnoDB', 'InnoDB']);
      } finally {
        await dataSource.destroy();
      }
    });

    test('type "mysql" for MariaDB, or the reverse, causes one warning, and works', async () => {
      if (db.name !== 'mariadb') return;
      const [{ version }] = (await usual.query('SELECT VERSION() AS version')) as [{ version: string }];
      const real = version.includes('MariaDB') ? 'mariadb' : 'mysql';
      const warn = vi.spyOn(Logger.prototype, 'warn').mockReturnValue();
      try {
        for (const type of ['mysql', 'mariadb'] as const) {
          const dataSource = await new DataSource({
            ...options,
            type,
            entities: visitEntities,
          } as DataSourceOptions).initialize();
          warn.mockClear();
          try {
            const store = new TypeOrmVisitStore(dataSource);
            await store.check();
            const told = warn.mock.calls.map(([text]) => String(text)).filter((text) => text.includes(version));
            expect(told).toEqual(type === real ? [] : [expect.stringContaining(`has type "${type}"`)]);
            if (type !== real) expect(told[0]).toContain(`set type "${real}"`);
            await useAll(store, new TypeOrmVisitStore(usual));
          } finally {
            await dataSource.destroy();
          }
        }
      } finally {
        warn.mockRestore();
      }
    });

    test('several are reported at once', async () => {
      if (db.name !== 'mariadb') return;
      const dataSource = new DataSource({ ...options, extra: { connectionLimit: 1 }, entities: visitEntities });
      await dataSource.initialize();
      const store = new TypeOrmVisitStore(dataSource);
      try {
        await dataSource.query("SET SESSION autocommit = 0, completion_type = 'CHAIN'");
        const error = (await store.check().catch((reason: unknown) => reason)) as VisitServerSettingError;
        expect(error.settings.map(({ name }) => name)).toEqual(['autocommit', 'completion_type']);
      } finally {
        await store.close();
        await dataSource.destroy();
      }
    });
  },
  ['mariadb', 'postgres'],
);

/** Kysely and Drizzle send the statements of TypeORM by other ways. */
const BY_OTHERS = {
  mariadb: {
    ORACLE: { set: ["sql_mode = 'ORACLE'"], refused: 'sql_mode' },
    'many difficult settings at once': {
      set: ["sql_mode = 'NO_BACKSLASH_ESCAPES,EMPTY_STRING_IS_NULL,TRADITIONAL'", 'sql_safe_updates = 1'],
    },
    ...chosen(CASES.mariadb, [
      'the default settings',
      'ANSI_QUOTES',
      'PAD_CHAR_TO_FULL_LENGTH',
      'autocommit',
      'completion_type CHAIN',
      'sql_select_limit',
      'SERIALIZABLE',
      'a read-only session',
      'the charset latin1',
      'names in latin1',
    ]),
  },
  postgres: chosen(CASES.postgres, [
    'the default settings',
    'SERIALIZABLE',
    'a read-only session',
    'a read-only role',
    'array_nulls',
    'bytea_output',
    'dates and intervals',
    'text in LATIN1',
  ]),
};

function chosen(cases: Readonly<Record<string, Case>>, titles: readonly string[]): Record<string, Case> {
  return Object.fromEntries(titles.map((title) => [title, cases[title]!]));
}

describeDatabases(
  'B60, B74, B76: settings of a foreign server, with Kysely and Drizzle',
  (db) => {
    const name = db.name as keyof typeof CASES;
    let options: DataSourceOptions;
    let usual: DataSource;
    beforeAll(async () => {
      ({ options } = await db.open());
      usual = await openMigrated(options);
      if (name === 'postgres') {
        await usual.query(
          `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reader') THEN CREATE ROLE reader; END ` +
            'IF; END $$',
        );
        await usual.query('GRANT SELECT ON visit, visit_identity, visit_revocation TO reader');
      }
    });
    afterAll(() => usual?.destroy());

    const cases = Object.entries<Case>(BY_OTHERS[name]).flatMap(([title, one]) =>
      ['Kysely', 'Drizzle'].map((library) => ({
        title,
        library,
        ...one,
        // In this mode, the `begin` of Kysely is a block of PL/SQL; the pool of Drizzle uses that of the library.
        refused: title === 'ORACLE' && library === 'Drizzle' ? undefined : one.refused,
      })),
    );
    test.each(cases)('$library: $title', async ({ library, set = [], options: more = {}, refused }) => {
      const { url } = options as { url: string };
      const statements = set.map((setting) => `SET ${setting.startsWith('NAMES') ? '' : 'SESSION '}${setting}`);
      const prepare = (connection: { query(sql: string): unknown }): void => {
        for (const statement of statements) void connection.query(statement);
      };
      let store: TableStore;
      let close: () => Promise<unknown>;
      if (name === 'mariadb') {
        const pool = createPool({ uri: url, connectionLimit: 2, ...more });
        pool.on('connection', prepare);
        const promises = pool.promise();
        close = () => promises.end();
        store =
          library === 'Kysely'
            ? new KyselyVisitStore({ db: new Kysely({ dialect: new MysqlDialect({ pool }) }) })
            : new DrizzleVisitStore(drizzleMysql(promises as never));
      } else {
        const pool = new Pool({ connectionString: url, max: 2 });
        pool.on('connect', prepare);
        close = () => pool.end();
        store =
          library === 'Kysely'
            ? new KyselyVisitStore({ db: new Kysely({ dialect: new PostgresDialect({ pool }) }) })
            : new DrizzleVisitStore(drizzlePg(pool));
      }
      try {
        if (refused === undefined) {
          await store.check();
          await useAll(store, new TypeOrmVisitStore(usual));
        } else {
          await expectRefused(store, refused);
        }
      } finally {
        await close();
      }
    });
  },
  ['mariadb', 'postgres'],
);

/** Those that have hindered somebody; others are tried when there is time. */
const MODES_OF_PRISMA = isSoak
  ? SQL_MODES
  : ['ANSI', 'EMPTY_STRING_IS_NULL', 'NO_BACKSLASH_ESCAPES', 'ORACLE', 'PAD_CHAR_TO_FULL_LENGTH'];

/** Prisma's statements are its own, and its connections those that its adapter opens. */
const OF_PRISMA: typeof CASES = {
  mariadb: {
    'no SQL mode': CASES.mariadb['no SQL mode']!,
    ...Object.fromEntries(
      MODES_OF_PRISMA.map((mode) => [
        mode,
        { set: [`sql_mode = '${mode}'`], ...(mode === 'ORACLE' && { refused: 'sql_mode' }) },
      ]),
    ),
    'many difficult settings at once': {
      set: ["sql_mode = 'NO_BACKSLASH_ESCAPES,EMPTY_STRING_IS_NULL,TRADITIONAL'", 'sql_safe_updates = 1'],
    },
    'completion_type CHAIN': CASES.mariadb['completion_type CHAIN']!,
    sql_select_limit: CASES.mariadb['sql_select_limit']!,
    'a read-only session': CASES.mariadb['a read-only session']!,
    'names in latin1': { set: ['NAMES latin1'], refused: 'character_set_' },
    'results in latin1': CASES.mariadb['results in latin1']!,
    'transactions that see uncommitted data by default': {
      set: ["tx_isolation = 'READ-UNCOMMITTED'"],
      refused: '_isolation',
    },
  },
  postgres: {
    standard_conforming_strings: CASES.postgres['standard_conforming_strings']!,
    array_nulls: CASES.postgres['array_nulls']!,
    bytea_output: CASES.postgres['bytea_output']!,
    'dates and intervals': CASES.postgres['dates and intervals']!,
    SERIALIZABLE: CASES.postgres['SERIALIZABLE']!,
    'a read-only session': CASES.postgres['a read-only session']!,
    'a read-only role': { set: ['ROLE = reader'], refused: 'privileges' },
  },
};

describePrisma('B74, B76: settings of a foreign server, with Prisma', (db) => {
  let database: OpenDatabase;
  let usual: DataSource;
  beforeAll(async () => {
    database = await db.open();
    usual = await openMigrated(database.options);
    if (db.name === 'postgres') await addReader(usual);
  });
  afterAll(() => usual?.destroy());

  test.each(Object.entries(OF_PRISMA[db.name]))('%s', async (_, { set = [], refused }) => {
    const adapter =
      db.name === 'mariadb'
        ? { initSql: set.map(inSession) }
        : {
            options: set
              .map((setting) => `-c ${setting.replace(' = ', '=').replaceAll("'", '').replaceAll(' ', '\\\\ ')}`)
              .join(' '),
          };
    const prisma = await db.connect(database, adapter);
    try {
      const store = new PrismaVisitStore(prisma);
      if (refused === undefined) {
        expect(await store.check()).toBeUndefined();
        await useAll(store, new TypeOrmVisitStore(usual));
      } else {
        await expectRefused(store, refused);
      }
    } finally {
      await prisma.$disconnect();
    }
  });

  test('a database that does not support all characters', async () => {
    const name = `latin1_${randomBytes(4).toString('hex')}`;
    const isPostgres = db.name === 'postgres';
    await usual.query(
      `CREATE DATABASE ${name} ` +
        (isPostgres ? "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0" : 'CHARACTER SET latin1'),
    );
    const url = new URL((database.options as { url: string }).url);
    url.pathname = `/${name}`;
    const options = { ...database.options, url: url.href } as DataSourceOptions;
    const prisma = await db.connect({ ...database, options });
    const dataSource = await openMigrated(options);
    try {
      const store = new PrismaVisitStore(prisma);
      // Columns of MySQL and MariaDB have encodings of their own.
      if (isPostgres) {
        await expectRefused(store, 'server_encoding');
      } else {
        expect(await store.check()).toBeUndefined();
        await useAll(store, new TypeOrmVisitStore(dataSource));
      }
    } finally {
      await prisma.$disconnect();
      await dataSource.destroy();
      await usual.query(`DROP DATABASE ${name}`);
    }
  });
});
