import { fileURLToPath } from 'node:url';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { platforms } from '../support/app.js';
import { startProxy } from '../support/proxy.js';
import { AppProcess, startApps, type AppSetting } from './app-process.js';
import { describeServerOfToday } from './servers.js';
import { Visitor } from './visitor.js';

const STUCK = fileURLToPath(new URL('fixtures/stuck.migration.mjs', import.meta.url));
const PLATFORMS = ['express', 'fastify', 'express'] as const;
/** Short, because tests wait for it, but longer than connecting takes on a busy machine. */
const STORE_TIMEOUT = 3000;

describeServerOfToday('Processes that start on an empty database', (db) => {
  const apps: AppProcess[] = [];
  afterEach(() => Promise.all(apps.splice(0).map((app) => app.end('SIGKILL'))));

  const start = async (settings: AppSetting[]): Promise<void> => void apps.push(...(await startApps(settings)));

  async function rowsOfMigrations(options: object): Promise<unknown[]> {
    const dataSource = await new DataSource(options as DataSourceOptions).initialize();
    onTestFinished(() => dataSource.destroy());
    return dataSource.query('SELECT name FROM migrations');
  }

  /** Each application serves data that another one has stored. */
  async function expectAllToServe(): Promise<void> {
    let turn = 0;
    const visitor = new Visitor(() => apps[turn++ % apps.length]!.address);
    visitor.key = (await visitor.post('/add')).given!;
    for (const _ of apps) expect((await visitor.post('/add')).status).toBe(201);
  }

  test('B79: started at the same time, all succeed, however they run migrations', async () => {
    const { options } = await db.open();
    const modes = ['all', 'each', 'none'];
    const migrating = { ...options, migrationsRun: true };
    await start(
      PLATFORMS.map((platform, one) => ({
        platform,
        dataSource: { ...migrating, migrationsTransactionMode: modes[one] },
      })),
    );
    await expectAllToServe();
    expect(await rowsOfMigrations(options)).toHaveLength(1);
  });

  test('B79: started at the same time, all succeed with one connection each and with `synchronize`', async () => {
    const { options } = await db.open();
    await start(
      platforms.map((platform) => ({ platform, dataSource: { ...options, synchronize: true, poolSize: 1 } })),
    );
    await expectAllToServe();
  });

  test('B79: the others continue if the one that migrates is killed', async () => {
    const { options } = await db.open();
    let kill: (() => void) | undefined;
    const migrates = new Promise<void>((resolve, reject) => {
      const onLine: AppSetting['onLine'] = (line, child) => {
        if (!line.includes('in the middle')) return;
        kill = () => child.kill('SIGKILL');
        onTestFinished(kill);
        resolve();
      };
      const dataSource = { ...options, migrationsRun: true, migrations: [STUCK] };
      AppProcess.start({ platform: 'express', dataSource, onLine }).then(undefined, (error: Error) => {
        if (!error.message.includes('SIGKILL')) reject(error);
      });
    });
    await migrates;
    let waiting = 0;
    const onLine: AppSetting['onLine'] = (line) => {
      if (line.includes('another process that is changing the tables') && ++waiting === 2) kill!();
    };
    await start(
      platforms.map((platform) => ({
        platform,
        dataSource: { ...options, migrationsRun: true },
        onLine,
      })),
    );
    expect(waiting).toBe(2);
    await expectAllToServe();
  });

  const silenced = async () => {
    const { options } = await db.open();
    const { url } = options as { url: string };
    const proxy = await startProxy(url);
    onTestFinished(() => proxy.close());
    const place = new RegExp(
      `cannot open the data source of type "${options.type}" at ${new URL(proxy.url).host}/.* no answer within ` +
        `${STORE_TIMEOUT} ms`,
    );
    return { proxy, place, dataSource: { ...options, url: proxy.url, migrationsRun: true } };
  };
  const visits = { storeTimeout: STORE_TIMEOUT };

  test('R74: a database that accepts connections and never answers fails the startup, with its name', async () => {
    const { proxy, place, dataSource } = await silenced();
    proxy.goSilent();
    await expect(AppProcess.start({ platform: 'fastify', dataSource, visits })).rejects.toThrow(place);
  });

  test('R74: so does one that stops answering during a migration', async () => {
    const { proxy, place, dataSource } = await silenced();
    const onLine: AppSetting['onLine'] = (line) => line.includes('in the middle') && proxy.goSilent();
    const stuck = { ...dataSource, migrations: [STUCK] };
    await expect(AppProcess.start({ platform: 'express', dataSource: stuck, visits, onLine })).rejects.toThrow(place);
  });
});
