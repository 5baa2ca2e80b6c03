import { isDeepStrictEqual } from 'node:util';
import { All, Body, Controller, Query } from '@nestjs/common';
import { CurrentVisit, IdentityService, Session, VisitService, type VisitSettings } from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VisitCookie } from '../../lib/key/visit-cookie.js';
import { VisitKey } from '../../lib/key/visit-key.js';
import { truncateAddress } from '../../lib/visit/remote-address.js';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { ManualClock } from '../support/manual-clock.js';
import { openMigrated } from '../support/open-migrated.js';
import { watchBuiltIns } from './built-ins.js';
import { Door, type Knock } from './door.js';
import {
  addressText,
  cookieHeader,
  forgedKey,
  jsonText,
  JUNK,
  keyText,
  otherHeaders,
  parameters,
  parameterValue,
  wrongSecret,
} from './hostile.js';
import { inTime } from './in-time.js';
import { inputs, Random, replay } from './random.js';
import { hostileRequest, send } from './wire.js';

const MINUTES = 60_000;
/** Requests at once. */
const WAVE = 200;

interface Visitors {
  /** Keys of visits of every kind, which nobody but their clients may use. */
  readonly keys: string[];
  /** Of the visit that is open and somebody's. */
  readonly own: string;
}

/** One visit that is in use, one that has just been signed in, one that has ended, one that has expired. */
async function visitors(door: Door): Promise<Visitors> {
  const { key: expired } = await door.visits.create({ userId: 'expired' });
  door.clock.advance(30 * MINUTES);
  const { key: ended, visit } = await door.visits.create({ userId: 'ended' });
  await door.visits.end(visit.id, 'revoked', { anyUser: true });
  const { key: anonymous } = await door.visits.create();
  const signedIn = await door.knock({ cookie: `visit=${anonymous}` }, 'express', () =>
    door.identity.login('signed in'),
  );
  const renewed = /visit=([^;]*)/.exec(signedIn.cookies[0]!)![1]!;
  const { key: own } = await door.visits.create({ userId: 'Ann' });
  await door.knock({ cookie: `visit=${own}` }, 'express', () => void door.session.set('secret', 'of Ann'));
  return { keys: [expired, ended, anonymous, renewed, own], own };
}

function hostileKnock(random: Random, keys: readonly string[], presents: boolean) {
  const query = parameters(random, keys);
  const body = parameters(random, keys);
  let cookie = cookieHeader(random, keys);
  // With immediate creation, who presents nothing of the form of a key gets a visit by design.
  if (presents)
    cookie = `visit=${random.chance(0.5) ? forgedKey(random) : wrongSecret(random, keys)}${cookie === undefined ? '' : `; ${cookie}`}`;
  const knock: Knock = {
    cookie,
    headers: otherHeaders(random),
    query: query.values,
    body: body.values,
    ip: addressText(random),
  };
  return { knock, query: query.rest, body: body.rest };
}

const options: Record<string, VisitSettings> = {
  lazy: { creation: 'lazy' },
  immediate: { creation: 'immediate', record: { remoteAddress: 'truncated' } },
};

const parser = new VisitCookie({
  cookie: {
    name: 'visit',
    path: '/',
    domain: undefined,
    secure: false,
    sameSite: 'lax',
    httpOnly: true,
    partitioned: false,
    permanent: false,
    clearSiteData: [],
    allowInsecure: false,
  },
});

const FILLINGS = [
  ';',
  '=',
  ' ',
  '"',
  '\t ',
  'visit',
  'visit=',
  'visit;',
  '; visit',
  ' =',
  '.',
  '%2e',
  '0',
  '1.',
  ':',
  '1:',
  '::ffff:',
  'a;b=',
  '\u00ff',
];
const STARTS = ['visit=', 'visit="', 'x;visit=', '::ffff:', '::ffff:1', '1.2.3.', 'fe80::1%', `${'0'.repeat(32)}.`];

/** What a loop or a regular expression that goes back and forth would be slow with. */
function* longTexts(size: number): Iterable<string> {
  const fill = (text: string): string => text.repeat(Math.ceil(size / text.length));
  for (const filling of FILLINGS) yield fill(filling);
  for (const start of STARTS)
    for (const filling of [' ', '0', '1.', '"', 'A', '\t '])
      for (const end of ['', 'x']) yield start + fill(filling) + end;
  for (const junk of JUNK) yield fill(junk || ' ');
}

/** Stopped at once: a process that hangs would never come to say why. */
function expectQuickParsers(size: number): void {
  for (const text of longTexts(size)) {
    const values = inTime(() => {
      truncateAddress(text);
      VisitKey.parse(text);
      return parser.read(text);
    });
    const keys = values.map((value) => VisitKey.parse(value)).filter((key) => key !== null);
    expect({ keys, tooMany: values.length > 8 }, text.slice(0, 20)).toEqual({ keys: [], tooMany: false });
  }
}

describe('Hostile text for the parsers of keys', () => {
  const keys = Array.from({ length: 5 }, () => VisitKey.create().text);

  beforeAll(() => expectQuickParsers(76));

  test('R7, R9, R21: gives at most eight values, none of which is the key of another visitor', () => {
    const expectUntouched = watchBuiltIns();
    inTime(() => {
      const count = inputs(8_000);
      for (let index = 0; index < count; index++) {
        const random = new Random(index, 4);
        const header = cookieHeader(random, keys);
        const values = parser.read(header);
        const parsed = [...values, parameterValue(random, keys)].map((value) => VisitKey.parse(value)?.text);
        if (values.length > 8 || parsed.some((text) => text !== undefined && keys.includes(text)))
          expect.fail(replay(index, header));
      }
    }, inputs(MINUTES));
    expectUntouched();
  });

  test('R9: a megabyte of it is parsed in time', () => {
    expectQuickParsers(1_000_000);
  });

  test('an address that is not valid is stored as nothing', () => {
    const strange: string[] = [];
    const count = inputs(6_000);
    for (let index = 0; index < count; index++) {
      const address = addressText(new Random(index, 5));
      const network = truncateAddress(address);
      if (!/^(?:|\d{1,3}\.\d{1,3}\.\d{1,3}\.0|(?:[\da-f]{0,4}:){3}:)$/i.test(network))
        strange.push(`${network} of ${replay(index, address)}`);
    }
    expect(strange).toEqual([]);
  });
});

describe.each(Object.keys(options))('Hostile requests with %s creation, without a server', (creation) => {
  let door: Door;
  let people: Visitors;
  const expectUntouched = watchBuiltIns();

  beforeAll(async () => {
    expectQuickParsers(76);
    expectQuickParsers(50_000);
    door = await Door.open(options[creation]!);
    people = await visitors(door);
    await door.visits.flush();
  });
  afterAll(() => door?.close());

  test('R5, R6, R7, R9, B25, B35: gain no access, create no row, leave no trace, and get a response', async () => {
    door.store.writes.length = 0;
    await inWaves(
      inputs(2_500),
      async (index) => {
        const random = new Random(index, creation === 'lazy' ? 0 : 1);
        const { knock, query, body } = hostileKnock(random, people.keys, creation === 'immediate');
        const answer = await door.knock(knock, random.of(['express', 'fastify']), () => door.see());
        const { status, error, value, cookies } = answer;
        const isNobody =
          status === 200 && value!.isNew && value!.userId === null && value!.size === 0 && cookies.length === 0;
        if (!isNobody)
          expect.fail(
            `${JSON.stringify({ status, value, cookies, error: String(error) })} for ${replay(index, knock)}`,
          );
        if (!same(answer.query, query) || !same(answer.body, body))
          expect.fail(`parameters came through changed: ${replay(index, knock)}`);
      },
      (first) => {
        expect(door.store.writes, `from ${replay(first)}`).toEqual([]);
        expectUntouched(`from ${replay(first)}`);
      },
    );
    await door.visits.flush();
    expect(door.store.writes, replay()).toEqual([]);
  });

  test('R6, R21: a genuine key is found among hostile ones, by cookie, query and body', async () => {
    door.store.writes.length = 0;
    await inWaves(inputs(300), async (index) => {
      const random = new Random(index, 2);
      const { knock, query } = hostileKnock(random, people.keys, false);
      const others = random.list(random.below(7), () => `visit=${keyText(random, people.keys)}`.replace(/[;"]/g, '.'));
      const cookie = random.shuffled([...others, `visit=${people.own}`]).join('; ');
      const parameter = { ...(query as object), visit_key: people.own };
      const asked = random.of<Knock>([
        { ...knock, cookie },
        { ...knock, query: parameter },
        { ...knock, body: parameter },
      ]);
      const answer = await door.knock(asked, random.of(['express', 'fastify']), () => door.see());
      expect(answer.value, replay(index, asked)).toEqual({ isNew: false, userId: 'Ann', size: 1 });
    });
    expect(
      door.store.writes.filter((write) => write === 'create'),
      replay(),
    ).toEqual([]);
    expectUntouched();
  });

  test('R53: input of a client becomes session data, and has no other effect', async () => {
    const { key } = await door.visits.create();
    const count = inputs(300);
    for (let index = 0; index < count; index++) {
      const random = new Random(index, 3);
      const sent = JSON.parse(
        `{${random.list(3, () => `"${random.of(['__proto__', 'constructor', 'a', 'b', 'size'])}":${jsonText(random)}`).join()}}`,
      ) as object;
      const at = { cookie: `visit=${key}` };
      const kept = await door.knock(at, 'express', () => {
        if (index % 2 === 0) door.session.clear();
        for (const [name, value] of Object.entries(sent)) door.session.set(name, value);
      });
      const read = await door.knock(at, 'express', () =>
        Object.entries(sent).map(([name, value]) => isDeepStrictEqual(door.session.get(name), value)),
      );
      expect({ kept: kept.status, read: read.value }, replay(index, sent)).toEqual({
        kept: 200,
        read: Object.keys(sent).map(() => true),
      });
      expectUntouched(replay(index, sent));
    }
  });
});

async function inWaves(
  count: number,
  one: (index: number) => Promise<void>,
  after?: (first: number) => void,
  wave = WAVE,
): Promise<void> {
  for (let first = 0; first < count; first += wave) {
    await Promise.all(Array.from({ length: Math.min(wave, count - first) }, (_, offset) => one(first + offset)));
    after?.(first);
  }
}

function same(found: unknown, expected: unknown): boolean {
  if (found === expected) return true;
  // A parser may give an object without a prototype.
  const plain = (value: unknown): unknown =>
    typeof value === 'object' && value !== null && !Array.isArray(value) && !Buffer.isBuffer(value)
      ? Object.entries(value)
      : value;
  return isDeepStrictEqual(plain(found), plain(expected));
}

@Controller()
class SeenController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
  ) {}

  @All('see')
  see(@CurrentVisit() visit: CurrentVisit, @Query() query: unknown, @Body() body: unknown) {
    const isThere = [query, body].some(
      (values) => typeof values === 'object' && values !== null && Object.hasOwn(values, 'visit_key'),
    );
    return { isNew: visit.isNew, userId: this.identity.userId, size: this.session.size, isThere };
  }

  @All('keep')
  keep() {
    this.session.set('kept', true);
    return {};
  }
}

describe.each(platforms)('Hostile requests over the network under %s', (platform) => {
  const running: RunningApp[] = [];
  const clock = new ManualClock();
  const expectUntouched = watchBuiltIns();
  let database: OpenDatabase;
  let dataSource: DataSource;
  let keys: string[];

  beforeAll(async () => {
    expectQuickParsers(76);
    expectQuickParsers(50_000);
    database = await openDatabase('sqlite');
    dataSource = await openMigrated(database.options);
  });
  afterAll(async () => {
    await Promise.all(running.map((one) => one.close()));
    await dataSource?.destroy();
    await database?.drop();
  });

  async function start(creation: 'lazy' | 'immediate') {
    const app = await startApp(
      platform,
      { dataSource, clock, source: 'cookie, form', creation, expunge: { schedule: false }, wipe: { schedule: false } },
      { controllers: [SeenController] },
      // The address of the client is then what the client says.
      (nest) => {
        if (platform === 'express')
          (nest.getHttpAdapter().getInstance() as { set(name: string, value: unknown): void }).set('trust proxy', true);
      },
    );
    running.push(app);
    const visits = app.app.get(VisitService);
    const made = await Promise.all(['Ann', 'Bob', 'ended'].map((userId) => visits.create({ userId })));
    await visits.end(made[2]!.visit.id, 'revoked', { anyUser: true });
    keys = made.map(({ key }) => key);
    return { port: Number(new URL(app.address).port), visits };
  }

  const stored = async (): Promise<unknown> => [
    await dataSource.query('SELECT * FROM visit ORDER BY id'),
    await dataSource.query('SELECT * FROM visit_identity ORDER BY visit_id'),
  ];

  test.each(['lazy', 'immediate'] as const)(
    'R5, R6, R7, R9, R21, B25, B35: with %s creation no 5xx, no row, nothing disclosed',
    async (creation) => {
      const { port, visits } = await start(creation);
      const before = await stored();
      const statuses = new Map<number, number>();
      const count = inputs(150);
      await inWaves(
        count,
        async (index) => {
          const random = new Random(index, creation === 'lazy' ? 20 : 21);
          const request = hostileRequest(random, keys, {
            presents: creation === 'immediate',
            path: '/see',
            cookie: cookieHeader(random, keys),
          });
          const { status, head, body } = await send(port, request);
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
          const isNobody =
            status >= 400 ||
            isDeepStrictEqual(JSON.parse(body), { isNew: true, userId: null, size: 0, isThere: false });
          if (!(status < 500) || !isNobody || /^set-cookie:/im.test(head))
            expect.fail(`${status} ${body} for ${replay(index, request.toString('latin1'))}`);
        },
        (first) => expectUntouched(`from ${replay(first)}`),
        20,
      );
      await visits.flush();
      expect(await stored(), replay()).toEqual(before);
      // Else most of them would not have come as far as this library.
      expect(
        (statuses.get(200) ?? 0) + (statuses.get(201) ?? 0),
        `${JSON.stringify([...statuses])} ${replay()}`,
      ).toBeGreaterThan(count / 2);
    },
  );

  test('the stored data of a hostile client is short', async () => {
    const { port } = await start('lazy');
    await inWaves(
      inputs(100),
      async (index) => {
        const random = new Random(index, 22);
        const request = hostileRequest(random, keys, { presents: false, path: '/keep', cookie: undefined });
        const { status, body } = await send(port, request);
        if (!(status < 500)) expect.fail(`${status} ${body} for ${replay(index, request.toString('latin1'))}`);
      },
      undefined,
      20,
    );
    const visits = await dataSource.getRepository(Visit).find();
    expect(visits.length, replay()).toBeGreaterThan(inputs(100) / 2);
    for (const { remoteAddress, userAgent } of visits) {
      expect(remoteAddress?.length ?? 0, replay()).toBeLessThanOrEqual(45);
      expect(userAgent?.length ?? 0, replay()).toBeLessThanOrEqual(255);
    }
  });
});
