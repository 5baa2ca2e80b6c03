import { type VisitStore } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { RedisVisitStore } from 'nest-visit/redis';
import { createClient } from 'redis';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requireClock } from '../../lib/store/clock-skew.js';
import { describeDatabases } from '../support/databases.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { openPrisma, type TestPrisma } from '../support/prisma-client.mjs';
import { startProxy } from '../support/proxy.js';
import { uniquePrefix } from '../support/redis.js';

/** An hour, in seconds. */
const AHEAD = 3600;
const PRECISION = 60_000;

/**
 * Stamps of now in seconds become those of a server whose clock is ahead, as digits and as whole numbers of eight
 * bytes.
 */
const toTheFuture = (answer: Buffer): Buffer => {
  const now = Math.floor(Date.now() / 1000);
  const isNow = (value: number): boolean => Math.abs(value - now) < 600;
  const text = answer
    .toString('latin1')
    .replace(/\d{10}/g, (digits) => String(Number(digits) + (isNow(Number(digits)) ? AHEAD : 0)));
  const changed = Buffer.from(text, 'latin1');
  for (let place = 0; place + 8 <= changed.length; place++) {
    const value = changed.readUInt32LE(place);
    if (changed.readUInt32LE(place + 4) === 0 && isNow(value)) changed.writeUInt32LE(value + AHEAD, place);
  }
  return changed;
};

/**
 * Asks the server, and neither this process nor anything in between: a process with the clock of the server is right,
 * another one is not.
 */
async function expectToAsk(store: VisitStore): Promise<void> {
  const ahead = { now: () => Date.now() + AHEAD * 1000 };
  expect(Math.abs((await store.server!.serverTime!())! - ahead.now())).toBeLessThan(PRECISION);
  await expect(requireClock(store, { clock: ahead, maxClockSkew: PRECISION }, 'wipe')).resolves.toBeUndefined();
  await expect(requireClock(store, { clock: Date, maxClockSkew: PRECISION }, 'wipe')).rejects.toMatchObject({
    code: 'VISIT_CLOCK',
    message: expect.stringMatching(/3[56]\d\d s behind/) as string,
  });
}

describe('B75: The time of the server', () => {
  describeDatabases(
    'is read',
    (db) => {
      /** A database whose clock is ahead. */
      async function open(): Promise<string> {
        const { options } = await db.open();
        const proxy = await startProxy((options as { url: string }).url);
        onTestFinished(() => proxy.close());
        await (await openMigrated(options)).destroy();
        proxy.rewrite(toTheFuture);
        return proxy.url;
      }

      test('with TypeORM', async () => {
        const dataSource = await openMigrated({ type: db.name, url: await open() } as { type: 'mariadb' | 'postgres' });
        onTestFinished(() => dataSource.destroy());
        await expectToAsk(new TypeOrmVisitStore(dataSource));
      });

      const prisma = async (): Promise<TestPrisma> => {
        const client = await openPrisma(db.name as 'mariadb' | 'postgres', await open());
        onTestFinished(() => client.$disconnect());
        return client;
      };

      test('with Prisma', async () => {
        await expectToAsk(new PrismaVisitStore(await prisma()));
      });

      test('with an extended client of Prisma', async () => {
        await expectToAsk(new PrismaVisitStore((await prisma()).$extends({})));
      });
    },
    ['mariadb', 'postgres'],
  );

  describeWith('redis', 'is read in redis', () => {
    test.each([2, 3] as const)('by version %i of the protocol', async (RESP) => {
      const proxy = await startProxy(redisUrl!);
      onTestFinished(() => proxy.close());
      proxy.rewrite(toTheFuture);
      const client = await createClient({ url: proxy.url, RESP }).connect();
      onTestFinished(() => client.destroy());
      await expectToAsk(new RedisVisitStore({ client, prefix: uniquePrefix() }));
    });
  });
});
