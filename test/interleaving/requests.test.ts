import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { isSoak } from '../support/soak.js';
import { TODAY } from '../support/today.js';
import { explore, runBoth, type Exploration } from './explorer.js';
import { Laboratory } from './lab.js';
import { aloneScenes, besideScenes } from './requests.js';

// What follows from turns is the same on every database, and SQLite is the fastest.
describe('Several writes of one request', () => {
  let database: OpenDatabase;
  let laboratory: Laboratory;
  const done: Exploration[] = [];

  beforeAll(async () => {
    database = await openDatabase('sqlite');
    laboratory = await Laboratory.open('sqlite', database);
  });
  afterAll(async () => {
    await laboratory?.close();
    await database?.drop();
    const whole = done.filter(({ isWhole }) => isWhole).length;
    console.log(
      `Several writes of one request: ${done.reduce((sum, { orders }) => sum + orders, 0)} orders of ` +
        `${done.length} scenes, ${whole} of them whole`,
    );
  });

  describe('have the result of sequential calls', () => {
    test.for(aloneScenes)('$title', async ({ scenes }, { signal }) => {
      // With nobody beside it there is one order only.
      for (const scene of scenes)
        await runBoth(laboratory, scene, { schedule: [], choose: (choices) => choices[0]!, skipReads: false, signal });
      expect(scenes.length).toBeGreaterThan(0);
    });
  });

  describe('keep the laws in every order beside other requests', () => {
    test.for(besideScenes)('$title', async ({ twin, ...scene }, { signal }) => {
      const exploration = await explore(laboratory, scene, { most: isSoak ? 5000 : 6, seed: TODAY, twin, signal });
      done.push(exploration);
      expect(exploration.orders).toBeGreaterThan(1);
    });
  });
});
