import { FailedOrder, type Laboratory, type Order, type Rewrite, type RunOptions, type Scene } from './lab.js';
import { OffCourse, type Course } from './order.js';

export interface Exploration {
  /** Orders that were run. */
  readonly orders: number;
  /** Whether these were all there are. */
  readonly isWhole: boolean;
}

const PROBES = 8;

export interface ExplorerOptions {
  /** Where there are more orders than this, so many are picked at random. */
  readonly most: number;
  /** Of the random choice. */
  readonly seed?: number;
  /** Runs orders too that differ only in which of two neighboring reads comes first. */
  readonly everyRead?: boolean;
  readonly rewrite?: Rewrite;
  /** Another scene that must come to the same in each order. */
  readonly twin?: Scene | undefined;
  /** Ends the exploration: nobody waits for it any more. */
  readonly signal: AbortSignal;
}

/** Runs all orders of a scene, or a random choice of them, the same for the same seed. @throws FailedOrder */
export async function explore(
  laboratory: Laboratory,
  scene: Scene,
  { most, seed = scene.operations.length, everyRead = false, rewrite, twin, signal }: ExplorerOptions,
): Promise<Exploration> {
  const run = async (schedule: readonly number[], choose: (choices: readonly number[]) => number): Promise<Course> => {
    const options = { schedule, choose, skipReads: !everyRead, rewrite, signal };
    return twin ? runBoth(laboratory, { ...scene, twin }, options) : laboratory.run(scene, options);
  };
  const first = (choices: readonly number[]): number => choices[0]!;

  // How many there are is guessed from some picked at random: by the choices that each of them had (Knuth).
  const random = randomFrom(seed);
  const seen = new Set<string>();
  const pick = async (): Promise<number> => {
    const { crossings } = await run([], (choices) => choices[Math.floor(random() * choices.length)]!);
    seen.add(crossings.map(({ chosen }) => chosen).join());
    return crossings.reduce((product, { choices }) => product * choices.length, 1);
  };
  let guess = 0;
  for (let probe = 0; probe < PROBES; probe++) guess += (await pick()) / PROBES;

  if (guess <= most) {
    let orders = 0;
    const waiting: (readonly number[])[] = [[]];
    while (waiting.length > 0 && orders < 2 * most) {
      const schedule = waiting.pop()!;
      const course = await run(schedule, first).catch((error: unknown) => {
        if (error instanceof FailedOrder && error.cause instanceof OffCourse) return null;
        throw error;
      });
      if (!course) continue;
      waiting.push(...branches(course, schedule.length));
      orders++;
    }
    return { orders, isWhole: waiting.length === 0 };
  }
  for (let tries = 0; tries < 2 * most && seen.size < most; tries++) await pick();
  return { orders: seen.size, isWhole: false };
}

/** Runs one order again. @throws FailedOrder */
export async function replay(
  laboratory: Laboratory,
  { schedule, operations, situation }: Order,
  signal: AbortSignal,
): Promise<Course> {
  return laboratory.run(
    { operations, situation },
    { schedule, choose: (choices) => choices[0]!, skipReads: false, signal },
  );
}

/** A scene, and another one that must come to the same in each order. */
export type TwinScene = Scene & { readonly twin: Scene };

/** Runs one order of a scene, and of its twin. @throws FailedOrder */
export async function runBoth(
  laboratory: Laboratory,
  { twin, ...scene }: TwinScene,
  options: RunOptions,
): Promise<Course> {
  const course = await laboratory.run(scene, options);
  const schedule = course.crossings.map(({ chosen }) => chosen);
  const other = await laboratory.run(twin, { ...options, schedule }).catch((error: unknown) => {
    if (error instanceof FailedOrder && error.cause instanceof OffCourse) return null;
    throw error;
  });
  if (other === null) return course;
  // What nobody waits for gives nothing.
  const without = scene.operations.some((name) => name.startsWith('answered first')) ? (['value'] as const) : [];
  const [digest, expected] = [course.digest(without), other.digest(without)];
  if (digest === expected) return course;
  throw new FailedOrder(
    [
      `R51: (${scene.operations.join(') beside (')}) came to something else than ` +
        `(${twin.operations.join(') beside (')})`,
      `in the order ${schedule.join()}:`,
      digest,
      'and not:',
      expected,
    ].join('\n'),
  );
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
