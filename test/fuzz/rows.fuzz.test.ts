import { Controller, Get, Post } from '@nestjs/common';
import {
  CurrentVisit,
  DefaultSessionSerializer,
  IdentityService,
  Session,
  SessionDataError,
  VisitService,
} from 'nest-visit';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SessionDictionary } from '../../lib/session/session.dictionary.js';
import { platforms, startApp, type PlatformName, type RunningApp } from '../support/app.js';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { ManualClock } from '../support/manual-clock.js';
import { openMigrated } from '../support/open-migrated.js';
import { isForToday } from '../support/today.js';
import { watchBuiltIns } from './built-ins.js';
import { inTime } from './in-time.js';
import { inputs, Random, replay } from './random.js';
import { almostFormat1, damaged, format1, sessions } from './stored.js';

const MINUTES = 60_000;
const serializer = new DefaultSessionSerializer();
const genuine = sessions.map((session) => Buffer.from(serializer.encode(session)));

const KNOWN_PROTOTYPES = new Set<unknown>([
  Object.prototype,
  ...[Array, Map, Set, Date, Buffer, ArrayBuffer, DataView].map(({ prototype }) => prototype),
  ...[
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
  ].map(({ prototype }) => prototype),
  ...[BigInt64Array, BigUint64Array].map(({ prototype }) => prototype),
]);

/** How much there is in a value, in about bytes. Throws for an object that session data cannot be. */
function weightOf(root: unknown): number {
  const waiting: unknown[] = [root];
  const seen = new Set<object>();
  let weight = 0;
  while (waiting.length > 0) {
    const value = waiting.pop();
    weight += typeof value === 'string' ? value.length + 1 : typeof value === 'bigint' ? value.toString(16).length : 1;
    if (typeof value === 'function' || typeof value === 'symbol')
      throw new Error(`session data holds a ${typeof value}`);
    if (typeof value !== 'object' || value === null || seen.has(value)) continue;
    seen.add(value);
    if (!KNOWN_PROTOTYPES.has(Object.getPrototypeOf(value)))
      throw new Error('session data holds an object of another kind');
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) weight += value.byteLength;
    else if (value instanceof Map) for (const pair of value) waiting.push(pair[0], pair[1]);
    else if (value instanceof Set) for (const one of value) waiting.push(one);
    else if (Array.isArray(value)) for (let at = 0; at < value.length; at++) waiting.push(value[at]);
    else for (const [name, one] of Object.entries(value)) waiting.push(name, one);
  }
  return weight;
}

/**
 * Whether the bytes can be read. What is read is small, of known kinds, no change, and can be written and read again;
 * else the one error is thrown.
 */
function expectDataOrError(bytes: Uint8Array, message: () => string): boolean {
  let data: Map<string, unknown>;
  try {
    data = serializer.decode(bytes);
  } catch (error) {
    if (!(error instanceof SessionDataError) || error.code !== 'SESSION_UNREADABLE')
      expect.fail(`${String(error)} for ${message()}`);
    return false;
  }
  try {
    const weight = weightOf(data);
    if (weight > 20 * bytes.length) expect.fail(`${bytes.length} bytes became ${weight}`);
    const looked = new SessionDictionary(serializer, () => data);
    for (const key of looked.keys()) looked.get(key);
    if (looked.changes() !== null) expect.fail('a look is taken for a change');
    const written = Buffer.from(serializer.encode(data));
    const again = serializer.encode(serializer.decode(written));
    if (!written.equals(again)) expect.fail('written and read again it is another');
  } catch (error) {
    expect.fail(`${String(error)} for ${message()}`);
  }
  return true;
}

const shown = (bytes: Uint8Array): string => JSON.stringify(Buffer.from(bytes).toString('latin1'));

describe('Stored session data, read by the serializer', () => {
  test('R54: a small row needs little memory', () => {
    const before = process.resourceUsage().maxRSS;
    const rows = [
      '[{},{"a":[["Array",4294967295]]}]',
      '[{},{"a":[{"length":4294967295}]}]',
      '[{},{"a":[["Array"],{"4294967294":[0]}]}]',
      '[{"a":{"4294967294":1,"length":4294967295}}]',
      '[{},{"a":[["ArrayBuffer",4294967295]]}]',
      '[{},{"a":[["ArrayBuffer","4294967295"]]}]',
      '[{},{"a":[["Float64Array",[4294967295]]]}]',
      '[{},{"a":[["Buffer",{"type":"Buffer","length":4294967295}]]}]',
      '[{},{"a":[["BigInt","1e999999999"]]}]',
      '[{},{"a":[["Date",1e308]]}]',
      '[{},{"a":[["Map",[0],[0]],["Set",[0],[1]]]}]',
      '[{"a":1e999,"b":-1e999,"c":1e-999}]',
    ].map(format1);
    inTime(() => {
      for (const row of rows) expectDataOrError(row, () => shown(row));
      for (let index = 0; index < inputs(2_000); index++) {
        const row = almostFormat1(new Random(index, 10));
        if (row.length <= 100) expectDataOrError(row, () => replay(index, row.toString()));
      }
    }, inputs(MINUTES));
    // In kilobytes, and the most that there ever was.
    expect(process.resourceUsage().maxRSS - before, replay()).toBeLessThan(512 * 1024);
  });

  test('R54: truncated at any byte, it is unreadable', () => {
    inTime(() => {
      for (const row of genuine) {
        for (let length = 0; length < row.length; length++) {
          expect(
            expectDataOrError(row.subarray(0, length), () => `${length} bytes of ${shown(row)}`),
            `${length} bytes of ${shown(row)}`,
          ).toBe(false);
        }
      }
    });
  });

  test('R54: with any flipped bit or any other first byte, it is data or the documented error', () => {
    const expectUntouched = watchBuiltIns();
    inTime(() => {
      for (const row of genuine) {
        for (let bit = 0; bit < row.length * 8; bit++) {
          if (!isForToday(bit, 3)) continue;
          const bytes = Buffer.from(row);
          bytes[bit >> 3]! ^= 1 << (bit & 7);
          expectDataOrError(bytes, () => shown(bytes));
        }
        for (let byte = 0; byte < 256; byte++) {
          const bytes = Buffer.from(row);
          bytes[0] = byte;
          expect(expectDataOrError(bytes, () => shown(bytes))).toBe(byte === 1);
        }
      }
    }, MINUTES);
    expectUntouched();
  });

  const kinds: Record<string, (random: Random) => Buffer> = {
    'like those that are written, with any names, tags, references and cycles': almostFormat1,
    'with damage': (random) => damaged(random, genuine),
    'of noise': (random) =>
      Buffer.concat([Buffer.from(random.chance(0.7) ? [1] : []), random.bytes(random.below(120))]),
  };
  test.each(Object.entries(kinds))(
    'R53, R54: rows %s are data or the documented error, and pollute no prototype',
    (kind, make) => {
      const expectUntouched = watchBuiltIns();
      let readable = 0;
      const count = inputs(kind === 'of noise' ? 2_000 : 8_000);
      inTime(() => {
        for (let index = 0; index < count; index++) {
          const bytes = make(new Random(index, 11));
          if (expectDataOrError(bytes, () => `${replay(index)}: ${shown(bytes)}`)) readable++;
          if (index % 1000 === 0) expectUntouched(replay(index));
        }
      }, inputs(MINUTES));
      expectUntouched();
      // Else the rows would say nothing about what is read.
      if (kind !== 'of noise') expect(readable, replay()).toBeGreaterThan(count / 50);
    },
  );

  test('R53, R54: a megabyte of any bytes is read, or refused, in time', () => {
    const fill = (text: string): string => text.repeat(Math.ceil(1_000_000 / text.length));
    const many = (count: number, one: (index: number) => string): string =>
      Array.from({ length: count }, (_, index) => one(index)).join();
    const rows: Record<string, string> = {
      'open lists': fill('['),
      'deep lists': `[{"a":${'['.repeat(400_000)}${']'.repeat(400_000)}}]`,
      'deep objects': `[{"a":${'{"__proto__":'.repeat(70_000)}1${'}'.repeat(70_000)}}]`,
      'deep lists in a value': `[{},{"a":[["Array",${'['.repeat(400_000)}${']'.repeat(400_000)}]]}]`,
      'a chain of nodes': `[{},{"a":[${many(60_000, (index) => `["Array",[${Math.min(index + 1, 59_999)}]]`)}]}]`,
      'a chain of Maps': `[{},{"a":[${many(40_000, (index) => `["Map",[${Math.min(index + 1, 39_999)}],[0]]`)}]}]`,
      'one node in many places': `[{},{"a":[["Array",${many(200_000, () => '[0]')}]]}]`,
      'many entries': `[{${many(80_000, (index) => `"k${index}":1`)}}]`,
      'many entries in an order': `[{${many(40_000, (index) => `"k${index}":1`)}},{},[${many(40_000, (index) => `"k${39_999 - index}"`)}]]`,
      'one entry many times': `[{${many(100_000, () => '"__proto__":1')}}]`,
      'many graphs': `[{},{${many(60_000, (index) => `"k${index}":[{}]`)}}]`,
      'many whole numbers as keys': `[{"a":{${many(60_000, (index) => `"${4_294_967_294 - index * 60_000}":1`)}}}]`,
      'a long whole number': `[{},{"a":[["BigInt","${fill('9')}"]]}]`,
      'a long number': `[{"a":${fill('9')}}]`,
      'a long fraction': `[{"a":0.${fill('0')}1}]`,
      'long text': `[{"a":"${fill('\\ud800')}"}]`,
      'text without an end': `[{"a":"${fill('\\u0000')}`,
      'long bytes': `[{},{"a":[["Buffer","${fill('AAAA')}"]]}]`,
      'invalid bytes': `[{},{"a":[["Float64Array","${fill('= -_')}"]]}]`,
      'a Set of many': `[{},{"a":[["Set",${many(140_000, (index) => String(index))}]]}]`,
      spaces: `[${fill(' ')}`,
    };
    const expectUntouched = watchBuiltIns();
    for (const [index, [name, text]] of Object.entries(rows).entries())
      if (isForToday(index, 3)) inTime(() => expectDataOrError(format1(text), () => name));
    expectUntouched();
  });
});

@Controller()
class RowController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
  ) {}

  @Get('see')
  see(@CurrentVisit() visit: CurrentVisit) {
    for (const key of this.session.keys()) void this.session.get(key);
    return {
      isNew: visit.isNew,
      userId: this.identity.userId,
      size: this.session.size,
      visit,
      idle: visit.idle(),
      age: visit.age(),
    };
  }

  @Post('write')
  write() {
    this.session.set('written', true);
    return { size: this.session.size };
  }

  @Get('code')
  code() {
    try {
      return { size: this.session.size };
    } catch (error) {
      return { error: (error as SessionDataError).name, code: (error as SessionDataError).code };
    }
  }
}

const NUMBERS = [
  '-1',
  '0',
  '1.5',
  '-9223372036854775808',
  '9223372036854775807',
  '9007199254740993',
  '8640000000000001',
  '1e300',
  '-1e300',
  '9e999',
  '-9e999',
  "''",
];
const NO_NUMBERS = ["'text'", "'-'", "x'00ff'", "'NaN'"];
const TEXTS = [
  "''",
  `'${'x'.repeat(100_000)}'`,
  "'__proto__'",
  "'<script>'",
  `'${'é'.repeat(300)}'`,
  "'👩'",
  '0',
  '-1',
  '1e300',
  "x''",
  "x'ff00'",
];
const HASHES = [
  "''",
  `'${'z'.repeat(64)}'`,
  `'${'a'.repeat(63)}'`,
  `'${'é'.repeat(32)}'`,
  `'${'é'.repeat(64)}'`,
  `zeroblob(64)`,
  'upper(key_hash)',
  "key_hash || ' '",
  'substr(key_hash, 2)',
  ...TEXTS,
];

/** What a column is made to hold, in SQL. */
const columns: Record<string, readonly string[]> = {
  'visit.key_hash': HASHES,
  'visit.previous_key_hash': [...HASHES, 'key_hash', 'upper(key_hash)', 'NULL'],
  'visit.previous_key_until': [...NUMBERS, ...NO_NUMBERS],
  'visit.key_changed': [...NUMBERS, ...NO_NUMBERS],
  'visit.created': [...NUMBERS, ...NO_NUMBERS],
  'visit.accessed': [...NUMBERS, ...NO_NUMBERS],
  'visit.expiry': NUMBERS,
  'visit.absolute_expiry': NUMBERS,
  'visit.ended_at': [...NUMBERS, ...NO_NUMBERS],
  'visit.end_reason': TEXTS,
  'visit.permanent': [...NUMBERS, ...NO_NUMBERS],
  'visit.remote_address': TEXTS,
  'visit.user_agent': TEXTS,
  'visit.session_data': ["x''", "x'01'", "x'ff'", 'zeroblob(1000000)', "''"],
  'visit.session_version': ['-1', '0', '2147483647', '4294967296'],
  'visit.lock_owner': TEXTS,
  'visit.locked_until': [...NUMBERS, ...NO_NUMBERS],
  'visit_identity.user_id': TEXTS,
  'visit_identity.created': [...NUMBERS, ...NO_NUMBERS],
  'visit_identity.authenticated_at': [...NUMBERS, ...NO_NUMBERS],
};

const parts = { controllers: [RowController] };

describe('Stored rows, read by requests on SQLite', () => {
  const clock = new ManualClock();
  const running: RunningApp[] = [];
  let database: OpenDatabase;
  let dataSource: DataSource;

  beforeAll(async () => {
    database = await openDatabase('sqlite');
    dataSource = await openMigrated(database.options);
  });
  afterAll(async () => {
    await Promise.all(running.map((one) => one.close()));
    await dataSource?.destroy();
    await database?.drop();
  });

  async function start(platform: PlatformName, onUnreadable: 'empty' | 'throw') {
    const options = {
      dataSource,
      clock,
      session: { onUnreadable },
      expunge: { schedule: false },
      wipe: { schedule: false },
    } as const;
    const one = await startApp(platform, options, parts);
    running.push(one);
    const visits = one.app.get(VisitService);
    const ask = async (path: string, key: string) => {
      const method = path === '/write' ? 'POST' : 'GET';
      const { status, text } = await one.browser().get(path, { method, cookie: `visit=${key}` });
      return { status, body: JSON.parse(text) as Record<string, unknown> };
    };
    return { visits, ask };
  }

  test.each(platforms)(
    'R53, R54: session data of any bytes is data, an empty session, or the documented error, under %s',
    async (platform) => {
      const expectUntouched = watchBuiltIns();
      const lenient = await start(platform, 'empty');
      const strict = await start(platform, 'throw');
      const count = inputs(35);
      for (let index = 0; index < count; index++) {
        const random = new Random(index, 12);
        const truncated = random.of(genuine);
        const bytes = random.of([
          () => damaged(random, genuine),
          () => almostFormat1(random),
          () => truncated.subarray(0, random.below(truncated.length)),
          () => Buffer.concat([Buffer.from([random.below(256)]), random.bytes(random.below(50))]),
        ])();
        const message = `${replay(index)}: ${shown(bytes)}`;
        const readable = sizeOf(bytes);
        const { key, visit } = await lenient.visits.create({ userId: 'Ann' });
        await dataSource.query('UPDATE visit SET session_data = ? WHERE id = ?', [bytes, visit.id]);

        expect(await strict.ask('/code', key), message).toEqual({
          status: 200,
          body: readable === null ? { error: 'SessionDataError', code: 'SESSION_UNREADABLE' } : { size: readable },
        });
        expect((await strict.ask('/see', key)).status, message).toBe(readable === null ? 500 : 200);
        expect(await lenient.ask('/see', key), message).toMatchObject({
          status: 200,
          body: { isNew: false, userId: 'Ann', size: readable ?? 0 },
        });
        expect(await lenient.ask('/write', key), message).toMatchObject({ status: 201 });
        expect(await strict.ask('/see', key), message).toMatchObject({
          status: 200,
          body: { isNew: false, userId: 'Ann', size: (readable ?? 0) + 1 },
        });
        expectUntouched(message);
      }
    },
  );

  test.each(platforms)(
    'R54: any numbers and hashes in the columns cause no 5xx, and do not affect other visits, under %s',
    async (platform) => {
      const expectUntouched = watchBuiltIns();
      const app = await start(platform, 'empty');
      const count = inputs(35);
      for (let index = 0; index < count; index++) {
        const random = new Random(index, 13);
        const permanent = random.chance(0.5);
        const broken = random
          .shuffled(Object.entries(columns))
          .slice(0, 1 + random.below(3))
          .map(([column, literals]) => [column, random.of(literals)] as const);
        const message = replay(index, { permanent, broken });
        const hostile = await app.visits.create({ userId: 'Ann', permanent });
        const other = await app.visits.create({ userId: 'Bob' });
        for (const [column, literal] of broken) await breakColumn(hostile.visit.id, column, literal);
        // More than half of the life of a visit: the cookie of a permanent one is sent anew.
        clock.advance(11 * MINUTES);

        for (const path of ['/see', '/write', '/see']) {
          const [answer, ofOther] = await Promise.all([app.ask(path, hostile.key), app.ask('/see', other.key)]);
          expect(answer.status, message).toBeLessThan(500);
          expect(ofOther, message).toMatchObject({ status: 200, body: { isNew: false, userId: 'Bob' } });
          if (path === '/write') continue;
          const isBroken = (name: string): boolean => broken.some(([column]) => column === name);
          if (isBroken('visit.key_hash')) expect(answer.body, message).toMatchObject({ isNew: true, userId: null });
          else if (!isBroken('visit_identity.user_id')) expect(answer.body['userId'], message).toBeOneOf([null, 'Ann']);
        }
        await app.visits.flush();
        expect(await expiryOf(other.visit.id), message).toBe(clock.now() + 20 * MINUTES);
        expectUntouched(message);
        await dataSource.query('DELETE FROM visit');
      }
    },
  );

  /** SQLite alone lets a column hold values of another type. */
  describe('of another type', () => {
    test.each(["'text'", '5', '0.5'])('R54: session data that is %s is an empty session', async (literal) => {
      const app = await start('express', 'empty');
      const { key, visit } = await app.visits.create({ userId: 'Ann' });
      await breakColumn(visit.id, 'visit.session_data', literal);
      expect(await app.ask('/see', key)).toMatchObject({ status: 200, body: { userId: 'Ann', size: 0 } });
    });

    test('R54: unreadable session data does not affect concurrent requests', async () => {
      const app = await start('express', 'empty');
      const hostile = await app.visits.create();
      const other = await app.visits.create();
      await breakColumn(hostile.visit.id, 'visit.session_data', "'text'");
      const [, ofOther] = await Promise.allSettled([
        app.visits.find(hostile.visit.id),
        app.visits.find(other.visit.id),
      ]);
      expect(ofOther).toMatchObject({ status: 'fulfilled', value: { id: other.visit.id } });
    });

    test.each(['expiry', 'absolute_expiry'])(
      'a visit does not live forever if its %s is not a number',
      async (column) => {
        const app = await start('express', 'empty');
        const { key, visit } = await app.visits.create({ userId: 'Ann' });
        await breakColumn(visit.id, `visit.${column}`, "'text'");
        clock.advance(30 * 24 * 60 * MINUTES);
        expect(await app.ask('/see', key)).toMatchObject({ status: 200, body: { userId: null } });
      },
    );

    test('other visits are not affected if an absolute_expiry is not a number', async () => {
      const app = await start('express', 'empty');
      const hostile = await app.visits.create();
      const other = await app.visits.create();
      await breakColumn(hostile.visit.id, 'visit.absolute_expiry', "'text'");
      clock.advance(11 * MINUTES);
      await app.ask('/see', hostile.key);
      await app.ask('/see', other.key);
      await app.visits.flush();
      expect(await expiryOf(other.visit.id)).toBe(clock.now() + 20 * MINUTES);
    });

    test.each(['expiry', 'absolute_expiry'])(
      'a request with a permanent visit whose %s is not a number gets a response',
      async (column) => {
        const app = await start('express', 'empty');
        const { key, visit } = await app.visits.create({ permanent: true });
        await breakColumn(visit.id, `visit.${column}`, "'text'");
        clock.advance(11 * MINUTES);
        expect((await app.ask('/see', key)).status).toBeLessThan(500);
      },
    );

    test.each(["'text'", '9007199254740993'])('a session is saved if its version is %s', async (literal) => {
      const app = await start('express', 'empty');
      const { key, visit } = await app.visits.create();
      await breakColumn(visit.id, 'visit.session_version', literal);
      expect((await app.ask('/write', key)).status).toBeLessThan(500);
    });
  });

  const breakColumn = (id: string, path: string, literal: string): Promise<unknown> => {
    const [table, column] = path.split('.') as ['visit' | 'visit_identity', string];
    return dataSource.query(
      `UPDATE ${table} SET ${column} = ${literal} WHERE ${table === 'visit' ? 'id' : 'visit_id'} = ?`,
      [id],
    );
  };

  const expiryOf = async (id: string): Promise<unknown> =>
    (await dataSource.query<{ expiry: number }[]>('SELECT expiry FROM visit WHERE id = ?', [id]))[0]?.expiry;
});

function sizeOf(bytes: Uint8Array): number | null {
  try {
    return serializer.decode(bytes).size;
  } catch {
    return null;
  }
}
