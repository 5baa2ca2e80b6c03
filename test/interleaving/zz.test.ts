import { test } from 'vitest';
import { Laboratory } from './lab.js';
test('debug', { timeout: 60000 }, async () => {
  for (const db of (process.env.DBS ?? 'sqlite').split(',')) {
    const lab = await Laboratory.open(db as never);
    for (const [ops, situation] of [[['set', 'renew'], 'signedIn'], [['login', 'endAll'], 'anonymous'], [['expunge', 'login'], 'expiring']] as const) {
      const t = performance.now();
      const { course } = await lab.run({ operations: ops, situation } as never, { schedule: [], choose: (c) => c[0]!, skipReads: true });
      console.log(db, ops, performance.now() - t, course.steps.map((s) => `${s.actor} ${s.sql.slice(0, 60)}`), course.crossings.map((c) => `${c.able}/${c.choices}/${c.chosen}`).join(' '));
    }
    await lab.close();
  }
});
