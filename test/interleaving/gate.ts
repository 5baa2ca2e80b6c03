import { callbackify } from 'node:util';
import type { DataSource, QueryRunner } from 'typeorm';
import { TypeOrmSqliteConnection } from '../../lib/store/typeorm/connections/sqlite.connection.js';

/** Where every statement of a data source has to pass. */
export interface Gate {
  /** Called instead of the statement; `execute` sends it, or another text in its place. */
  pass?: <T>(sql: string, execute: (sql: string) => T | Promise<T>) => Promise<T>;
}

const gates = new WeakMap<DataSource, Gate>();

/**
 * A connection does one thing at a time: a statement, or a transaction as a whole. Drivers of servers see to that
 * themselves.
 */
class Line {
  private last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const result = this.last.then(work);
    this.last = result.catch(() => {});
    return result;
  }
}

const lines = new WeakMap<DataSource, Line>();

/**
 * Lets every statement of the data source pass a gate, those that begin and end transactions too. The gate stands open
 * at first.
 */
export function gateOf(dataSource: DataSource): Gate {
  const gate: Gate = {};
  gates.set(dataSource, gate);
  if (dataSource.options.type === 'better-sqlite3') lines.set(dataSource, new Line());
  const createQueryRunner = dataSource.createQueryRunner.bind(dataSource);
  // SQLite has one for all.
  const gated = new WeakSet<QueryRunner>();
  dataSource.createQueryRunner = (mode) => {
    const queryRunner = createQueryRunner(mode);
    if (gated.has(queryRunner)) return queryRunner;
    gated.add(queryRunner);
    const query = queryRunner.query.bind(queryRunner) as (sql: string, ...more: unknown[]) => Promise<unknown>;
    const send = (sql: string, more: readonly unknown[]): Promise<unknown> =>
      gate.pass ? gate.pass(sql, (text) => query(text, ...more)) : query(sql, ...more);
    queryRunner.query = ((sql: string, ...more: unknown[]) => {
      const line = gate.pass && lines.get(dataSource);
      return line ? line.take(() => send(sql, more)) : send(sql, more);
    }) as QueryRunner['query'];
    const connect = queryRunner.connect.bind(queryRunner) as () => Promise<object>;
    queryRunner.connect = async () => gatePrepared(await connect(), gate);
    return queryRunner;
  };
  return gate;
}

interface PreparedQuery {
  readonly name: string;
  readonly text: string;
}

/** Prepared statements go to the driver's own connection, and not through the query runner. */
function gatePrepared(connection: object, gate: Gate): object {
  const { pass } = gate;
  if (!pass) return connection;
  return new Proxy(connection, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      const call = (...args: unknown[]): unknown => Reflect.apply(value, target, args);
      return (...args: unknown[]): unknown => {
        // PostgreSQL's, which gives a promise.
        const [query] = args as [PreparedQuery | undefined];
        if (property === 'query' && query?.name) {
          return pass(query.text, (text) =>
            call({ ...query, text, name: text === query.text ? query.name : undefined }),
          );
        }
        // MySQL's, which calls back.
        if (property === 'execute') {
          const [asked, done] = args as [{ sql: string }, (error: unknown, answer?: unknown) => void];
          const execute = (text: string) =>
            new Promise((resolve, reject) => {
              call({ ...asked, sql: text }, (error: unknown, answer: unknown) =>
                error ? reject(error) : resolve(answer),
              );
            });
          return callbackify(() => pass(asked.sql, execute))(done);
        }
        return call(...args);
      };
    },
  });
}

// ---- SQLite

interface Connection {
  prepare(sql: string): { reader: boolean; all(...params: unknown[]): unknown; run(...params: unknown[]): unknown };
  exec(sql: string): unknown;
  readonly inTransaction: boolean;
}

const SUSPENDED = new Error('not yet');

/**
 * On SQLite the store runs a transaction in one turn of the event loop, on a connection that answers at once, so
 * nothing in this process can come in between; statements of another process do. To let them, the store's own code runs
 * again and again on a stand-in of the connection, which gives the answers that are known and breaks off at the first
 * statement that is not: that one then waits at the gate, is sent, and is known in the next run.
 */
export function cutSqliteTransactions(): () => void {
  // oxlint-disable-next-line typescript/unbound-method -- called with a connection each time
  const { atomic } = TypeOrmSqliteConnection.prototype;
  TypeOrmSqliteConnection.prototype.atomic = async function (steps) {
    const dataSource = (this as unknown as { dataSource: DataSource }).dataSource;
    const pass = gates.get(dataSource)?.pass;
    return pass ? lines.get(dataSource)!.take(() => cut(this, steps, dataSource, pass)) : atomic.call(this, steps);
  };
  const cut = async (
    connection: TypeOrmSqliteConnection,
    steps: Parameters<typeof atomic>[0],
    dataSource: DataSource,
    pass: NonNullable<Gate['pass']>,
  ): ReturnType<typeof atomic> => {
    const { databaseConnection } = dataSource.driver as unknown as { databaseConnection: Connection };
    const known: ({ value: unknown } | { error: unknown })[] = [];
    for (;;) {
      let place = 0;
      let next: { sql: string; call: (sql: string) => unknown } | undefined;
      const answer = (sql: string, call: (sql: string) => unknown): unknown => {
        const one = next ? undefined : known[place++];
        if (!one) {
          next ??= { sql, call };
          throw SUSPENDED;
        }
        if ('error' in one) throw one.error;
        return one.value;
      };
      const standIn: Connection = {
        exec: (sql) => answer(sql, (text) => databaseConnection.exec(text)),
        prepare: (sql) => ({
          reader: databaseConnection.prepare(sql).reader,
          all: (...params) => answer(sql, (text) => databaseConnection.prepare(text).all(...params)),
          run: (...params) => answer(sql, (text) => databaseConnection.prepare(text).run(...params)),
        }),
        // Looked at where it is asked for, and the same in the next run.
        get inTransaction() {
          if (!next && !known[place]) known.push({ value: databaseConnection.inTransaction });
          return answer('', () => undefined) as boolean;
        },
      };
      const cutConnection = Object.create(connection, {
        dataSource: { value: { driver: { databaseConnection: standIn }, logger: dataSource.logger } },
      }) as TypeOrmSqliteConnection;
      try {
        const result = await atomic.call(cutConnection, steps);
        if (!next) return result;
      } catch (error) {
        if (!next) throw error;
      }
      const { sql, call } = next;
      known.push(
        await pass(sql, call).then(
          (value) => ({ value }),
          (error: unknown) => ({ error }),
        ),
      );
    }
  };
  return () => {
    TypeOrmSqliteConnection.prototype.atomic = atomic;
  };
}
