import { Controller, Get, Logger, Post, type LoggerService } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import {
  CsrfGuard,
  CurrentVisit,
  FormTokenService,
  IdentityService,
  Session,
  VisitPlugin,
  VisitService,
} from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import { expect, test, vi } from 'vitest';
import { inspect } from 'node:util';
import { breakDatabase } from '../support/break-database.js';
import { describeStacks, type Stack } from '../support/app.js';

/** Nothing else in these tests looks like it, whole or in part. */
const SECRET = 'xq7-4711-zw9';

/** Whether a text has some of the secret in any of the ways in which bytes are printed. */
const betrays = (text: string): boolean =>
  ['xq7-4', '7-4711', '11-zw9'].some((part) => {
    const bytes = Buffer.from(part);
    return [
      part,
      [...bytes].join(','),
      bytes.toString('hex'),
      bytes.toString('hex').replaceAll(/..(?!$)/g, '$& '),
    ].some((way) => text.toLowerCase().includes(way));
  });

/** Makes every later UPDATE of a visit fail. */
const FULL: Record<Stack['database'], readonly string[]> = {
  mariadb: [
    "CREATE TRIGGER full BEFORE UPDATE ON visit FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'full'",
  ],
  postgres: [
    "CREATE FUNCTION full_visit() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'full'; END $$ LANGUAGE plpgsql",
    'CREATE TRIGGER full_visit BEFORE UPDATE ON visit FOR EACH ROW EXECUTE FUNCTION full_visit()',
  ],
  sqlite: ["CREATE TRIGGER full_visit BEFORE UPDATE ON visit BEGIN SELECT RAISE(ABORT, 'full'); END"],
};

const NOT_FULL: Record<Stack['database'], string> = {
  mariadb: 'DROP TRIGGER full',
  postgres: 'DROP TRIGGER full_visit ON visit; DROP FUNCTION full_visit',
  sqlite: 'DROP TRIGGER full_visit',
};

@VisitPlugin()
class Clumsy {
  onRecordRequest(): never {
    throw new Error('clumsy');
  }
  onKeyRefused(): never {
    throw new Error('clumsy, too');
  }
}

@Controller()
class LoggingController {
  private readonly logger = new Logger('Test');
  private kept = 0;

  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly formTokens: FormTokenService,
  ) {}

  @Get('token')
  token() {
    return this.formTokens.create();
  }

  @Post('login')
  async login(@CurrentVisit() visit: CurrentVisit) {
    this.session['kept'] = 1;
    await this.identity.login('ada');
    this.logger.log(
      `${inspect(visit, { depth: 9, showHidden: true })} ${JSON.stringify(visit)} ${inspect(this.session)}`,
    );
  }

  @Get('fail')
  fail() {
    this.session['bad'] = () => 1;
  }

  @Post('keep')
  keep() {
    this.session['secret'] = { SECRET, at: this.kept++ };
  }

  @Get('secret')
  secret() {
    return (this.session['secret'] as { SECRET: string } | undefined)?.SECRET ?? '';
  }

  @Post('end')
  async end() {
    await this.visits.endAll();
  }
}

describeStacks('Logs', (stack) => {
  test('R77, A2, ASVS 16.2.5: no log line contains a secret, whatever happens', async () => {
    const lines: string[] = [];
    const write = (...parts: unknown[]): void =>
      void lines.push(parts.map((part) => (typeof part === 'string' ? part : inspect(part, { depth: 9 }))).join(' '));
    const logger: LoggerService = { log: write, error: write, warn: write, debug: write, verbose: write, fatal: write };
    const app = await stack.start(
      { controllers: [LoggingController], providers: [Clumsy, { provide: APP_GUARD, useExisting: CsrfGuard }] },
      { csrf: { reportOnly: true }, renewAfter: '1m', source: 'cookie, form' },
      (nest) => nest.useLogger(logger),
    );
    const browser = app.browser();
    const keys: string[] = [];
    const note = (): unknown => browser.jar.has('visit') && keys.push(browser.jar.get('visit')!);
    for (const path of ['/login', '/login']) {
      await browser.post(path);
      note();
    }
    await browser.get('/fail');
    await browser.get('/fail', { cookie: `visit=${keys[0]}` });
    await browser.get(`/fail?visit_key=${keys[0]}`);
    const token = (await browser.get('/token')).text;
    const foreign = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example', 'x-form-token': token };
    await browser.post('/login', { headers: foreign, json: { form_token: token, visit_key: keys[0] } });
    note();
    stack.clock.advance(61_000);
    await browser.get('/token');
    note();
    stack.clock.advance(59_000);
    await browser.get('/fail', { cookie: `visit=${keys[1]}` });
    breakDatabase(stack.dataSource(), 'away');
    await browser.get('/fail');
    vi.restoreAllMocks();
    await browser.post('/end');
    Logger.overrideLogger(false);
    expect(new Set(keys).size).toBe(4);
    for (const told of ['clumsy', 'clumsy, too', 'csrf.reportOnly', 'Keys are accepted in URLs'])
      expect(lines.join('\n')).toContain(told);
    expect(lines.join('\n')).not.toContain(token);
    expect(lines.join('\n')).toMatch(/The store failed: Error/);
    expect(lines.join('\n')).toContain(keys[0]!.slice(0, 32));
    for (const key of keys) expect(lines.join('\n')).not.toContain(key.slice(33));
  });

  const QUIET = { controllers: [LoggingController] };

  test("R77, A2: TypeORM's log of statements shows only the length of session data", async () => {
    const browser = (await stack.start(QUIET)).browser();
    const dataSource = stack.dataSource();
    const { logger } = dataSource;
    const lines: string[] = [];
    // As its loggers print them: text and parameters, and the whole error.
    const note = (...parts: unknown[]): void =>
      void lines.push(parts.map((part) => `${inspect(part, { depth: 9 })} ${JSON.stringify(part)}`).join(' '));
    dataSource.logger = {
      logQuery: (sql, params) => note(sql, params),
      logQueryError: (error, sql, params) => note(String(error), sql, params),
      logQuerySlow() {},
      logSchemaBuild() {},
      logMigration() {},
      log() {},
    };
    try {
      await browser.post('/keep');
      await browser.post('/login');
      await browser.post('/keep');
      expect((await browser.get('/secret')).text).toBe(SECRET);
      for (const sql of FULL[stack.database]) await dataSource.query(sql);
      await browser.post('/login');
      expect((await browser.post('/keep')).status).toBe(503);
    } finally {
      for (const sql of NOT_FULL[stack.database].split(';')) await dataSource.query(sql);
      dataSource.logger = logger;
    }
    expect(lines.some((line) => line.includes('INSERT INTO') && /<\d+ bytes>/.test(line))).toBe(true);
    expect(lines.some((line) => /error: full/i.test(line))).toBe(true);
    expect(
      lines.some((line) => line.includes('session_data') && /<\d+ bytes>/.test(line) && line.startsWith("'UPDATE")),
    ).toBe(true);
    expect(lines.filter(betrays)).toEqual([]);
  });

  test('R54, A2: messages about unreadable data do not quote it', async () => {
    const lines: string[] = [];
    const write = (...parts: unknown[]): void =>
      void lines.push(parts.map((part) => inspect(part, { depth: 9 })).join(' '));
    const logger: LoggerService = { log: write, error: write, warn: write, debug: write, verbose: write, fatal: write };
    const app = await stack.start(QUIET, { session: { onUnreadable: 'empty' } }, (nest) => nest.useLogger(logger));
    const strict = await stack.start(QUIET, { session: { onUnreadable: 'throw' } }, (nest) => nest.useLogger(logger));
    const browser = app.browser();
    await browser.post('/keep');
    const id = browser.jar.get('visit')!.slice(0, 32);
    const visits = stack.dataSource().getRepository(Visit);
    const { sessionData } = (await visits.findOneBy({ id }))!;
    for (let at = 1; at < sessionData!.length; at++) {
      const damaged = Buffer.from(sessionData!);
      damaged[at]! ^= 0x15;
      await visits.update({ id }, { sessionData: damaged });
      await browser.get('/secret');
      await browser.via(strict).get('/secret');
    }
    Logger.overrideLogger(false);
    expect(lines.join('\n')).toContain('cannot be read');
    expect(lines.filter(betrays)).toEqual([]);
  });
});
