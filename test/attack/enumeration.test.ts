import { VisitService } from 'nest-visit';
import { expect, test } from 'vitest';
import { describeStacks } from '../support/app.js';
import { Alarm, idOf, invented, keyOf, nobody, seenAs, target, victimOf } from './target.js';

describeStacks(
  'Enumeration',
  (stack) => {
    test('A2, ASVS 7.2.1: a public id, as shown in logs, gives no access', async () => {
      const app = await stack.start(target, { source: 'cookie, form' });
      const { browser, user } = await victimOf(app);
      const id = idOf(browser);
      for (const value of [
        id,
        `${id}.`,
        `${id}.${id}`,
        `${id}.${id}${id.slice(0, 11)}`,
        `${id}.${'A'.repeat(43)}`,
        `VisitKey(${id})`,
      ]) {
        expect(await seenAs(app, `visit=${value}`), value).toEqual(nobody);
        expect((await app.browser().get(`/secret?visit_key=${encodeURIComponent(value)}`)).status, value).toBe(401);
      }
      expect((await browser.get('/secret')).text).toBe(`the secret of ${user}`);
    });

    test('ASVS 7.5.2: visits of other users and unknown visits are refused with the same response', async () => {
      const app = await stack.start(target);
      const [attacker, { browser: victim }] = [(await victimOf(app)).browser, await victimOf(app)];
      const anonymous = app.browser();
      await anonymous.post('/set', { json: { cart: 1 } });
      const gone = await app.app.get(VisitService).create({ userId: 'gone' });
      await app.app.get(VisitService).end(gone.visit.id, 'revoked', { anyUser: true });
      const ids = [
        idOf(victim),
        idOf(anonymous),
        gone.visit.id,
        '0'.repeat(32),
        'x',
        `${idOf(victim)}x`,
        idOf(victim).toUpperCase(),
        '%00',
      ];
      for (const by of [attacker, anonymous, app.browser()]) {
        const answers = [];
        for (const id of ids.filter((one) => !by.jar.has('visit') || one !== idOf(by))) {
          const answer = await by.get(`/visits/${id}`, { method: 'DELETE' });
          answers.push(
            JSON.stringify([
              answer.status,
              answer.text,
              answer.cookies,
              [...answer.headers].filter(([name]) => name !== 'date'),
            ]),
          );
        }
        expect(answers[0]).toContain('"false"');
        expect([...new Set(answers)]).toHaveLength(1);
      }
      expect((await victim.get('/secret')).status).toBe(200);
      expect((await anonymous.get('/me')).text).toContain('cart');
    });

    test('ASVS 7.5.2: statements do not distinguish another user’s visit from a missing one', async () => {
      const app = await stack.start(target);
      const [attacker, victim] = [(await victimOf(app)).browser, (await victimOf(app)).browser];
      const end = (id: string) => stack.statements(() => attacker.get(`/visits/${id}`, { method: 'DELETE' }));
      expect(await end(idOf(victim))).toEqual(await end('0'.repeat(32)));
    });

    test('A1, ASVS 7.2.2, 7.2.3, B28: a copy of the database does not give access to visits', async () => {
      const app = await stack.start(target);
      const people = [await victimOf(app), await victimOf(app)];
      for (const { browser } of people) await browser.post('/reauthenticate');
      const rows: Record<string, unknown>[] = [];
      for (const table of ['visit', 'visit_identity', 'visit_revocation']) {
        rows.push(...(await stack.dataSource().query<Record<string, unknown>[]>(`SELECT * FROM ${table}`)));
      }
      const texts = [...new Set(rows.flatMap((row) => Object.values(row)).map((value) => textOf(value)))];
      for (const { browser } of people) {
        const key = keyOf(browser);
        expect(texts.some((text) => text.includes(key.slice(33)))).toBe(false);
        // Of 43 characters is also what a hash is in the alphabet of secrets.
        const secrets = texts.flatMap((text) => [
          text,
          Buffer.from(text, 'hex').toString('base64url'),
          Buffer.from(text).toString('base64url'),
        ]);
        const forged = [...new Set(secrets.flatMap((secret) => [secret.slice(0, 43), secret.slice(-43)]))].filter(
          (secret) => secret.length === 43,
        );
        expect(forged.length).toBeGreaterThan(3);
        for (const secret of forged)
          expect(await seenAs(app, `visit=${idOf(browser)}.${encodeURIComponent(secret)}`)).toEqual(nobody);
      }
    });

    test('S10: attempts to guess ids are reported with the address', async () => {
      const app = await stack.start(target);
      const { refused } = app.app.get(Alarm);
      for (let index = 0; index < 20; index++) await seenAs(app, `visit=${invented(index)}`);
      const count = new Map<string | undefined, number>();
      for (const { remoteAddress } of refused) count.set(remoteAddress, (count.get(remoteAddress) ?? 0) + 1);
      expect([...count]).toEqual([['127.0.0.1', 20]]);
    });
  },
  ['sqlite'],
);

function textOf(value: unknown): string {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value))
    return Buffer.from(value as ArrayBuffer).toString('latin1');
  return String(value);
}
