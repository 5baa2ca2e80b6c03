import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { describeUnlessMissing } from '../support/needs.js';
import { findRedis, startRedis, type TestServer } from '../support/servers.mjs';
import { AppProcess } from './app-process.js';
import { Visitor } from './visitor.js';

describeUnlessMissing(findRedis() ? [] : ['redis-server or valkey-server'], 'An application that ends with visits in Redis', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server?.stop());

  describe.each(platforms)('under %s', (platform) => {
    test('R29, B39: ends although the server stands still, and says what it could not write', async () => {
      const visits = { touch: { interval: 3_600_000, resolution: 1 }, timeout: '24h' } as const;
      const app = await AppProcess.start({ platform, redis: { connection: server.url, prefix: `${platform}:` }, visits });
      try {
        const visitor = new Visitor(() => app.address);
        await visitor.post('/add');
        expect((await visitor.get('/who')).status).toBe(200);
        process.kill(server.pid, 'SIGSTOP');
        const { code } = await app.end('SIGTERM');
        expect(code, app.log).toBe(0);
        expect(app.log).toContain('1 expiry updates could not be written before the end');
      } finally {
        process.kill(server.pid, 'SIGCONT');
        await app.end('SIGKILL');
      }
    });
  });
});
