import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tryRow } from '../matrix/application.mjs';
import { pack, type Packed } from '../matrix/pack.mjs';
import { nameOf, rows } from '../matrix/rows.mjs';
import { installByNpm } from '../matrix/tools.mjs';
import { temporaryFolder } from '../support/servers.mjs';
import { isSoak } from '../support/soak.js';
import { isForToday, TODAY } from '../support/today.js';
import { MATRIX_EVERY } from './linked.js';
import { nestAdd, nestAddInstalled } from './nest-add.js';
import { expectGateways, expectMissing, expectStoreSuite, installOlder, OLDER_NESTS } from './older-nests.js';

// One application every third day, installed as users install it, because an installation takes half a minute, and all of
// them in test:soak. `npm run matrix`, which runs once a week (.github/workflows/ci.yml), writes its results to
// docs/compatibility.md.

const folder = temporaryFolder('matrix');
let packed: Packed;

beforeAll(async () => {
  packed = await pack(folder.path);
});
afterAll(() => folder.remove());

const applications = rows.map((row) => (place: string) => {
  test(`An application with ${nameOf(row)}`, async () => {
    const { tarball } = packed;
    const result = await tryRow(row, { place, folder: folder.path, tarball, checksTypes: isSoak });
    await Promise.all([place, `${place}-bundle`].map((path) => rm(path, { recursive: true, force: true })));
    expect(result, `npm run matrix -- --only "${nameOf(row)}"`).toMatchObject({ outcome: 'works' });
  });
});

const olderNests = OLDER_NESTS.map((older) => (place: string) => {
  describe(`An application with Nest ${older.nest} and gateways`, () => {
    beforeAll(() => installOlder(older, place, packed.tarball));

    test('has its visit, refuses other sites, and closes with the visit: by ws and socket.io', async () => {
      await expect(expectGateways(place)).resolves.toBeUndefined();
    });

    test('R74: reports at startup what to install, in both formats, if an optional package is missing', async () => {
      await expect(expectMissing(place)).resolves.toBeUndefined();
    });

    if (older.more.some((name) => name.startsWith('jest')))
      test('R66: under Jest, the store of docs/writing-a-store.md passes, and fails with a fault in it', async () => {
        await expect(expectStoreSuite(place)).resolves.toBeUndefined();
      });
  });
});

// npm refuses whatever two packages do not agree on, also where it is optional and nobody uses it.
const olderPackages = (place: string): void => {
  test('Old versions of unused optional packages do not prevent npm from installing the package', async () => {
    await mkdir(place);
    await writeFile(join(place, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
    const packages = [
      '@nestjs/common@10',
      '@nestjs/core@10',
      'typeorm@0.3.4',
      'pg@8',
      'redis@3',
      'jose@5',
      'keyv@4',
      '@prisma/client@5',
      'drizzle-orm@0.36',
      'kysely@0.27',
    ];
    await expect(installByNpm(place, '--package-lock-only', packed.tarball, ...packages)).resolves.toBeDefined();
  });
};

const all = [...applications, ...olderNests, olderPackages];
/** `nest add` has more days than others. */
const byDay = all.flatMap((define, index) => (index % 5 === 4 ? [define, nestAdd] : [define]));

if (isSoak) {
  for (const [index, define] of [...all, nestAdd].entries()) define(join(folder.path, `app-${index}`));
  nestAddInstalled(folder.path, () => packed.tarball);
} else {
  describe.runIf(isForToday(0, MATRIX_EVERY))('Installed as users do', () => {
    byDay[Math.floor(TODAY / MATRIX_EVERY) % byDay.length]!(join(folder.path, 'app'));
  });
}
