import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Body, Controller, Get, Logger, Post, type LoggerService } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import {
  DefaultSessionSerializer,
  ExclusiveSession,
  FormTokenService,
  IdentityService,
  MemoryVisitStore,
  Session,
  VisitModule,
  VisitService,
  type VisitEncryptionOptions,
  type VisitSessionOptions,
} from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import { afterEach, describe, expect, test } from 'vitest';
import { describeStacks, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';

/** What no stored bytes may show. */
const SECRET = 'Ada Lovelace';

@Controller()
class SecretsController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly formTokens: FormTokenService,
  ) {}

  @Get('data')
  data() {
    return this.session;
  }

  @Post('set')
  set(@Body() body: Record<string, unknown>) {
    for (const [key, value] of Object.entries(body)) this.session[key] = value;
  }

  @Post('clear')
  clear() {
    this.session.clear();
  }

  @Post('increment')
  increment() {
    return this.session.update('count', (count: number | undefined) => (count ?? 0) + 1);
  }

  @Post('exclusive')
  @ExclusiveSession()
  exclusive() {
    this.session['name'] = `${SECRET} ${String(this.session['name'])}`;
  }

  @Post('flash')
  flash() {
    this.session.flash('notice', SECRET);
  }

  @Post('take')
  async take() {
    return { taken: (await this.session.take('notice')) as unknown };
  }

  @Get('form')
  form() {
    return this.formTokens.create();
  }

  @Post('form')
  async send(@Body('token') token: unknown) {
    return { accepted: await this.formTokens.consume(token) };
  }

  @Post('login')
  async login(@Body('user') user: string) {
    await this.identity.login(user);
    this.session['name'] ??= `${SECRET}, ${user}`;
  }

  @Post('logout')
  async logout() {
    await this.identity.logout();
    this.session.flash('notice', `Good bye, ${SECRET}`);
  }

  @Post('begin-anew')
  async beginAnew() {
    await Promise.all([this.visits.end(), this.session.update('name', () => SECRET)]);
  }
}

const parts = { controllers: [SecretsController] };
const newKey = (): string => randomBytes(32).toString('base64');
const idOf = (browser: Browser): string => browser.jar.get('visit')!.slice(0, 32);
const dataOf = async (browser: Browser): Promise<unknown> => JSON.parse((await browser.get('/data')).text);

describeStacks('Encryption of session data', (stack) => {
  const start = (
    encryption: VisitEncryptionOptions | undefined,
    session: VisitSessionOptions = {},
  ): Promise<RunningApp> => stack.start(parts, { session: { encryption, ...session } });

  /** An application that fails where it cannot read. */
  const startStrict = (encryption?: VisitEncryptionOptions): Promise<RunningApp> =>
    start(encryption, { onUnreadable: 'throw' });

  const visits = () => stack.dataSource().getRepository(Visit);
  const stored = async (browser: Browser): Promise<Buffer | null> =>
    (await visits().findOneByOrFail({ id: idOf(browser) })).sessionData;
  const put = (browser: Browser, sessionData: Buffer | null) => visits().update({ id: idOf(browser) }, { sessionData });

  async function begin(app: RunningApp, data: object = { name: SECRET }): Promise<Browser> {
    const browser = app.browser();
    await post(browser, '/set', data);
    return browser;
  }

  async function post(browser: Browser, path: string, json?: object): Promise<unknown> {
    const answer = await browser.post(path, { json });
    expect(answer.status, answer.text).toBe(201);
    return answer.text === '' ? undefined : JSON.parse(answer.text);
  }

  /** The same visit at another application. */
  function at(app: RunningApp, browser: Browser): Browser {
    const other = app.browser();
    for (const [name, value] of browser.jar) other.jar.set(name, value);
    return other;
  }

  async function expectEncrypted(browser: Browser): Promise<void> {
    const bytes = await stored(browser);
    expect(bytes?.[0]).toBe(0xc1);
    for (const text of [SECRET, 'name', 'notice', 'form-tokens']) expect(bytes!.includes(text)).toBe(false);
  }

  test('R55: without the option, data is stored in plain text; with it, nothing of it is readable', async () => {
    const plain = await begin(await start(undefined));
    expect((await stored(plain))!.includes(SECRET)).toBe(true);
    const browser = await begin(await startStrict({ keys: [newKey()] }));
    await expectEncrypted(browser);
    expect(await dataOf(browser)).toEqual({ name: SECRET });
  });

  test('R55: data is encrypted for the visit that it is stored with, whichever code stores it', async () => {
    const app = await startStrict({ keys: [newKey()] });
    const browser = app.browser();
    const expectData = async (data: object): Promise<void> => {
      await expectEncrypted(browser);
      expect(await dataOf(browser)).toEqual(data);
    };
    await post(browser, '/login', { user: 'u1' });
    await expectData({ name: `${SECRET}, u1` });
    await post(browser, '/exclusive');
    await expectData({ name: `${SECRET} ${SECRET}, u1` });
    await post(browser, '/increment');
    await post(browser, '/flash');
    await expectData({ name: `${SECRET} ${SECRET}, u1`, count: 1, notice: SECRET });
    expect(await post(browser, '/take')).toEqual({ taken: SECRET });
    const token = (await browser.get('/form')).text;
    await expectData({ name: `${SECRET} ${SECRET}, u1`, count: 1 });
    expect(await post(browser, '/form', { token })).toEqual({ accepted: true });
    // Another user begins another visit in the same request, and so does who says good-bye.
    let before = idOf(browser);
    await post(browser, '/login', { user: 'u2' });
    expect(idOf(browser)).not.toBe(before);
    await expectData({ name: `${SECRET}, u2` });
    before = idOf(browser);
    await post(browser, '/logout');
    expect(idOf(browser)).not.toBe(before);
    await expectData({ notice: `Good bye, ${SECRET}` });
  });

  test('R55: so is data of a visit that begins with an update, after another one ended in the request', async () => {
    const app = await startStrict({ keys: [newKey()] });
    const browser = app.browser();
    await post(browser, '/begin-anew');
    await expectEncrypted(browser);
    expect(await dataOf(browser)).toEqual({ name: SECRET });
  });

  test('R55, R51: conflicting requests read what the other one has encrypted', async () => {
    const encryption = { keys: [newKey()] };
    const apps = [await startStrict(encryption), await startStrict(encryption)];
    const browser = await begin(apps[0]!);
    await Promise.all(Array.from({ length: 20 }, (_, i) => post(at(apps[i % 2]!, browser), '/increment')));
    expect(await dataOf(browser)).toEqual({ name: SECRET, count: 20 });
  });

  test('R55, R49, R50: unchanged data is not written; empty data is NULL', async () => {
    const browser = await begin(await startStrict({ keys: [newKey()] }));
    expect(await stack.statements(() => browser.post('/set', { json: { name: SECRET } }))).toHaveLength(1);
    await post(browser, '/clear');
    expect(await stored(browser)).toBeNull();
    expect(await dataOf(browser)).toEqual({});
  });

  test('R55: the documented statement lists the keys that are still in use', async () => {
    const page = readFileSync(new URL('../../docs/encryption.md', import.meta.url), 'utf8');
    const names = { mariadb: 'MariaDB', postgres: 'PostgreSQL', sqlite: 'SQLite' };
    const line = page.split('\n').find((one) => one.startsWith('SELECT') && one.endsWith(names[stack.database]))!;
    const [one, other] = [newKey(), newKey()];
    const browsers = [await begin(await start({ keys: [one] })), await begin(await start({ keys: [other, one] }))];
    const rows = await stack.dataSource().query<{ begins: string; count: unknown }[]>(line.split(';')[0]!);
    const begins = rows.map((row) => row.begins.toLowerCase());
    for (const browser of browsers) expect(begins).toContain((await stored(browser))!.subarray(0, 5).toString('hex'));
  });

  test('R55, B15: eighty kilobytes are stored', async () => {
    const data = { name: randomBytes(60 * 1024).toString('base64') };
    const browser = await begin(await startStrict({ keys: [newKey()] }), data);
    expect(await dataOf(browser)).toEqual(data);
  });

  // What databases only keep, whatever is in it, is shown on one of them.
  if (stack.database !== 'sqlite') return;

  describe('R55, B85: encryption is switched on and off while processes of two steps run side by side', () => {
    const key = newKey();
    const steps = [
      undefined,
      { keys: [key], plain: 'write' },
      { keys: [key], plain: 'read' },
      { keys: [key] },
    ] as const;
    const names = ['without it', 'that write plain', 'that read plain', 'with it'];
    const pairs = [
      [0, 1],
      [1, 2],
      [2, 3],
    ].flatMap(([one, other]) => [[one!, other!] as const, [other!, one!] as const]);

    /** Counts up in one session, by the processes in turn. */
    async function expectCounted(browser: Browser, apps: readonly RunningApp[], from: number): Promise<void> {
      for (const [turn, app] of [...apps, ...apps].entries()) {
        expect(await post(at(app, browser), '/increment')).toBe(from + turn + 1);
      }
    }

    test.each(pairs.map(([from, to]) => ({ from, to, title: `from processes ${names[from]} to those ${names[to]}` })))(
      '$title: nothing is lost',
      async ({ from, to }) => {
        const [old, fresh] = [await startStrict(steps[from]), await startStrict(steps[to])];
        const browser = await begin(old, { count: 0 });
        // By a process of the older step last, it is as plain or as encrypted as that step writes, which the next one
        // still reads.
        await expectCounted(browser, [fresh, old], 0);
        await expectCounted(browser, [old, old, fresh], 4);
      },
    );

    test.each([
      [0, 1, 2, 3],
      [3, 2, 1, 0],
    ])('one session passes through all steps: %j, %j, %j, %j', async (...way) => {
      const apps = [];
      for (const step of way) apps.push(await startStrict(steps[step]));
      const browser = await begin(apps[0]!, { count: 0 });
      for (const [done, app] of apps.entries())
        await expectCounted(browser, [app, apps[Math.max(0, done - 1)]!, app], 6 * done);
      const begins = (await stored(browser))![0];
      expect(begins).toBe(way.at(-1) === 3 ? 0xc1 : 0x01);
    });

    test('skipping a step fails', async () => {
      const browser = await begin(await startStrict(steps[2]));
      expect((await at(await startStrict(steps[0]), browser).get('/data')).status).toBe(500);
    });
  });

  describe('that cannot be read', () => {
    const key = newKey();

    async function expectUnreadable(
      browser: Browser,
      encryption: VisitEncryptionOptions = { keys: [key] },
    ): Promise<void> {
      const lenient = at(await start(encryption), browser);
      const strict = at(await startStrict(encryption), browser);
      const answer = await strict.get('/data');
      expect(answer.status).toBe(500);
      expect(JSON.parse(answer.text)).toEqual({ statusCode: 500, message: 'Internal server error' });
      expect(await dataOf(lenient)).toEqual({});
      await post(lenient, '/set', { name: 'again' });
      expect(await dataOf(strict)).toEqual({ name: 'again' });
    }

    test('R55, R54: because it was copied from another visit', async () => {
      const app = await startStrict({ keys: [key] });
      const [own, other] = [await begin(app, { name: 'own' }), await begin(app)];
      const [ownData, otherData] = [await stored(own), await stored(other)];
      await put(own, otherData);
      await expectUnreadable(own);
      await put(own, ownData);
      expect(await dataOf(own)).toEqual({ name: 'own' });
      expect(await dataOf(other)).toEqual({ name: SECRET });
    });

    test('R55, R54: because a bit of it has flipped', async () => {
      const browser = await begin(await start({ keys: [key] }));
      const bytes = (await stored(browser))!;
      bytes[bytes.length - 20]! ^= 1;
      await put(browser, bytes);
      await expectUnreadable(browser);
    });

    test('R55, R54: because its key has been removed', async () => {
      await expectUnreadable(await begin(await start({ keys: [newKey()] })));
    });

    test('R55, R54: because it is not encrypted, unless the option accepts plain data', async () => {
      await expectUnreadable(await begin(await start(undefined)));
      const browser = await begin(await start(undefined));
      const accepting = at(await startStrict({ keys: [key], plain: 'read' }), browser);
      expect(await dataOf(accepting)).toEqual({ name: SECRET });
      expect(await stack.statements(() => accepting.get('/data'))).toHaveLength(1);
      await post(accepting, '/increment');
      await expectEncrypted(browser);
      expect(await dataOf(at(await startStrict({ keys: [key] }), browser))).toEqual({ name: SECRET, count: 1 });
    });

    test('R55, R54: because it is encrypted, and the option is off', async () => {
      const browser = await begin(await start({ keys: [key] }));
      expect((await at(await startStrict(), browser).get('/data')).status).toBe(500);
      expect(await dataOf(at(await start(undefined), browser))).toEqual({});
    });

    test('R55, R77: the log names the visit, but neither key nor data', async () => {
      const lines: string[] = [];
      const write = (...texts: unknown[]): void => void lines.push(texts.map(String).join(' '));
      const logger: LoggerService = {
        log: write,
        error: write,
        warn: write,
        debug: write,
        verbose: write,
        fatal: write,
      };
      const browser = await begin(await start({ keys: [newKey()] }));
      for (const onUnreadable of ['empty', 'throw'] as const) {
        const app = await stack.start(parts, { session: { encryption: { keys: [key] }, onUnreadable } }, (nest) =>
          nest.useLogger(logger),
        );
        await at(app, browser).get('/data');
        await app.close();
      }
      Logger.overrideLogger(false);
      const text = lines.join('\n');
      const about =
        `session data of visit ${idOf(browser)} cannot be read: [visit] session data cannot be read: ` +
        'it was encrypted with a key that is not';
      expect(text.split(about)).toHaveLength(3);
      for (const form of ['base64', 'base64url', 'hex'] as const)
        expect(text).not.toContain(Buffer.from(key, 'base64').toString(form));
      expect(text).not.toContain(SECRET);
      expect(text).not.toContain(browser.jar.get('visit')!.slice(33));
    });
  });

  test('R55: a new first key is used from the next write; then the old one can be removed', async () => {
    const [old, fresh] = [newKey(), newKey()];
    const [written, left] = [await begin(await start({ keys: [old] })), await begin(await start({ keys: [old] }))];
    const begins = async (browser: Browser): Promise<string> => (await stored(browser))!.subarray(0, 5).toString('hex');
    const before = await begins(written);
    const both = await startStrict({ keys: [fresh, old] });
    for (const browser of [written, left]) expect(await dataOf(at(both, browser))).toEqual({ name: SECRET });
    await post(at(both, written), '/increment');
    expect(await begins(left)).toBe(before);
    expect(await begins(written)).not.toBe(before);
    const after = await startStrict({ keys: [fresh] });
    expect(await dataOf(at(after, written))).toEqual({ name: SECRET, count: 1 });
    expect((await at(after, left).get('/data')).status).toBe(500);
  });

  test('R55, R56: maxBytes counts the plain bytes', async () => {
    const maxBytes = new DefaultSessionSerializer().encode(new Map([['name', SECRET]])).length;
    const app = await start({ keys: [newKey()] }, { maxBytes });
    const browser = await begin(app);
    expect(await stored(browser)).toHaveLength(maxBytes + 33);
    expect((await app.browser().post('/set', { json: { name: `${SECRET}!` } })).status).toBe(500);
  });
});

describe('The option session.encryption', () => {
  const running: { close(): Promise<void> }[] = [];
  afterEach(() => Promise.all(running.splice(0).map((one) => one.close())));

  const compile = async (encryption: unknown): Promise<void> => {
    const session = { encryption: encryption as VisitEncryptionOptions };
    const module = await Test.createTestingModule({
      imports: [VisitModule.forRoot({ store: new MemoryVisitStore(), session })],
    })
      .setLogger(false as never)
      .compile();
    running.push(module);
  };

  const key = newKey();
  const bytes = Buffer.from(key, 'base64');
  const hex = bytes.toString('hex');

  test.each<[string, unknown, string]>([
    ['a key without a list', key, 'must be an object such as { keys: [key] }, got a string of 44 characters'],
    ['a Buffer without a list', bytes, 'must be an object such as { keys: [key] }, got 32 bytes'],
    ['a list without an object', [key], 'must be an object such as { keys: [key] }, got a list'],
    ['null', null, 'must be an object such as { keys: [key] }, got null'],
    ['true', true, 'must be an object such as { keys: [key] }, got a boolean'],
    ['no keys', {}, 'must be an object with a list of keys, got undefined for keys'],
    ['an empty list', { keys: [] }, 'must be an object with a list of keys, got an empty list for keys'],
    [
      'one key without a list',
      { keys: key },
      'must be an object with a list of keys, got a string of 44 characters for keys',
    ],
    ['a variable that is not set', { keys: [undefined] }, 'got undefined for keys[0]'],
    ['an empty variable', { keys: [key, ''] }, 'got an empty string for keys[1]'],
    [
      'a key that is too short',
      { keys: [hex.slice(0, 32)] },
      'keys are 32 bytes each: a Buffer, 64 hexadecimal digits, or base64',
    ],
    ['a truncated key', { keys: [key.slice(0, 42)] }, 'got a string of 42 characters for keys[0]'],
    ['half a Buffer', { keys: [bytes.subarray(16)] }, 'got 16 bytes for keys[0]'],
    ['a number', { keys: [7] }, 'got a number for keys[0]'],
    ['the same key twice', { keys: [key, newKey(), hex] }, 'with different keys, got the same for keys[0] and keys[2]'],
    ['a key for plain', { keys: [key], plain: key }, 'got a string of 44 characters for plain'],
    [
      'true for plain',
      { keys: [key], plain: true },
      'an object whose plain is "refuse", "read" or "write", got a boolean for plain',
    ],
    ['an unknown name', { keys: [key], plane: 'read' }, 'an object with keys and plain, got "plane"'],
    ['a key for a name', { keys: [key], [hex]: true }, 'an object with keys and plain, got another name'],
  ])('R55, R74: %s is refused at startup, and no key is shown', async (_, encryption, text) => {
    const error = await compile(encryption).then(
      () => expect.fail('it started'),
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toMatchObject({
      code: 'VISIT_OPTION',
      message: expect.stringContaining(`[visit] option "session.encryption" must be`) as string,
    });
    expect(error.message).toContain(text);
    for (const part of [key.slice(0, 8), hex.slice(0, 8), hex.slice(0, 8).replaceAll(/(..)(?=.)/g, '$1 ')]) {
      expect(error.message).not.toContain(part);
    }
  });

  test('R55: is optional, and has defaults', async () => {
    for (const encryption of [undefined, { keys: [key] }, { keys: [newKey(), bytes], plain: 'read' }]) {
      await expect(compile(encryption)).resolves.toBeUndefined();
    }
  });
});
