import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Logger } from '@nestjs/common';
import { VisitStoreUnavailableError, type Rekey } from 'nest-visit';
import { TypeOrmVisitStore, visitEntities } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { VisitSql } from '../../lib/store/sql/visit.sql.js';
import type { Statement } from '../../lib/store/sql/statement.js';
import { DAY, identityOf, newVisit, NOW, rekeyOf } from '../../lib/testing/samples.js';
import { describeDatabases } from '../support/databases.js';
import { openAccess } from '../support/open-access.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { useAll } from '../support/use-all.js';

Logger.overrideLogger(false);

interface Limits {
  /** Limits of the server that nobody meets who works as usual. */
  readonly usual: readonly string[];
  /** Those that end a statement which waits for a row, by name. */
  readonly statement: Record<string, string>;
  /** The one that ends a transaction in which nothing happens. */
  readonly transaction: string;
  /** The one that ends a connection nobody uses. */
  readonly connection: string;
  /** How many connections of this database there are, with a transaction that has begun or without. */
  readonly count: { readonly connections: string; readonly transactions: string };
}

const LIMITS: Record<'mariadb' | 'postgres', Limits> = {
  mariadb: {
    usual: [
      'innodb_lock_wait_timeout = 100',
      'lock_wait_timeout = 100',
      'max_statement_time = 100',
      'idle_transaction_timeout = 100',
      'wait_timeout = 100',
      'net_read_timeout = 100',
    ],
    statement: { max_statement_time: '0.2' },
    transaction: 'idle_transaction_timeout = 1',
    connection: 'wait_timeout = 1',
    count: {
      connections: 'SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE DB = DATABASE()',
      transactions:
        'SELECT COUNT(*) AS n FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ' +
        'ON p.ID = t.trx_mysql_thread_id WHERE p.DB = DATABASE()',
    },
  },
  postgres: {
    usual: [
      "statement_timeout = '100s'",
      "lock_timeout = '100s'",
      "idle_in_transaction_session_timeout = '100s'",
      "idle_session_timeout = '100s'",
    ],
    statement: { statement_timeout: "'200ms'", lock_timeout: "'200ms'" },
    transaction: "idle_in_transaction_session_timeout = '200ms'",
    connection: "idle_session_timeout = '200ms'",
    count: {
      connections: 'SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database()',
      transactions:
        "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'",
    },
  },
};

/** Looks until the count is one of its own connection alone, while this process stands still. */
const WAIT = `
  const [library, url, sql, most] = process.argv.slice(1);
  const ask = async () => {
    if (library === 'pg') {
      const client = new (require('pg').Client)({ connectionString: url });
      await client.connect();
      return [async () => Number((await client.query(sql)).rows[0].n), () => client.end()];
    }
    const client = await require('mysql2/promise').createConnection(url);
    return [async () => Number((await client.query(sql))[0][0].n), () => client.end()];
  };
  ask().then(async ([count, end]) => {
    // InnoDB updates what it shows of transactions only if nobody has looked for a tenth of a second.
    while ((await count()) > Number(most)) await new Promise((go) => setTimeout(go, 250));
    await end();
  });
`;

describeDatabases(
  'Time limits of a server',
  (db) => {
    const { usual, statement, transaction, connection, count } = LIMITS[db.name as keyof typeof LIMITS];
    let options: DataSourceOptions & { url?: string };
    let direct: DataSource;
    beforeAll(async () => {
      ({ options } = await db.open());
      direct = await openMigrated(options);
    });
    afterAll(() => direct?.destroy());

    /** A store whose connections, one at most by default, have these settings. */
    async function open(settings: readonly string[], poolSize = 1): Promise<TypeOrmVisitStore> {
      const dataSource = new DataSource({ ...options, poolSize, entities: visitEntities } as DataSourceOptions);
      await dataSource.initialize();
      onTestFinished(() => dataSource.destroy());
      const { pool, master } = dataSource.driver as unknown as Record<
        'pool' | 'master',
        NodeJS.EventEmitter | undefined
      >;
      const set = (one: { query(sql: string): unknown }): void => {
        for (const setting of settings) void one.query(`SET SESSION ${setting}`);
      };
      (pool ?? master)!.on(pool ? 'connection' : 'connect', set);
      // The one that TypeORM has opened to look around.
      for (const setting of settings) await dataSource.query(`SET SESSION ${setting}`);
      return new TypeOrmVisitStore(dataSource);
    }

    async function counted(what: keyof Limits['count']): Promise<number> {
      const [{ n }] = (await direct.query(count[what])) as [{ n: unknown }];
      return Number(n);
    }

    test('B76: all operations succeed within usual limits', async () => {
      // A limit that only newer servers know.
      const known = db.name === 'postgres' && (await direct.query<unknown[]>('SHOW server_version_num'));
      const { server_version_num: version = '0' } = (known ? known[0] : {}) as { server_version_num?: string };
      const store = await open([...usual, ...(Number(version) >= 170_000 ? ["transaction_timeout = '100s'"] : [])]);
      await store.check();
      await expect(useAll(store, new TypeOrmVisitStore(direct))).resolves.toBeUndefined();
    });

    test.each(Object.entries(statement))('%s ends a waiting write, and nothing else', async (name, value) => {
      const store = await open([`${name} = ${value}`]);
      await store.check();
      const access = openAccess(store, PATIENCE);
      const [held, other] = [newVisit(), newVisit()];
      await store.create([held, other]);
      const holder = direct.createQueryRunner();
      await holder.startTransaction();
      await holder.query(`UPDATE visit SET accessed = accessed WHERE id = '${held.id}'`);
      const rekey = rekeyOf(held, { identity: identityOf('a') });
      try {
        await expect(access.rekey(rekey)).rejects.toThrow(VisitStoreUnavailableError);
        expect(await access.rekey(rekeyOf(other, { identity: identityOf('b') }))).toEqual({ outcome: 'done' });
      } finally {
        await holder.rollbackTransaction();
        await holder.release();
      }
      expect(await store.find([held.id])).toMatchObject([{ keyHash: held.keyHash, identity: null }]);
      expect(await access.rekey(rekey)).toEqual({ outcome: 'done' });
    });

    test('B83: a sign-in succeeds even if its transaction was ended because the process was suspended', async () => {
      const store = await open([transaction], 2);
      await store.check();
      const access = openAccess(store, PATIENCE);
      const visit = newVisit();
      await store.create([visit]);
      const { value: original } = Object.getOwnPropertyDescriptor(VisitSql.prototype, 'rekey') as {
        value: (change: Rekey) => Statement[];
      };
      const spy = vi.spyOn(VisitSql.prototype, 'rekey').mockImplementationOnce(function (this: VisitSql, change) {
        const [key, link] = original.call(this, change) as [Statement, Statement];
        const standStill = (): Statement => {
          const args = [db.name === 'postgres' ? 'pg' : 'mysql', options.url!, count.transactions, '0'];
          execFileSync(process.execPath, ['-e', WAIT, ...args], { cwd: fileURLToPath(new URL('.', import.meta.url)) });
          return link;
        };
        return [key, standStill] as unknown as Statement[];
      });
      onTestFinished(() => spy.mockRestore());
      const rekey = rekeyOf(visit, { identity: identityOf('c') });
      expect(await access.rekey(rekey)).toEqual({ outcome: 'done' });
      expect(spy.mock.calls.length).toBeGreaterThan(1);
      expect(await store.find([visit.id])).toMatchObject([{ keyHash: rekey.newKeyHash, identity: { userId: 'c' } }]);
    });

    test('B83: connections that were closed because they were idle are replaced without an error', async () => {
      const store = await open([connection], 2);
      await store.check();
      const access = openAccess(store, PATIENCE);
      const visit = newVisit();
      await store.create([visit]);
      await Promise.all([store.find([visit.id]), store.find([visit.id])]);
      const before = await counted('connections');
      expect(before).toBeGreaterThan(1);
      await expect.poll(() => counted('connections')).toBe(1);
      expect(await access.find(visit.id)).toMatchObject({ id: visit.id });
      await expect.poll(() => counted('connections')).toBe(1);
      expect(await access.rekey(rekeyOf(visit, { previousKeyUntil: NOW + DAY }))).toEqual({ outcome: 'done' });
    });
  },
  ['mariadb', 'postgres'],
);
