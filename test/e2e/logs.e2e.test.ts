import { Controller, Get, Logger, Post, type LoggerService } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { CsrfGuard, CurrentVisit, FormTokenService, IdentityService, Session, VisitPlugin, VisitService } from 'nest-visit';
import { expect, test, vi } from 'vitest';
import { inspect } from 'node:util';
import { breakDatabase } from '../support/break-database.js';
import { describeStacks } from '../support/app.js';

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
    this.logger.log(`${inspect(visit, { depth: 9, showHidden: true })} ${JSON.stringify(visit)} ${inspect(this.session)}`);
  }

  @Get('fail')
  fail() {
    this.session['bad'] = () => 1;
  }

  @Post('end')
  async end() {
    await this.visits.endEverything();
  }
}

describeStacks('Logs', (stack) => {
  test('R77, A2, ASVS 16.2.5: nothing that is logged, whatever happens, holds a secret', async () => {
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
    await browser.get(`/fail?tg_visit=${keys[0]}`);
    const token = (await browser.get('/token')).text;
    const foreign = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example', 'x-form-token': token };
    await browser.post('/login', { headers: foreign, json: { form_token: token, tg_visit: keys[0] } });
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
    for (const told of ['clumsy', 'clumsy, too', 'csrf.reportOnly', 'Keys are accepted in addresses'])
      expect(lines.join('\n')).toContain(told);
    expect(lines.join('\n')).not.toContain(token);
    expect(lines.join('\n')).toMatch(/The store failed: away/);
    expect(lines.join('\n')).toContain(keys[0]!.slice(0, 32));
    for (const key of keys) expect(lines.join('\n')).not.toContain(key.slice(33));
  });
});
