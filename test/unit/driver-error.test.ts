import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { driverError, isUnsent, sqlStateOf, withoutValues } from '../../lib/store/sql/driver-error.js';
import { MysqlDialect } from '../../lib/store/sql/mysql.dialect.js';
import { PostgresDialect } from '../../lib/store/sql/postgres.dialect.js';
import { SqliteDialect } from '../../lib/store/sql/sqlite.dialect.js';

const failed = (details: object, message = 'no'): Error => Object.assign(new Error(message), details);

test('B15: an error of a socket is not an answer of the server: the statement may have been executed', () => {
  const dialects = [new MysqlDialect(), new PostgresDialect()];
  for (const code of ['EPIPE', 'EPERM', 'ECONNRESET', 'ETIMEDOUT', 'CONNECTION_CLOSED', 'PROTOCOL_CONNECTION_LOST']) {
    expect(sqlStateOf(failed({ code })), code).toBe('08000');
    for (const dialect of dialects) {
      expect(dialect.isRefusal(failed({ code })), code).toBe(false);
      expect(dialect.isRefusal(failed({ code, syscall: 'write' })), code).toBe(false);
    }
    // Only an error while the rest of the statement was sent shows that it cannot have been executed.
    expect(isUnsent(failed({ code, syscall: 'read' })), code).toBe(false);
    expect(isUnsent(failed({ code, syscall: 'write' })), code).toBe(true);
  }
  expect(dialects[0]!.isRefusal(failed({ errno: 1406, sqlState: '22001' }))).toBe(true);
  expect(dialects[1]!.isRefusal(failed({ code: '22P02' }))).toBe(true);
  expect(new SqliteDialect().isRefusal(failed({ code: 'SQLITE_CONSTRAINT_CHECK' }))).toBe(true);
});

test("the driver's error is found in the errors of libraries, and contains no values", () => {
  const details = {
    code: '23514',
    constraint: 'calm',
    detail: 'Failing row contains (secret).',
    where: "$1 = 'secret'",
    sql: "'secret'",
  };
  const wrapped = [
    failed({ driverError: failed(details, 'refused') }),
    failed({ cause: failed(details, 'refused'), query: 'INSERT', params: ['secret'] }),
    failed(details, 'refused'),
    // As `postgres` does, which lets nobody delete it.
    Object.defineProperties(failed({ code: '23514', constraint: 'calm' }, 'refused'), {
      parameters: { value: ['secret'] },
      query: { value: '?' },
    }),
  ];
  for (const error of wrapped) {
    expect(driverError(error)).toMatchObject({ message: 'refused', code: '23514' });
    const said = withoutValues(error);
    expect(said).toMatchObject({ message: 'refused', code: '23514', constraint: 'calm' });
    expect(inspect(said, { depth: 9, showHidden: true })).not.toContain('secret');
  }
  expect(withoutValues('text')).toBe('text');
});
