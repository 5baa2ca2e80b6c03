import { randomBytes } from 'node:crypto';
import { type VisitRecord } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { gateOf, type Gate } from '../interleaving/gate.js';
import { openMigrated } from '../support/open-migrated.js';
import { describeDatabases } from '../support/databases.js';
import { created } from '../../lib/store/visit.record.js';

const NOW = Date.now();

const newVisit = (): VisitRecord =>
  created({
    id: randomBytes(16).toString('hex'),
    keyHash: randomBytes(32).toString('hex'),
    created: NOW,
    expiry: NOW + 1000,
  });

/** What makes each database refuse data that begins with `!`. */
const REFUSING = {
  mariadb: 'ALTER TABLE visit ADD CONSTRAINT calm CHECK (session_data NOT LIKE BINARY "!%")',
  postgres: `ALTER TABLE visit ADD CONSTRAINT calm CHECK (get_byte(session_data, 0) <> 33)`,
  sqlite:
    `CREATE TRIGGER calm BEFORE UPDATE ON visit WHEN hex(substr(new.session_data, 1, 1)) = '21' BEGIN SELECT ` +
    `RAISE(ABORT, 'calm'); END`,
};

describeDatabases('A group of saves', (db) => {
  let dataSource: DataSource;
  let store: TypeOrmVisitStore;
  let gate: Gate;
  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    gate = gateOf(dataSource);
    store = new TypeOrmVisitStore(dataSource);
    await dataSource.query(REFUSING[db.name]);
  });
  afterAll(() => dataSource?.destroy());

  const group = async (count: number, bad: readonly number[]) => {
    const visits = Array.from({ length: count }, newVisit);
    await store.create(visits);
    return visits.map(({ id, keyHash }, i) => ({
      id,
      keyHash,
      now: NOW,
      version: 0,
      data: Buffer.from(bad.includes(i) ? '!bad' : 'good'),
    }));
  };

  test.each([[[0]], [[3]], [[0, 6]]])(
    'B15: a save that the database refuses does not fail its neighbors: %j',
    async (bad) => {
      const saves = await group(7, bad);
      const results = await store.save(saves);
      expect(results.map(({ outcome }) => outcome)).toEqual(
        saves.map((_, i) => (bad.includes(i) ? 'failed' : 'saved')),
      );
      const stored = await store.find(saves.map(({ id }) => id));
      expect(stored.map((visit) => visit?.sessionVersion)).toEqual(saves.map((_, i) => (bad.includes(i) ? 0 : 1)));
    },
  );

  test('B1, R31, B8: a refused save changes nothing, and its neighbors are written', async () => {
    const saves = await group(6, []);
    const ids = saves.map(({ id }) => id);
    await store.end([ids[1]!], { reason: 'ended', at: NOW });
    await store.save([{ ...saves[2]!, data: Buffer.from('first') }]);
    await dataSource.query(`DELETE FROM visit WHERE id = '${ids[4]}'`);
    const results = await store.save([...saves.slice(0, 5), { ...saves[5]!, lockOwner: 'nobody' }]);
    expect(results).toEqual([
      { outcome: 'saved', version: 1 },
      { outcome: 'refused', reason: 'ended' },
      { outcome: 'conflict', version: 1, data: Buffer.from('first') },
      { outcome: 'saved', version: 1 },
      { outcome: 'refused', reason: 'unknown' },
      { outcome: 'refused', reason: 'unlocked' },
    ]);
    const stored = await store.find(ids);
    expect(stored.map((visit) => visit?.sessionVersion)).toEqual([1, 1, 1, 1, undefined, 0]);
    expect((await store.save([{ ...saves[4]! }, { ...saves[5]! }])).map(({ outcome }) => outcome)).toEqual([
      'refused',
      'saved',
    ]);
  });

  // SQLite has no connection that goes away, and prepares everything.
  if (db.name === 'sqlite') return;

  test.each([
    { how: 'the connection went away', told: { code: 'PROTOCOL_CONNECTION_LOST' } },
    ...(db.name === 'mariadb' ? [{ how: 'a node lost its cluster', told: { errno: 1180, sqlState: 'HY000' } }] : []),
  ])('saves that may have been written when $how are not repeated', async ({ told }) => {
    const saves = await group(3, []);
    let statements = 0;
    gate.pass = async (sql, execute) => {
      const result = await execute(sql);
      if (!sql.startsWith('UPDATE')) return result;
      statements++;
      throw Object.assign(new Error('Lost'), told);
    };
    const results = await store.save(saves);
    delete gate.pass;
    expect(results.map(({ outcome }) => outcome)).toEqual(['failed', 'failed', 'failed']);
    expect(statements).toBe(1);
  });

  test('B15: saves whose statement could not be sent completely are written in smaller groups', async () => {
    const saves = await group(4, []);
    let statements = 0;
    gate.pass = async (sql, execute) => {
      if (sql.startsWith('UPDATE') && ++statements === 1)
        throw Object.assign(new Error('write ECONNRESET'), { code: 'ECONNRESET', syscall: 'write', fatal: true });
      return execute(sql);
    };
    const results = await store.save(saves);
    delete gate.pass;
    expect(results).toEqual(saves.map(() => ({ outcome: 'saved', version: 1 })));
    expect(statements).toBe(3);
  });

  test('saves that were written are not repeated if they cannot be read afterwards', async () => {
    const saves = await group(4, []);
    await dataSource.query(`DELETE FROM visit WHERE id = '${saves[3]!.id}'`);
    let statements = 0;
    gate.pass = async (sql, execute) => {
      if (sql.startsWith('SELECT'))
        throw Object.assign(new Error('unreadable'), { code: '22012', errno: 1690, sqlState: '22003' });
      if (sql.startsWith('UPDATE')) statements++;
      return execute(sql);
    };
    const results = await store.save(saves);
    delete gate.pass;
    // MariaDB does not tell which of them it has written.
    const known = db.name === 'mariadb' ? 'failed' : 'saved';
    expect(results.map(({ outcome }) => outcome)).toEqual([known, known, known, 'failed']);
    expect(statements).toBe(1);
    expect((await store.find(saves.map(({ id }) => id))).map((visit) => visit?.sessionVersion)).toEqual([
      1,
      1,
      1,
      undefined,
    ]);
  });

  test('works without prepared statements if they are not available, as behind a pooler', async () => {
    const saves = await group(3, []);
    const texts: string[] = [];
    let refused = 0;
    gate.pass = async (sql, execute) => {
      texts.push(sql);
      if (refused++ > 0) return execute(sql);
      throw Object.assign(
        new Error('not here'),
        db.name === 'postgres' ? { code: '26000' } : { errno: 1295, sqlState: 'HY000' },
      );
    };
    const fresh = new TypeOrmVisitStore(dataSource);
    expect((await fresh.save(saves)).map(({ outcome }) => outcome)).toEqual(['saved', 'saved', 'saved']);
    expect((await fresh.find(saves.map(({ id }) => id))).map((visit) => visit?.sessionVersion)).toEqual([1, 1, 1]);
    delete gate.pass;
    // Asked for twice, as it was refused once; what comes later is not prepared at all.
    expect(texts.length).toBe(3);
    expect(texts[1]).toBe(texts[0]);
  });
});
