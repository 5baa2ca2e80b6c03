import { visitEntities, visitMigrations } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { expect, onTestFinished, test } from 'vitest';
import { MysqlDialect } from '../../lib/store/sql/mysql.dialect.js';
import { VisitSql, visitTablesIn } from '../../lib/store/sql/visit.sql.js';
import { addColumn, addIndex, dropColumn, dropIndex } from '../../lib/store/typeorm/migrations/online.js';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { describeDatabases } from '../support/databases.js';
import { complaintsOf, StatementLog } from '../support/mysql-grammar.js';
import { describeWith } from '../support/needs.js';

// The tests run on MariaDB. What is sent to a server of type "mysql" is also held against the grammar of MySQL. The
// statements of the store are looked at where the contract of stores is tested.

// To load the grammar takes longer than to use it, and it is used only for what is sent to a server.
describeWith('mysql', "MySQL's grammar", () => {
  test('accepts the syntax of MySQL, but not that of MariaDB alone', () => {
    for (const sql of [
      'SELECT `a` AS "b" FROM `t` FORCE INDEX (PRIMARY) WHERE `id` = ? FOR UPDATE',
      'ALTER TABLE `t` ADD COLUMN `a` varchar(40) CHARACTER SET "utf8mb4" NULL, ALGORITHM=INSTANT',
      'INSERT INTO `t` (`a`) VALUES (?) ON DUPLICATE KEY UPDATE `a` = GREATEST(`t`.`a`, ?)',
    ]) {
      expect(complaintsOf(sql), sql).toEqual([]);
    }
    for (const sql of [
      'UPDATE t SET a = 1 RETURNING a',
      'ALTER TABLE t ADD COLUMN IF NOT EXISTS a INT',
      'SELECT a FROM t FOR UPDATE WAIT 5',
      'CREATE OR REPLACE TABLE t (a INT)',
      'SELECT `a` FROM `t` qualify',
      'SELECT a FROM t WHERE',
    ]) {
      expect(complaintsOf(sql), sql).not.toEqual([]);
    }
  });
});

describeDatabases(
  'Statements for a server of type "mysql" conform to its grammar',
  (db) => {
    const expectGrammatical = ({ statements }: StatementLog, ...needed: readonly RegExp[]): void => {
      for (const one of needed)
        expect(
          [...statements].some((sql) => one.test(sql)),
          String(one),
        ).toBe(true);
      expect([...statements].flatMap((sql) => complaintsOf(sql).map((complaint) => `${complaint}: ${sql}`))).toEqual(
        [],
      );
    };
    const ofMysql = async (more: object = {}): Promise<DataSourceOptions> => {
      const { options } = await db.open();
      return { ...options, type: 'mysql', ...more } as DataSourceOptions;
    };

    test('in migrations and their reversal, in online changes of tables, and in the check at startup', async () => {
      const log = new StatementLog();
      const store = await openTypeOrmVisitStore(await ofMysql({ migrationsRun: true, logger: log }));
      onTestFinished(() => store.close());
      await store.check();
      const runner = store.dataSource.createQueryRunner();
      await addColumn(runner, 'visit', {
        name: 'nickname',
        type: 'varchar',
        length: '40',
        charset: 'utf8mb4',
        isNullable: true,
      });
      await addIndex(runner, 'visit', ['nickname']);
      await dropIndex(runner, 'visit', ['nickname']);
      await dropColumn(runner, 'visit', 'nickname');
      await runner.release();
      await store.dataSource.undoLastMigration();
      expectGrammatical(
        log,
        /CREATE TABLE `visit`/,
        /GET_LOCK/,
        /SHOW VARIABLES/,
        /ALGORITHM=INSTANT/,
        /LOCK=NONE/,
        /DROP TABLE/,
      );
    });

    test('in synchronize', async () => {
      const log = new StatementLog();
      const options = await ofMysql({
        synchronize: true,
        logger: log,
        entities: visitEntities,
        migrations: visitMigrations,
      });
      const dataSource = await new DataSource(options).initialize();
      onTestFinished(() => dataSource.destroy());
      expectGrammatical(log, /CREATE TABLE `visit_identity`/, /ADD CONSTRAINT/);
    });

    test('in clean-up under sql_safe_updates', () => {
      const dialect = new MysqlDialect();
      dialect.adapt(new Map([['sql_safe_updates', 'ON']]));
      const sql = new VisitSql(dialect, visitTablesIn());
      const log = new StatementLog();
      log.logQuery(sql.expungeRevocations(0).sql);
      for (const step of sql.expunge(['a', 'b'], 0)) log.logQuery((typeof step === 'function' ? step([]) : step).sql);
      expectGrammatical(log, /LIMIT 18446744073709551615/);
    });
  },
  ['mariadb'],
);
