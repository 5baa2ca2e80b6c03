import type { Laboratory, Order, Rewrite, Scene } from './lab.js';
import type { Course } from './order.js';

export interface Exploration {
  /** Orders that were run. */
  readonly orders: number;
  /** Whether these were all there are. */
  readonly isWhole: boolean;
  /** Orders in which a login that was committed after "end all" outlived it. */
  readonly survivors: number;
}

export interface ExplorerOptions {
  /** Where there are more orders than this, so many are picked at random. */
  readonly most: number;
  /** Runs orders too that differ only in which of two neighbouring reads comes first. */
  readonly everyRead?: boolean;
  readonly rewrite?: Rewrite;
}

/** Runs all orders of a scene, or a random choice of them, the same every time. @throws FailedOrder */
export async function explore(laboratory: Laboratory, scene: Scene, { most, everyRead = false, rewrite }: ExplorerOptions): Promise<Exploration> {
  let orders = 0;
  let survivors = 0;
  const run = async (schedule: readonly number[], choose: (choices: readonly number[]) => number): Promise<Course> => {
    const { course, survived } = await laboratory.run(scene, { schedule, choose, skipReads: !everyRead, rewrite });
    orders++;
    if (survived) survivors++;
    return course;
  };
  const first = (choices: readonly number[]): number => choices[0]!;

  const straight = await run([], first);
  if (estimate(straight, scene) > most) {
    const random = randomFrom(most);
    const seen = new Set<string>();
    for (let tries = 1; tries < most; tries++) {
      const { crossings } = await run([], (choices) => choices[Math.floor(random() * choices.length)]!);
      seen.add(crossings.map(({ chosen }) => chosen).join());
    }
    return { orders: seen.size + 1, isWhole: false, survivors };
  }
  const waiting = branches(straight, 0);
  for (let schedule = waiting.pop(); schedule; schedule = waiting.pop()) waiting.push(...branches(await run(schedule, first), schedule.length));
  return { orders, isWhole: true, survivors };
}

/** Runs one order again. @throws FailedOrder */
export async function replay(laboratory: Laboratory, { schedule, ...scene }: Order): Promise<void> {
  await laboratory.run(scene, { schedule, choose: (choices) => choices[0]!, skipReads: false });
}

/** The orders that leave a known one at some crossing after its first `from`. */
function branches({ crossings }: Course, from: number): number[][] {
  const all: number[][] = [];
  for (let place = from; place < crossings.length; place++) {
    const { choices, chosen } = crossings[place]!;
    const before = crossings.slice(0, place).map((crossing) => crossing.chosen);
    for (const other of choices) if (other !== chosen) all.push([...before, other]);
  }
  return all;
}

/** In how many ways the steps of a course could be shuffled. */
function estimate({ steps }: Course, { operations }: Scene): number {
  let ways = 1;
  let total = 0;
  operations.forEach((_, slot) => {
    const own = steps.filter(({ actor }) => actor === slot).length;
    for (let step = 1; step <= own; step++) ways = (ways * ++total) / step;
  });
  return ways;
}

/** Numbers between 0 and 1, the same for the same seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
