import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Controller, Get } from '@nestjs/common';
import { MemoryVisitStore, Session, type VisitRecord, type VisitStore } from 'nest-visit';
import { RedisVisitStore } from 'nest-visit/redis';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { DAY, identityOf, MINUTE, newVisit } from '../../lib/testing/samples.js';
import { startApp, type RunningApp } from '../support/app.js';
import { useCommands, type Outcome } from '../support/command.js';
import { describeDatabases, openDatabase } from '../support/databases.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { uniquePrefix } from '../support/redis.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = (path: string): string => JSON.stringify(pathToFileURL(join(root, path)).href);
const { command, file } = useCommands();

const DATA = 'what only its owner may know';
const now = Date.now();

function visitOf(userId: string | null, given: Partial<VisitRecord> = {}): VisitRecord {
  const identity = userId === null ? null : identityOf(userId, now - MINUTE);
  const instants = { created: now - MINUTE, accessed: now - MINUTE, keyChanged: now - MINUTE, expiry: now + DAY };
  return newVisit({ ...instants, sessionData: Buffer.from(DATA), identity, ...given });
}

/** Nothing that a command has written tells a key, a session or a password. */
function expectNoSecrets(outcome: Outcome, visits: readonly VisitRecord[]): Outcome {
  const text = outcome.out + outcome.err;
  for (const secret of [DATA, 'hunter2', ...visits.map(({ keyHash }) => keyHash)]) expect(text).not.toContain(secret);
  return outcome;
}

/** What the commands do with a store that a file exports. */
function describeCommands(
  title: string,
  open: () => Promise<{ store: VisitStore; source: string; close: () => Promise<unknown> }>,
): void {
  describe(title, () => {
    let store: VisitStore;
    let source: string;
    let close: () => Promise<unknown>;
    beforeAll(async () => {
      ({ store, source, close } = await open());
    });
    afterAll(() => close?.());

    test('R63: lists the visits of a user, counts all, and ends some', async () => {
      const older = visitOf('ann', { accessed: now - 2 * MINUTE, remoteAddress: '192.0.2.9\u001b[2J' });
      const mine = [
        visitOf('ann', {
          permanent: true,
          userAgent: 'Mozilla/5.0 (Windows NT 10.0; rv:130.0) Gecko/20100101 Firefox/130.0',
        }),
        older,
      ];
      const others = [visitOf('bob'), visitOf(null, { accessed: now - 5 * DAY, expiry: now + 1 })];
      await store.create([...mine, ...others.slice(0, 1)]);
      const run = async (...args: string[]): Promise<Outcome> =>
        expectNoSecrets(await command(...args, '--store', source), [...mine, ...others]);

      const listed = await run('list', '--user', 'ann');
      expect(listed).toMatchObject({ code: 0, err: '' });
      expect(listed.out).toMatch(/^ID {30}  LAST USED +SIGNED IN +EXPIRES +ADDRESS +DEVICE\n/);
      expect(
        listed.out
          .split('\n')
          .slice(1)
          .map((line) => line.slice(0, 32)),
      ).toEqual([mine[0]!.id, older.id, '2 visits', '']);
      expect(listed.out).toContain('Firefox on Windows');
      // A terminal obeys nobody's address.
      expect(listed.out).toContain('192.0.2.9?[2J');
      const page = JSON.parse((await run('list', '--user', 'ann', '--limit', '1', '--json')).out) as {
        visits: object[];
        isAll: boolean;
      };
      expect(page).toMatchObject({
        isAll: false,
        visits: [{ id: mine[0]!.id, accessed: new Date(now - MINUTE).toISOString() }],
      });
      expect((await run('list', '--user', 'nobody')).out).toBe('0 visits\n');

      expect((await run('stats')).out).toMatch(
        /^live +3 +neither ended nor expired\nsigned in +3\nanonymous +0\npermanent +1 +/,
      );
      expect(JSON.parse((await run('stats', '--json')).out)).toMatchObject({
        live: 3,
        signedIn: 3,
        anonymous: 0,
        permanent: 1,
        usedLastHour: 3,
      });

      expect((await run('end', older.id, '--dry-run')).out).toBe('would end 1 visit\n');
      expect((await run('end', older.id, '0'.repeat(32), '--reason', 'stolen', '--json')).out).toBe('{"visits":1}\n');
      expect((await run('end', older.id)).out).toBe('ended 0 visits\n');
      expect(await store.find([older.id])).toMatchObject([{ endReason: 'stolen', sessionData: null }]);
      expect((await run('end', '--user', 'ann', '--dry-run')).out).toBe('would end 1 visit\n');
      expect((await run('end', '--user', 'ann')).out).toBe('ended 1 visit\n');
      expect((await run('end', '--all', '--dry-run')).out).toBe('would end 1 visit\n');
      expect((await run('end', '--all', '--quiet')).out).toBe('');
      expect((await store.find([others[0]!.id]))[0]).toMatchObject({ endReason: 'revoked' });
      // What the end of all remembers holds against sign-ins that were under way.
      expect(await store.users!.revokedAt('bob')).toBeGreaterThan(now);
    });
  });
}

describeDatabases('The command and visits', (db) => {
  const libsql =
    db.name === 'sqlite' ? `, driver: createRequire(${JSON.stringify(join(root, 'package.json'))})('libsql')` : '';
  const sourceOf = (options: object): Promise<string> =>
    file(
      `import { createRequire } from 'node:module'; export default { ` +
        `...${JSON.stringify({ ...options, driver: undefined })}${libsql} };`,
    );

  describeCommands('by TypeORM', async () => {
    const { options } = await db.open();
    const dataSource = await openMigrated(options);
    return {
      store: new TypeOrmVisitStore(dataSource),
      source: await sourceOf(options),
      close: () => dataSource.destroy(),
    };
  });

  test('R63, R71: the doctor reports missing tables and indexes, and changes nothing', async () => {
    const database = await openDatabase(db.name);
    onTestFinished(() => database.drop());
    const source = await sourceOf(database.options);
    const bare = await command('doctor', '--data-source', source);
    expect(bare).toMatchObject({ code: 1, err: '' });
    expect(bare.out).toMatch(
      /\nfailed +tables +table "visit" is missing [^\n]*migration[^\n]*CreateVisit\d+[^\n]*\nfailed: 1, warnings: 0\n$/,
    );

    const dataSource = await openMigrated(database.options);
    onTestFinished(() => dataSource.destroy());
    const well = await command('doctor', '--data-source', source);
    expect(well.out).toMatch(
      /^ok +store +TypeOrmVisitStore can be used\nok +tables [^\n]*\nok +server [^\n]*\nok +indexes +none is missing\nok +clock [^\n]*\nno problems found\n$/,
    );
    expect(well).toMatchObject({ code: 0, err: '' });

    const runner = dataSource.createQueryRunner();
    const table = await runner.getTable('visit');
    await runner.dropIndex(
      'visit',
      table!.indices.find(({ columnNames }) => columnNames[0] === 'expiry')!,
    );
    await runner.release();
    const slow = await command('doctor', '--data-source', source, '--json');
    expect(slow.code).toBe(1);
    expect(JSON.parse(slow.out)).toMatchObject({
      isWell: false,
      findings: expect.arrayContaining([
        {
          check: 'indexes',
          status: 'failed',
          message: expect.stringMatching(/^missing for (\w+\.)*visit\.expiry: /) as string,
        },
      ]) as object[],
    });
  });
});

describeWith('redis', 'The command and visits in Redis', () => {
  describeCommands('by a module that exports a store', async () => {
    const prefix = uniquePrefix();
    const store = new RedisVisitStore({ connection: redisUrl!, prefix });
    await store.check();
    const source = await file(
      `import { RedisVisitStore } from ${here('dist/esm/store/redis/index.js')};
       export default () =>
          new RedisVisitStore({ connection: ${JSON.stringify(redisUrl)}, prefix: ${JSON.stringify(prefix)} });`,
    );
    return { store, source, close: () => store.close() };
  });
});

describe('The command', () => {
  test('R63: reports what a store does not support', async () => {
    const keyv = await file(
      `import { KeyvVisitStore } from ${here('dist/esm/store/keyv/index.js')};
       import { Keyv } from ${here('node_modules/keyv/dist/index.js')};
       const keyv = new Keyv({ throwOnErrors: true });
        export default () => new KeyvVisitStore({ keyv, shared: false, durable: false, evicts: false });`,
    );
    for (const [args, feature] of [
      [['list', '--user', 'ann'], 'users'],
      [['end', '--user', 'ann'], 'users'],
      [['stats'], 'pages'],
    ] as const) {
      expect(await command(...args, '--store', keyv)).toMatchObject({
        code: 1,
        err: expect.stringMatching(
          new RegExp(`^nest-visit: [^\\n]* needs a store that supports "${feature}"`),
        ) as string,
      });
    }
  });
});

@Controller()
class PageController {
  constructor(private readonly session: Session) {}

  @Get('begin')
  begin() {
    this.session.set('begun', true);
    return 'begun';
  }

  @Get('nothing')
  nothing() {
    return 'nothing';
  }
}

describe('The doctor', () => {
  let app: RunningApp;
  const servers: Server[] = [];
  beforeAll(async () => {
    app = await startApp('express', { store: new MemoryVisitStore() }, { controllers: [PageController] });
  });
  afterAll(async () => {
    for (const server of servers) server.close();
    await app?.close();
  });

  /** A proxy before the application, which does this to what passes. */
  async function behind(
    change: (answer: { headers: Headers; body: string }) => void,
    isCache = false,
  ): Promise<string> {
    const kept = new Map<string, { status: number; headers: Headers; body: string }>();
    const server = createServer((request, response) => {
      void (async () => {
        const path = request.url!;
        let answer = isCache ? kept.get(path) : undefined;
        if (!answer) {
          const { status, headers, text } = await fetch(app.address + path).then(async (got) => ({
            status: got.status,
            headers: new Headers(got.headers),
            text: await got.text(),
          }));
          answer = { status, headers, body: text };
          change(answer);
          kept.set(path, answer);
        }
        response.statusCode = answer.status;
        for (const name of ['cache-control', 'location']) {
          const value = answer.headers.get(name);
          if (value !== null) response.setHeader(name, value);
        }
        response.setHeader('set-cookie', answer.headers.getSetCookie());
        response.end(answer.body);
      })();
    });
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  const options = (more = ''): Promise<string> =>
    file(
      `import { MemoryVisitStore } from ${here('dist/esm/index.js')};
       export default () => ({ store: new MemoryVisitStore()${more} });`,
    );

  test('R63: checks options, store and the cookie that a running application sends', async () => {
    const outcome = await command('doctor', '--options', await options(), '--url', `${app.address}/begin`);
    expect(outcome.err).toBe('');
    expect(outcome.out).toMatch(
      /^ok +options +valid [^]*\nwarning +store +other processes cannot see its visits[^]*\nok +cookie +"visit" with HttpOnly, SameSite=lax, Path=\/\n/,
    );
    expect(outcome.code).toBe(0);
  });

  test('R63: names each invalid option, and the features that the store lacks', async () => {
    const wrong = await options(`, timeout: 'soon', cookie: { secure: 'yes' }, dataSource: undefined`);
    const { code, out } = await command('doctor', '--options', wrong);
    expect(out).toMatch(
      /^failed +options +option "timeout" must be a duration[^\n]*\nfailed +options +option "cookie\.secure" must be/,
    );
    expect(code).toBe(1);
    const none = await file('export const options = { timeout: 5 };');
    expect(await command('doctor', '--options', none)).toMatchObject({
      code: 2,
      err: expect.stringContaining('is not the options of VisitModule') as string,
    });
  });

  test('R63: compares the clocks, if the store has one', async () => {
    const hourApart = await file(
      `import { MemoryVisitStore } from ${here('dist/esm/index.js')};
       const store = new MemoryVisitStore();
       Object.defineProperty(store, 'server', { value: { serverTime: async () => Date.now() - 3_600_000 } });
       export default { store };`,
    );
    const { code, out } = await command('doctor', '--options', hourApart);
    expect(out).toMatch(
      /\nfailed +clock +that of this machine is \d+ s ahead of that of the store, so clean-up is refused: synchronize both with NTP/,
    );
    expect(code).toBe(1);
  });

  test('R63: reports a missing cookie, and an address that does not respond, without passwords', async () => {
    const { out, code } = await command(
      'doctor',
      '--url',
      `${app.address.replace('//', '//ann:hunter2@')}/nothing?password=hunter2`,
    );
    expect(out).toMatch(/^warning +cookie +http:\/\/127\.0\.0\.1:\d+\/nothing answered 200 without the cookie "visit"/);
    expect(code).toBe(0);
    const away = await command('doctor', '--url', 'http://ann:hunter2@127.0.0.1:9/');
    expect(away.out).toMatch(/^failed +cookie +http:\/\/127\.0\.0\.1:9\/ does not answer: /);
    expect(out + away.out + away.err).not.toContain('hunter2');
    expect(away.code).toBe(1);
  });

  test('R63: finds a cache that gives one key to two visitors, and a proxy that changes responses', async () => {
    const cached = await command('doctor', '--url', `${await behind(() => {}, true)}/begin`);
    expect(cached).toMatchObject({
      code: 1,
      out: expect.stringContaining('two visitors received the same key') as string,
    });
    const proxy = await behind(({ headers }) => {
      headers.set('cache-control', 'public');
      const changed = headers.getSetCookie().map((cookie) => cookie.replace('HttpOnly', 'Domain=inner.example'));
      headers.delete('set-cookie');
      for (const cookie of changed) headers.append('set-cookie', cookie);
    });
    const changed = await command('doctor', '--url', `${proxy}/begin`);
    expect(changed.out).toMatch(
      /failed [^\n]*no HttpOnly[^]*failed [^\n]*Domain=inner\.example does not match 127[^]*failed [^\n]*no-store/,
    );
    expect(changed.code).toBe(1);
  });

  test('R63: follows redirects to the first response with the cookie', async () => {
    const led = await behind((answer) => {
      if (answer.body !== 'nothing') return;
      Object.assign(answer, { status: 302 });
      answer.headers.set('location', '/begin');
    });
    const { out, code } = await command('doctor', '--url', `${led}/nothing`);
    expect(out).toMatch(/^ok +cookie +"visit" with /);
    expect(code).toBe(0);
  });
});
