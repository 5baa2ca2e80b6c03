import { Controller, Get, Logger, Post, type LoggerService } from '@nestjs/common';
import { CurrentVisit, IdentityService, Session, VisitService } from 'nest-visit';
import { expect, test, vi } from 'vitest';
import { inspect } from 'node:util';
import { breakDatabase } from '../support/break-database.js';
import { describeStacks } from '../support/app.js';

@Controller()
class LoggingController {
  private readonly logger = new Logger('Test');

  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

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
  test('R77: nothing that is logged, whatever happens, holds a secret', async () => {
    const lines: string[] = [];
    const write = (...parts: unknown[]): void =>
      void lines.push(parts.map((part) => (typeof part === 'string' ? part : inspect(part, { depth: 9 }))).join(' '));
    const logger: LoggerService = { log: write, error: write, warn: write, debug: write, verbose: write, fatal: write };
    const app = await stack.start({ controllers: [LoggingController] }, {}, (nest) => nest.useLogger(logger));
    const browser = app.browser();
    const keys: string[] = [];
    const note = (): unknown => browser.jar.has('visit') && keys.push(browser.jar.get('visit')!);
    for (const path of ['/login', '/login']) {
      await browser.post(path);
      note();
    }
    await browser.get('/fail');
    await browser.get('/fail', { cookie: `visit=${keys[0]}` });
    breakDatabase(stack.dataSource(), 'away');
    await browser.get('/fail');
    vi.restoreAllMocks();
    await browser.post('/end');
    Logger.overrideLogger(false);
    expect(keys).toHaveLength(2);
    expect(lines.join('\n')).toMatch(/The store failed: away/);
    expect(lines.join('\n')).toContain(keys[0]!.slice(0, 32));
    for (const key of keys) expect(lines.join('\n')).not.toContain(key.slice(33));
  });
});
