import { Controller, Post } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { CsrfGuard, Session } from 'nest-visit';
import { expect, test } from 'vitest';
import { send } from '../fuzz/wire.js';
import { describeStacks } from '../support/app.js';
import { keyOf, target } from './target.js';

@Controller()
class TransferController {
  constructor(private readonly session: Session) {}

  @Post('transfer')
  transfer() {
    return (this.session['transfers'] = ((this.session['transfers'] as number | undefined) ?? 0) + 1);
  }
}

/** What a form of another site can send, and what looks like it to a careless parser. */
const TYPES = [
  'text/plain',
  'Text/Plain; charset=utf-8',
  'text/plain; application/json',
  'application/json',
  'application/json ; charset=utf-8',
  'application/jsonx',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  '',
];

describeStacks(
  'Forged requests',
  (stack) => {
    test('B31, ASVS 3.5.2: a cross-site POST is refused with any type of body and any origin headers', async () => {
      const parts = { ...target, controllers: [...target.controllers, TransferController] };
      const app = await stack.start({
        ...parts,
        providers: [...target.providers, { provide: APP_GUARD, useExisting: CsrfGuard }],
      });
      const browser = app.browser();
      const own = { 'sec-fetch-site': 'same-origin' };
      await browser.post('/set', { json: { transfers: 0 }, headers: own });
      const port = Number(new URL(app.address).port);
      const body = '{"form_token":"xxxxxxxxxxxxxxxxxxxxxx"}';
      for (const type of TYPES) {
        for (const origin of [
          '',
          'Origin: null\r\n',
          'Origin: https://evil.example\r\n',
          'Sec-Fetch-Site: cross-site\r\n',
        ]) {
          const { status } = await send(
            port,
            Buffer.from(
              `POST /transfer HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\nCookie: ` +
                `visit=${keyOf(browser)}\r\n${origin}` +
                `${type && `Content-Type: ${type}\r\n`}Content-Length: ${body.length}\r\n\r\n${body}`,
            ),
          );
          expect([400, 403, 415], `${type} ${origin}`).toContain(status);
        }
      }
      expect((await browser.get('/me')).text).toContain('"transfers":0');
      expect((await browser.post('/transfer', { headers: own })).text).toBe('1');
    });
  },
  ['sqlite'],
);
