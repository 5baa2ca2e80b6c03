import { Controller, Get, Headers, Logger, Post, Query, type LoggerService } from '@nestjs/common';
import { CurrentVisit, MemoryVisitStore, Session, UseVisit, VisitService, type VisitSettings } from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { resolveOptions } from '../../lib/options/resolve-options.js';
import { send } from '../fuzz/wire.js';
import { describeStacks } from '../support/app.js';
import { invented } from './target.js';

@Controller()
class LinkController {
  constructor(private readonly session: Session) {}

  @Get('link')
  link(@Query('to') to: string, @CurrentVisit() visit: CurrentVisit) {
    try {
      return { link: visit.link(to) };
    } catch {
      return { link: null };
    }
  }

  @Post('keep')
  keep(@Headers('user-agent') agent: string) {
    this.session['agent'] = agent;
  }
}

/** Ends a line, an attribute or a header, in every spelling that something on the way may undo. */
const BREAKS = ['\r\n', '\n', '\r', '\0', ';', ',', '"', '\\', ' ', '\u2028', '\u010d\u010a', '\u00a0', '\t', '\u007f'];

describe('Injection through options', () => {
  const store = new MemoryVisitStore();
  const given = (options: VisitSettings) => () => resolveOptions({ store, ...options });

  test('R16, R74, ASVS 3.3.2: text that could end a header, cookie or attribute is refused at startup', () => {
    const needed: Record<string, (text: string) => VisitSettings> = {
      'cookie.name': (name) => ({ cookie: { name } }),
      'cookie.path': (path) => ({ cookie: { path: `/${path}` } }),
      'cookie.domain': (domain) => ({ cookie: { domain } }),
      paramName: (paramName) => ({ paramName }),
      'formTokens.field': (field) => ({ formTokens: { field } }),
    };
    for (const [option, optionsOf] of Object.entries(needed)) {
      expect(given(optionsOf('example')), option).not.toThrow();
      for (const text of BREAKS) {
        // Marks that a path may have.
        if (option === 'cookie.path' && [',', '"', '\\'].includes(text)) continue;
        for (const value of [`a${text}b`, `a${text}Set-Cookie: x=y`, `${text}a`, `a${text}`]) {
          expect(given(optionsOf(value)), `${option} ${JSON.stringify(value)}`).toThrow(/^\[visit\] option/);
        }
      }
    }
  });

  test('R90: so is such a path of a handler', () => {
    expect(() => UseVisit({ path: '/app' })).not.toThrow();
    for (const text of ['\r\n', '\n', ';', '\0', ' ', '\u00a0', '\u010a']) {
      for (const path of [`/a${text}Domain=evil.example`, `/${text}`, `${text}/`])
        expect(() => UseVisit({ path })).toThrow(/UseVisit/);
    }
  });
});

describeStacks(
  'Injection',
  (stack) => {
    const start = () => stack.start({ controllers: [LinkController] }, { source: 'cookie, form' });

    test('R14, ASVS 14.2.1: link() gives the key to no other site, however its address is spelled', async () => {
      const app = await start();
      const browser = app.browser();
      const linkTo = async (to: string): Promise<string | null> =>
        (JSON.parse((await browser.get(`/link?to=${encodeURIComponent(to)}`)).text) as { link: string | null }).link;
      for (const to of ['/cart', '/cart?a=1#b', 'cart', '', '?a', '/a//b', '/%2f/evil.example', '/a/..']) {
        expect(new URL((await linkTo(to))!, app.address).origin, to).toBe(app.address);
      }
      for (const to of [
        'https://evil.example/',
        '//evil.example',
        '///evil.example',
        '/\\evil.example',
        '\\\\evil.example',
        '\t//evil.example',
        '/\n/evil.example',
        '/.//evil.example',
        '/..//evil.example',
        '/%2e//evil.example',
        '/a/..//evil.example',
        './/evil.example',
        '/./\\evil.example',
        'http:evil.example',
        'https:/evil.example',
        'javascript:alert(1)',
        'data:text/html,x',
        '//evil.example@visit.invalid/',
        '//user:password@visit.invalid/',
        '//[',
      ]) {
        const link = await linkTo(to);
        if (link !== null) expect(new URL(link, app.address).origin, `${to} as ${link}`).toBe(app.address);
      }
    });

    test('R14: line breaks in a URL cannot enter a header or leave an attribute', async () => {
      const app = await start();
      for (const text of ['\r\nSet-Cookie: evil=1', '\n\n<script>', '"><script>', "' onclick='x"]) {
        const answer = await app.browser().get(`/link?to=${encodeURIComponent(`/cart?q=${text}#${text}`)}`);
        const { link } = JSON.parse(answer.text) as { link: string };
        expect(link).not.toMatch(/[\r\n"<> ]/);
        expect(answer.cookies).toHaveLength(1);
      }
    });

    test('R17, R77, ASVS 16.2.5: CR and LF in requests add no header and no log line', async () => {
      const app = await start();
      const lines: string[] = [];
      const write = (...parts: unknown[]): void => void lines.push(parts.map(String).join(' '));
      const logger: LoggerService = {
        log: write,
        error: write,
        warn: write,
        debug: write,
        verbose: write,
        fatal: write,
      };
      app.app.useLogger(logger);
      const port = Number(new URL(app.address).port);
      const encoded = '%0d%0aSet-Cookie:%20evil=1%0d%0a';
      for (const [path, headers] of [
        [`/keep?visit_key=${encoded}`, `Cookie: visit=${encoded}`],
        [`/keep?visit_key=${invented()}${encoded}`, `Cookie: visit=${invented()}${encoded}`],
        [`/keep?${encoded}`, `User-Agent: agent${encoded}\u0085\u00a0\u00ff`],
        [`/keep${encoded}`, `X-Form-Token: ${encoded}`],
      ] as const) {
        const bytes = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n${headers}\r\n\r\n`;
        const { status, head } = await send(port, Buffer.from(bytes, 'latin1'));
        expect([201, 404], path).toContain(status);
        expect(head).not.toMatch(/evil/i);
        if (status === 201) expect(head.match(/^set-cookie:/gim)).toHaveLength(1);
      }
      Logger.overrideLogger(false);
      expect(lines.filter((line) => /evil|[\r\n]/.test(line))).toEqual([]);
      for (const { userAgent } of await stack.rows()) expect(userAgent ?? '').not.toMatch(/[\r\n]/);
    });

    test('R42: an invalid id finds nothing, ends nothing, and never reaches the database', async () => {
      const visits = (await start()).app.get(VisitService);
      const seen = await stack.statements(async () => {
        for (const id of ['\r\nforged line', "'; DROP TABLE visit; --", `${'0'.repeat(32)}\n`, 'A'.repeat(32), '']) {
          expect(await visits.find(id)).toBeNull();
          expect(await visits.end(id, 'revoked', { anyUser: true })).toBe(false);
        }
      });
      expect(seen).toEqual([]);
    });
  },
  ['sqlite'],
);
