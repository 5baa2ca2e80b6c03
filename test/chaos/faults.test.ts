import { setTimeout as pause } from 'node:timers/promises';
import type { VisitSettings } from 'nest-visit';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { openMigrated } from '../support/open-migrated.js';
import { platforms } from '../support/app.js';
import { PATIENCE } from '../support/patience.js';
import { isSoak } from '../support/soak.js';
import { startApps, type AppProcess } from './app-process.js';
import { describeFaultServerOfToday, type FaultServer } from './fault-server.js';
import { complainAboutFailure, Load, VISITORS } from './load.js';
import { Dice, idOf, SEED, Visitor, type Reply } from './visitor.js';

/** How long a request waits for a database that hangs. */
const STORE_TIMEOUT = 2000;

const HOUR = 3_600_000;

describeFaultServerOfToday('Faults', (name, startServer) => {
  let db: FaultServer;
  let apps: AppProcess[] = [];
  /**
   * The options with which they were started. Applications that a test has left in order are used by the next one, as
   * they would continue after a fault. Tests with the same options follow each other.
   */
  let started = '';
  const endApps = async (): Promise<void> => {
    await Promise.all(apps.splice(0).map((app) => app.end('SIGKILL')));
  };

  beforeAll(async () => {
    db = await startServer();
    const dataSource = await openMigrated(db.dataSource);
    await dataSource.destroy();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await endApps();
  });
  afterAll(async () => {
    await endApps();
    await db?.stop();
  });

  /** Only the missing ones, if the options are still the same. */
  async function start(visits: VisitSettings): Promise<void> {
    const options = { storeTimeout: STORE_TIMEOUT, touch: { interval: 100, resolution: 1 }, ...visits };
    if (started !== JSON.stringify(options)) await endApps();
    apps = apps.filter(({ serving }) => serving);
    const missing = platforms.filter((platform) => !apps.some((app) => app.platform === platform));
    apps.push(
      ...(await startApps(missing.map((platform) => ({ platform, dataSource: db.dataSource, visits: options })))),
    );
    started = JSON.stringify(options);
  }

  /** One application of each platform, with visitors who use it before, during and after `fault`. */
  async function expectNothingLost(
    fault: (load: Load) => Promise<void>,
    { visits = {}, mayBreak = false }: { visits?: VisitSettings; mayBreak?: boolean } = {},
  ): Promise<Load> {
    await start(visits);
    const load = await new Load(apps, VISITORS, mayBreak).begin();
    try {
      await load.thrives(2);
      await fault(load);
    } finally {
      await load.finish();
    }
    await load.settle();
    return load;
  }

  /** Expiry updates are written, so the writer is alive. */
  async function touchesArrive(load: Load): Promise<void> {
    const since = Date.now();
    const ids = load.clients.map(({ key }) => `'${idOf(key)}'`).join();
    await load.until(async () => {
      const [row] = await db.ask(`SELECT COUNT(*) AS late FROM visit WHERE id IN (${ids}) AND accessed < ${since}`);
      return Number(row!['late']) === 0;
    }, 'every visit has been touched again');
  }

  describe('of the database', () => {
    test('B18, B19, B21, R28: it is killed and restarted', async () => {
      await expectNothingLost(async (load) => {
        for (let times = isSoak ? 4 : 1; times > 0; times--) {
          await db.server.kill();
          await load.suffers();
          await db.server.restart();
          await load.thrives();
          await touchesArrive(load);
        }
      });
    });

    test('B18: it hangs: requests get a response in bounded time', async () => {
      await expectNothingLost(async (load) => {
        const goOn = await db.hang();
        try {
          await load.suffers();
          // The rest of the application does not hang.
          for (const app of apps) expect(await app.tell('/alive')).toBe('yes');
          const reply = await load.clients[0]!.visitor.get('/who');
          complainAboutFailure(reply, (what) => expect.fail(`${what}: ${reply.text}`));
        } finally {
          await goOn();
        }
        await load.thrives();
        await touchesArrive(load);
      });
    });

    test('B18: it is read-only: reads are served, writes get an error', async () => {
      await expectNothingLost(async (load) => {
        await db.setReadOnly(true);
        try {
          await load.suffers();
          const before = load.reads;
          await load.until(() => load.reads > before + 40, 'visits are read');
        } finally {
          await db.setReadOnly(false);
        }
        await load.thrives();
        await touchesArrive(load);
      });
    });

    test('B18: it is full: writes are refused, and succeed when there is space again', async () => {
      await expectNothingLost(async (load) => {
        const long = 'x'.repeat(40_000);
        const writeToNew = (app: AppProcess): Promise<Reply> =>
          new Visitor(() => app.address).post('/set', { key: 'long', value: long });
        const makeRoom = await db.fill();
        try {
          for (const app of apps) {
            await load.until(async () => {
              const reply = await writeToNew(app);
              if (reply.status === 201) return false;
              complainAboutFailure(reply, (what) => expect.fail(`${what}: ${reply.text}`));
              expect(reply.given).toBeUndefined();
              return true;
            }, 'the database is full');
          }
          const before = load.reads;
          await load.until(() => load.reads > before + 20, 'visits are read');
        } finally {
          await makeRoom();
        }
        // Servers do not free space immediately.
        for (const app of apps)
          await load.until(async () => (await writeToNew(app)).status === 201, 'there is room again');
        await load.thrives();
        await touchesArrive(load);
      });
    });

    test('B18, B19: it drops connections repeatedly', async () => {
      await expectNothingLost(async (load) => {
        // Few requests fail: statements that were not executed are retried on another connection.
        let dropped = 0;
        const most = isSoak ? 200 : 60;
        await load.until(async () => (dropped += await db.dropConnections()) >= most, `${most} were dropped`);
        await load.thrives();
        await touchesArrive(load);
      });
    });

    test('B18: it has too many connections', async () => {
      await expectNothingLost(async (load) => {
        await db.refuseConnections(true);
        try {
          await load.suffers();
        } finally {
          await db.refuseConnections(false);
        }
        await load.thrives();
        await touchesArrive(load);
      });
    });
  });

  describe('of an application', () => {
    test('B21: it is killed while it writes: all acknowledged writes are stored', async () => {
      await expectNothingLost(
        async (load) => {
          await apps[0]!.end('SIGKILL');
          await load.thrives();
          await touchesArrive(load);
        },
        { mayBreak: true },
      );
    });
  });

  describe('of other clients of the same rows', () => {
    test('B21: a lock that is held for a long time causes delays, but no loss', async () => {
      await expectNothingLost(async (load) => {
        const session = await db.connect();
        await session.query('BEGIN');
        // In the order that the library uses, so that nobody waits in a circle.
        const held = load.clients.slice(0, 3).map(({ key }) => idOf(key));
        for (const id of held.toSorted()) await session.query(`UPDATE visit SET user_agent = 'x' WHERE id = '${id}'`);
        try {
          await load.suffers(3);
        } finally {
          await session.query('ROLLBACK');
          await session.close();
        }
        await load.thrives();
        await touchesArrive(load);
      });
    });

    test('B21, B36: deadlocks cause no errors', async () => {
      await db.ask('CREATE TABLE IF NOT EXISTS ballast (id INT PRIMARY KEY, n INT)');
      await db.ask(`INSERT INTO ballast VALUES ${Array.from({ length: 200 }, (_, id) => `(${id}, 0)`).join()}`);
      await expectNothingLost(
        async (load) => {
          const dice = new Dice(SEED);
          const ids = load.clients.map(({ key }) => idOf(key));
          const session = await db.connect();
          // PostgreSQL rolls back the transaction that detects the deadlock, InnoDB the one that has written less:
          // not this one. A waiting transaction checks once, after a second: a deadlock that forms later is only
          // detected by this session, long before storeTimeout.
          if (name === 'postgres') await session.query("SET deadlock_timeout = '3s'");
          const before = await db.deadlocks();
          let own = 0;
          const disturb = async (): Promise<void> => {
            // In the reverse of the order that the library uses.
            const some = new Set(Array.from({ length: 8 }, () => dice.pick(ids)));
            try {
              await session.query('BEGIN');
              await session.query('UPDATE ballast SET n = n + 1');
              for (const id of [...some].toSorted().toReversed())
                await session.query(`UPDATE visit SET user_agent = 'x' WHERE id = '${id}'`);
              await session.query('COMMIT');
            } catch {
              own++;
              await session.query('ROLLBACK');
            }
          };
          await load.until(async () => {
            await disturb();
            await pause(20);
            return (await db.deadlocks()) - before - own >= 3;
          }, 'there were deadlocks that hit the library');
          await session.close();
          await load.thrives(2);
          expect(load.failures).toBe(0);
        },
        { visits: { storeTimeout: PATIENCE } },
      );
    });
  });

  if (name === 'postgres') {
    test('R51: transactions that are serializable by default are retried', async () => {
      await db.ask("ALTER ROLE app SET default_transaction_isolation = 'serializable'");
      try {
        const failed = async (): Promise<number> =>
          Number(
            (await db.ask("SELECT xact_rollback FROM pg_stat_database WHERE datname = 'visit'"))[0]!['xact_rollback'],
          );
        const before = await failed();
        await expectNothingLost(
          async (load) => {
            await load.until(async () => (await failed()) > before, 'something could not be serialized');
            await load.thrives();
            expect(load.failures).toBe(0);
          },
          { visits: { storeTimeout: PATIENCE } },
        );
      } finally {
        await db.ask('ALTER ROLE app RESET default_transaction_isolation');
      }
    });
  }

  describe('at shutdown of an application', () => {
    test.each(platforms)(
      'R29, B39: %s shuts down gracefully under load: requests are finished, pending updates are written',
      async (platform) => {
        const isEnding = (app: AppProcess): boolean => app.platform === platform;
        await expectNothingLost(
          async (load) => {
            const ending = apps.find(isEnding)!;
            const visitor = new Visitor(() => ending.address);
            await visitor.post('/add');
            const held = visitor.post('/hold');
            await ending.printed('a request is held');
            const since = Date.now();
            const touched = new Visitor(() => ending.address);
            touched.key = load.clients[0]!.key;
            expect((await touched.get('/who')).status).toBe(200);

            const { code } = await ending.end('SIGTERM');

            expect(code, ending.log).toBe(0);
            expect(await held).toMatchObject({ status: 201, body: { value: 2 } });
            const rest = apps.find((app) => !isEnding(app))!;
            const later = new Visitor(() => rest.address);
            later.key = visitor.key;
            expect((await later.get('/data')).body).toMatchObject({ data: { n: 2 } });
            // The other one writes its updates in an hour, and has no others.
            const [row] = await db.ask(`SELECT accessed FROM visit WHERE id = '${idOf(touched.key)}'`);
            expect(Number(row!['accessed'])).toBeGreaterThanOrEqual(since);
            await load.thrives();
          },
          { mayBreak: true, visits: { touch: { interval: HOUR, resolution: 1 }, timeout: 24 * HOUR } },
        );
      },
    );

    test.each(['with the database', 'alone'])('B51: it ends while clean-up hangs %s', async (how) => {
      await endApps();
      started = 'for the clean-up';
      const [app] = (apps = await startApps([
        {
          platform: 'express',
          dataSource: db.dataSource,
          visits: {
            storeTimeout: STORE_TIMEOUT,
            touch: { interval: HOUR, resolution: 1 },
            timeout: 24 * HOUR,
            expunge: { schedule: '* * * * * *', keepDays: 0 },
          },
        },
      ]));
      const visitor = new Visitor(() => app!.address);
      await visitor.post('/add');
      // A visit that expired long ago, with a locked row.
      const stale = new Visitor(() => app!.address);
      await stale.post('/add');
      const id = idOf(stale.key!);
      const holder = await db.connect();
      let since = 0;
      let code: number | null;
      try {
        await holder.query('BEGIN');
        await holder.query(`UPDATE visit SET expiry = 1 WHERE id = '${id}'`);
        await holder.query('COMMIT');
        await holder.query('BEGIN');
        await holder.query(`SELECT id FROM visit WHERE id = '${id}' FOR UPDATE`);
        await db.isWaitedFor(holder);
        since = Date.now();
        expect((await visitor.get('/who')).status).toBe(200);
        const goOn = how === 'alone' ? undefined : await db.hang();
        ({ code } = await app!.end('SIGTERM'));
        await goOn?.();
      } finally {
        await holder.close();
      }
      expect(code, app!.log).toBe(0);
      expect(app!.log).toContain(
        'The application is shutting down while a clean-up batch is still running in the store',
      );
      const [row] = await db.ask(`SELECT accessed FROM visit WHERE id = '${idOf(visitor.key!)}'`);
      if (how === 'alone') expect(Number(row!['accessed'])).toBeGreaterThanOrEqual(since);
      else expect(app!.log).toContain('1 expiry updates could not be written before shutdown');
    });

    test.each(['away', 'hanging'])('B39: it ends in bounded time while the database is %s', async (state) => {
      await start({ touch: { interval: HOUR, resolution: 1 }, timeout: 24 * HOUR });
      for (const app of apps) {
        const visitor = new Visitor(() => app.address);
        await visitor.post('/add');
        expect((await visitor.get('/who')).status).toBe(200);
      }
      const comeBack = state === 'away' ? () => db.server.restart() : await db.hang();
      try {
        if (state === 'away') await db.server.kill();
        for (const { code } of await Promise.all(apps.map((app) => app.end('SIGTERM')))) {
          expect(code, apps.map(({ log }) => log).join('\n')).toBe(0);
        }
      } finally {
        await comeBack();
      }
    });
  });
});
