import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, expect, test } from 'vitest';
import { databases, describeDatabases } from '../support/databases.js';

const connected: DataSource[] = [];

afterEach(async () => {
  await Promise.all(connected.splice(0).map((dataSource) => dataSource.destroy()));
});

async function connect(options: DataSource['options']): Promise<DataSource> {
  const dataSource = await new DataSource(options).initialize();
  connected.push(dataSource);
  return dataSource;
}

test('the table lists the three databases', () => {
  expect(databases.map(({ name }) => name)).toEqual(['mariadb', 'postgres', 'sqlite']);
});

describeDatabases('a test database', (db) => {
  test('answers through TypeORM', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options);

    const [row] = await dataSource.query<Record<string, unknown>[]>('SELECT 1 AS one');

    expect(Number(row?.['one'])).toBe(1);
  });

  test('is independent: two of them do not affect each other', async () => {
    const one = await connect((await db.open()).options);
    const two = await connect((await db.open()).options);

    await one.query('CREATE TABLE only_here (id int)');

    expect(await one.query('SELECT * FROM only_here')).toEqual([]);
    await expect(two.query('SELECT * FROM only_here')).rejects.toThrow(/only_here/);
  });

  test('no longer exists after drop', async () => {
    const { options, drop } = await db.open();
    const before = await connect(options);
    await before.query('CREATE TABLE only_here (id int)');
    await before.destroy();
    connected.splice(0);

    await drop();
    await drop();

    // To connect to it would make a new, empty file.
    if (options.type === 'better-sqlite3') expect(existsSync(dirname(options.database))).toBe(false);
    else await expect(connect(options)).rejects.toThrow(/unknown database|does not exist/i);
  });
});
