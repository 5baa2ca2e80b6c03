import {
  type CleanUpBatch,
  type Rekey,
  type SaveResult,
  type SessionSave,
  type Touch,
  type UserEndingBatch,
  type UserList,
} from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TurnQueue } from '../../lib/context/turn.js';
import { TIMEOUT } from '../interleaving/process.js';
import { openDatabase } from '../support/databases.js';
import { isForToday } from '../support/today.js';
import { findFailure } from './histories.js';
import { RENEWAL_GRACE } from './model.js';
import { World } from './world.js';

/** More than it ever takes: the first one that fails is the last one that is run. */
const MOST_HISTORIES = 2000;
/** What a person can read at a glance. */
const MOST_STEPS = 12;

type Store = new (dataSource: DataSource) => TypeOrmVisitStore;

const defects: Record<string, Store> = {
  'R31, R40: an end that ends nothing': class extends TypeOrmVisitStore {
    override async end(ids: readonly string[]): Promise<string[]> {
      return [...ids];
    }
  },
  'R39, B23, B24: a sign-in that leaves the old key a grace': class extends TypeOrmVisitStore {
    override rekey(changes: readonly Rekey[]) {
      return super.rekey(
        changes.map((change) => ({
          ...change,
          previousKeyUntil: change.previousKeyUntil ?? change.now + RENEWAL_GRACE,
        })),
      );
    }
  },
  'R40: a sign-out that keeps the visit, and the user': class extends TypeOrmVisitStore {
    override rekey(changes: readonly Rekey[]) {
      return super.rekey(changes.map(({ identity, ...change }) => ({ ...change, ...(identity && { identity }) })));
    }
  },
  'B17: a grace that is too short': class extends TypeOrmVisitStore {
    override rekey(changes: readonly Rekey[]) {
      return super.rekey(
        changes.map((change) => ({
          ...change,
          previousKeyUntil: change.previousKeyUntil && change.now + RENEWAL_GRACE / 3,
        })),
      );
    }
  },
  'R22: touches that are never written': class extends TypeOrmVisitStore {
    override async touch(): Promise<void> {}
  },
  'R22: an expiry that is a millisecond too late': class extends TypeOrmVisitStore {
    override touch(touches: readonly Touch[]) {
      return super.touch(touches.map((touch) => ({ ...touch, expiry: touch.expiry + 1 })));
    }
  },
  'R24: a use that moves the expiry past the absolute one': class extends TypeOrmVisitStore {
    override touch(touches: readonly Touch[]) {
      return super.touch(
        touches.map((touch) => ({ ...touch, expiry: Math.max(touch.expiry, touch.accessed + TIMEOUT) })),
      );
    }
  },
  'R42: an end of all others that takes the own one': class extends TypeOrmVisitStore {
    override endAllForUser({ except: _, ...batch }: UserEndingBatch) {
      return super.endAllForUser(batch);
    }
  },
  'R42: a list with what has expired': class extends TypeOrmVisitStore {
    override listForUser(list: UserList) {
      return super.listForUser({ ...list, now: 0 });
    }
  },
  'B10: a save that is acknowledged, and nothing is stored': class extends TypeOrmVisitStore {
    override async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
      return saves.map(({ version }) => ({ outcome: 'saved', version: version + 1 }));
    }
  },
  'R61, B37: an expunge that takes the living': class extends TypeOrmVisitStore {
    override expunge(batch: CleanUpBatch) {
      return super.expunge({ ...batch, before: batch.before + TIMEOUT });
    }
  },
  'R62: a wipe that comes too early': class extends TypeOrmVisitStore {
    override wipe(batch: CleanUpBatch) {
      return super.wipe({ ...batch, before: batch.before + TIMEOUT });
    }
  },
};

describe('Random histories find', () => {
  let healthy: World;
  const closers: (() => Promise<void>)[] = [];
  const open = async (Store?: Store): Promise<World> => {
    const database = await openDatabase('sqlite');
    closers.unshift(database.drop);
    const world = await World.open('sqlite', database, Store && ((dataSource) => new Store(dataSource)));
    closers.unshift(() => world.close());
    return world;
  };

  beforeAll(async () => {
    healthy = await open();
  });
  afterAll(async () => {
    for (const close of closers) await close();
  });

  const expectFound = async (world: World, restore = (): void => {}): Promise<void> => {
    const failure = await findFailure(world, MOST_HISTORIES).finally(restore);
    expect(failure).not.toBeNull();
    expect(failure!.steps, failure!.message).toBeLessThanOrEqual(MOST_STEPS);
    const without = await findFailure(healthy, 1, failure!.place);
    expect(without, `it is not the defect that was found: ${without?.message}`).toBeNull();
  };

  test.each(Object.entries(defects).filter((_, index) => isForToday(index, 4)))('%s', async (_title, Store) => {
    await expectFound(await open(Store));
  });

  test('R51: writes of one request without turns', async () => {
    // oxlint-disable-next-line typescript/unbound-method -- called with a queue each time
    const { add } = TurnQueue.prototype;
    TurnQueue.prototype.add = function (start) {
      return this.note(start());
    };
    await expectFound(healthy, () => (TurnQueue.prototype.add = add));
  });
});
