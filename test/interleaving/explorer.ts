import { FailedOrder, type Laboratory, type Order, type Rewrite, type Scene } from './lab.js';
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
  /** Runs orders too that differ only in which of two neighbouring reads comes first. */
  readonly everyRead?: boolean;
  readonly rewrite?: Rewrite;
  /** Ends the exploration: nobody waits for it any more. */
  readonly signal: AbortSignal;
}

/** Runs all orders of a scene, or a random choice of them, the same every time. @throws FailedOrder */
export async function explore(
  laboratory: Laboratory,
  scene: Scene,
  { most, everyRead = false, rewrite, signal }: ExplorerOptions,
): Promise<Exploration> {
  const run = async (schedule: readonly number[], choose: (choices: readonly number[]) => number): Promise<Course> => {
    return laboratory.run(scene, { schedule, choose, skipReads: !everyRead, rewrite, signal });
  };
  const first = (choices: readonly number[]): number => choices[0]!;

  // How many there are is guessed from some picked at random: by the choices that each of them had (Knuth).
  const random = randomFrom(scene.operations.length);
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
export async function replay(laboratory: Laboratory, { schedule, operations, situation }: Order, signal: AbortSignal): Promise<Course> {
  return laboratory.run({ operations, situation }, { schedule, choose: (choices) => choices[0]!, skipReads: false, signal });
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
