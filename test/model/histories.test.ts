import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeDatabases, type DatabaseName } from '../support/databases.js';
import { isSoak } from '../support/soak.js';
import { findFailure } from './histories.js';
import { World } from './world.js';

/** Servers show that they do the same; what a history comes to is looked for on SQLite, which is quick. */
const historiesOn = (name: DatabaseName): number => (isSoak ? 2400 : name === 'sqlite' ? 80 : 40);

const { VISIT_TEST_SEED: seed, VISIT_TEST_PATH: path, VISIT_TEST_REPLAY_PATH: replayPath } = process.env;

describeDatabases('Random histories', (database) => {
  let world: World;

  beforeAll(async () => {
    world = await World.open(database.name, await database.open());
  });
  afterAll(() => world?.close());

  test('R7, R22, R24, R31, R39, R40, R42, B3, B23, B24, B25: each key gives the access of the model', async () => {
    const failure = await findFailure(world, historiesOn(database.name), {
      seed: seed === undefined ? undefined : Number(seed),
      path,
      replayPath,
    });
    expect(failure, failure?.message).toBeNull();
  });
});
