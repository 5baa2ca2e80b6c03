import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDatabase, type DatabaseName, type OpenDatabase } from '../support/databases.js';
import { describeWith, type Need } from '../support/needs.js';
import { isSoak } from '../support/soak.js';
import { TODAY } from '../support/today.js';
import { explore, replay, type Exploration } from './explorer.js';
import { FailedOrder, Laboratory, type Rewrite, type Scene } from './lab.js';
import { operations, type OperationName } from './operations.js';
import { KNOWN_ORDERS, scenes } from './orders.js';

/**
 * All orders of the simplest pairs. Other pairs, and three at once, have too many orders: each day runs a share of them.
 * Servers show their locks in fewer.
 */
function mostOrders(name: DatabaseName, { operations: { length } }: Scene): number {
  if (isSoak) return 20_000;
  return length > 2 ? 6 : name === 'sqlite' ? 16 : 6;
}

/** Of a scene in which something must show: it ends with the first order that shows it. */
const MOST_TO_SHOW = 200;

/** What is taken out of the SQL, and a scene in which that must show. */
interface Guard extends Scene, Edit {
  readonly ids: string;
  readonly name: string;
  /** A second guard against the same, taken out as well. */
  readonly and?: Edit;
}

interface Edit {
  /** The statement that carries the guard. */
  readonly statement: RegExp;
  readonly guard: RegExp;
  readonly instead: string;
}

const [LIVE, VERSION, KEY, FORWARD] = [
  { guard: /[`"]ended_at[`"](?: \+ 0)? IS NULL/, instead: '1 = 1' },
  { guard: /([`"]session_version[`"]) = (\?|\$\d+|saves\.\w+)/, instead: '$1 >= $2' },
  { guard: /([`"]key_hash[`"] = (?:\?|\$\d+|saves\.\w+)) OR/, instead: '$1 OR 1 = 1 OR' },
  { guard: /(GREATEST|MAX)\(([`"](?:expiry|accessed)[`"]), /g, instead: 'COALESCE(NULL, ' },
];
const SAVE = /^UPDATE.* SET [`"]session_data[`"] = (?:CASE|saves)/;
const TOUCH = /^UPDATE.* SET [`"]accessed[`"] =/;
const REKEY = /^UPDATE.* SET [`"]previous_key_hash[`"] =/;
const END = /^UPDATE.*[`"]end_reason[`"] =/;

const GUARDS: readonly Guard[] = [
  {
    ids: 'B1, R31',
    name: 'that a save needs a visit that has not ended, and its version',
    statement: SAVE,
    ...LIVE,
    and: { statement: SAVE, ...VERSION },
    operations: ['set', 'logout'],
    situation: 'signedIn',
  },
  {
    ids: 'B4, R31',
    name: 'that a touch needs a visit that has not ended',
    statement: TOUCH,
    ...LIVE,
    operations: ['touch', 'end'],
    situation: 'signedIn',
  },
  {
    ids: 'R31',
    name: 'that a login needs a visit that has not ended',
    statement: REKEY,
    ...LIVE,
    operations: ['login', 'end'],
    situation: 'anonymous',
  },
  {
    ids: 'R31',
    name: 'that a renewal needs a visit that has not ended',
    statement: REKEY,
    ...LIVE,
    operations: ['renew', 'endAll'],
    situation: 'signedIn',
  },
  {
    ids: 'R72',
    name: 'that an end needs a visit that has not ended',
    statement: END,
    ...LIVE,
    operations: ['logout', 'end'],
    situation: 'signedIn',
  },
  {
    ids: 'B8, R51',
    name: 'the version of a save, setting',
    statement: SAVE,
    ...VERSION,
    operations: ['set', 'set'],
    situation: 'anonymous',
  },
  {
    ids: 'B14, R51',
    name: 'the version of a save, counting',
    statement: SAVE,
    ...VERSION,
    operations: ['update', 'update'],
    situation: 'anonymous',
  },
  {
    ids: 'B13',
    name: 'the version of a save, taking',
    statement: SAVE,
    ...VERSION,
    operations: ['take', 'take'],
    situation: 'anonymous',
  },
  {
    ids: 'B3',
    name: 'the key of a save',
    statement: SAVE,
    ...KEY,
    operations: ['set', 'login'],
    situation: 'anonymous',
  },
  {
    ids: 'R39',
    name: 'the key of a login',
    statement: REKEY,
    ...KEY,
    operations: ['login', 'login'],
    situation: 'anonymous',
  },
  {
    ids: 'R27',
    name: 'that a touch only goes forward',
    statement: TOUCH,
    ...FORWARD,
    operations: ['touch', 'touch'],
    situation: 'signedIn',
  },
  {
    ids: 'B37',
    name: 'the second look of an expunge',
    statement: /^SELECT.*[`"]expiry[`"](?: \+ 0)? < (\?|\$\d+) OR/,
    guard: /AND \(([`"]expiry[`"])(?: \+ 0)? < (\?|\$\d+) OR/,
    instead: 'AND ($1 < $2 OR 1 = 1 OR',
    operations: ['expunge', 'touch'],
    situation: 'expiring',
  },
  {
    ids: 'B37',
    name: 'the second look of a wipe',
    statement: /^UPDATE.* SET [`"]session_data[`"] = NULL, [`"]session_version[`"].*[`"]expiry[`"](?: \+ 0)? </,
    guard: /([`"]expiry[`"])(?: \+ 0)? < (\?|\$\d+)/,
    instead: '($1 < $2 OR 1 = 1)',
    operations: ['wipe', 'touch'],
    situation: 'expiring',
  },
];

const NEEDS: Record<DatabaseName, readonly Need[]> = { mariadb: ['mysql'], postgres: ['postgres'], sqlite: [] };

/**
 * Runs operations side by side on one database, in every order of their statements. A file for each database, so that
 * they take turns.
 */
export function describeInterleavings(name: DatabaseName): void {
  describeWith(NEEDS[name], `Interleaving on ${name}`, () => {
    let database: OpenDatabase;
    let laboratory: Laboratory | undefined;
    /** One test at a time has the laboratory, even if one that took too long has not let go of it yet. */
    let last: Promise<unknown> = Promise.resolve();
    const done: Exploration[] = [];

    /** A failed order may leave a connection that is of no use any more. */
    const withLaboratory = <T>(work: (laboratory: Laboratory) => Promise<T>): Promise<T> => {
      const result = last.then(async () => {
        try {
          return await work((laboratory ??= await Laboratory.open(name, database)));
        } catch (error) {
          await laboratory?.close();
          laboratory = undefined;
          throw error;
        }
      });
      last = result.catch(() => {});
      return result;
    };
    beforeAll(async () => {
      database = await openDatabase(name);
      laboratory = await Laboratory.open(name, database);
    });
    afterAll(async () => {
      await laboratory?.close();
      await database?.drop();
      const whole = done.filter(({ isWhole }) => isWhole).length;
      console.log(
        `Interleaving on ${name}: ${done.reduce((sum, { orders }) => sum + orders, 0)} orders of ${done.length} ` +
          `scenes, ${whole} of them whole`,
      );
    });

    test('every pair of operations has a scene', () => {
      const names = Object.keys(operations) as OperationName[];
      const pairs = names.flatMap((one, index) => names.slice(index).map((other) => [one, other].sort().join()));
      const shown = new Set(scenes.map(({ operations: [...pair] }) => pair.sort().join()));
      expect(pairs.filter((pair) => !shown.has(pair))).toEqual([]);
    });

    for (const order of KNOWN_ORDERS.filter(({ database: on }) => on === name)) {
      test(`an order that failed earlier: ${JSON.stringify(order)}`, async ({ signal }) => {
        const course = await withLaboratory((open) => replay(open, order, signal));
        expect(course.steps.length).toBeGreaterThan(1);
      });
    }

    describe('holds in every order', () => {
      test.for(scenes)('$title', async (scene, { signal }) => {
        const exploration = await withLaboratory((open) =>
          explore(open, scene, { most: mostOrders(name, scene), seed: TODAY, everyRead: isSoak, signal }),
        );
        done.push(exploration);
        expect(exploration.orders).toBeGreaterThan(1);
      });
    });

    describe('the explorer detects a removed guard', () => {
      test.for(GUARDS)(
        '$ids: $name ($operations)',
        async ({ and, operations: names, situation, ...edit }, { signal }) => {
          const edits = and ? [edit, and] : [edit];
          const made = new Set<Edit>();
          const rewrite: Rewrite = (sql) => {
            let text = sql;
            for (const one of edits.filter(({ statement }) => statement.test(sql))) {
              const without = text.replace(one.guard, one.instead);
              if (without !== text) made.add(one);
              text = without;
            }
            return text;
          };
          const scene = { operations: names, situation };
          const failure = await withLaboratory((open) =>
            explore(open, scene, { most: MOST_TO_SHOW, rewrite, signal }),
          ).catch((error: unknown) => error);
          expect(failure).toBeInstanceOf(FailedOrder);
          expect(made.size, String(failure)).toBe(edits.length);
          expect((failure as FailedOrder).message).toMatch(/^[BR]\d/);
        },
      );
    });
  });
}
