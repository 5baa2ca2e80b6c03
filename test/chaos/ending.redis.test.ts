import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { describeUnlessMissing } from '../support/needs.js';
import { findRedis, startRedis, type TestServer } from '../support/servers.mjs';
import { AppProcess } from './app-process.js';
import { Visitor } from './visitor.js';

describeUnlessMissing(
  findRedis() ? [] : ['redis-server or valkey-server'],
  'An application with visits in Redis',
  () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await startRedis();
    });
    afterAll(() => server?.stop());

    test('R74: does not start while the server hangs, and names the server in the error', async () => {
      process.kill(server.pid, 'SIGSTOP');
      try {
        const starting = AppProcess.start({
          platform: 'express',
          redis: { connection: server.url, prefix: 'start:' },
          visits: { storeTimeout: 3000 },
        });
        const { host } = new URL(server.url);
        await expect(starting).rejects.toThrow(
          `cannot connect to Redis at ${host}: there was no answer within 3000 ms`,
        );
        await expect(starting).rejects.toThrow("code: 'VISIT_STORE_UNAVAILABLE'");
      } finally {
        process.kill(server.pid, 'SIGCONT');
      }
    });

    describe.each(platforms)('under %s', (platform) => {
      test('R29, B39: closes although the server hangs, and logs what it could not write', async () => {
        const visits = { touch: { interval: 3_600_000, resolution: 1 }, timeout: '24h' } as const;
        const app = await AppProcess.start({
          platform,
          redis: { connection: server.url, prefix: `${platform}:` },
          visits,
        });
        try {
          const visitor = new Visitor(() => app.address);
          await visitor.post('/add');
          expect((await visitor.get('/who')).status).toBe(200);
          process.kill(server.pid, 'SIGSTOP');
          const { code } = await app.end('SIGTERM');
          expect(code, app.log).toBe(0);
          expect(app.log).toContain('1 expiry updates could not be written before shutdown');
        } finally {
          process.kill(server.pid, 'SIGCONT');
          await app.end('SIGKILL');
        }
      });
    });
  },
);
