import { inspect } from 'node:util';
import * as fc from 'fast-check';
import { anyHistory } from './commands.js';
import { Model } from './model.js';
import type { World } from './world.js';

/** Where a history is found again: they come with the report of its failure. */
export interface Place {
  readonly seed?: number | undefined;
  readonly path?: string | undefined;
  readonly replayPath?: string | undefined;
}

/** A history in which the library does what the model says it must not. */
export class FailedHistory extends Error {
  constructor(
    report: string,
    readonly place: Place,
    readonly steps: number,
  ) {
    super(report);
  }
}

/** Runs random histories until one fails, and makes that as short as it can. */
export async function findFailure(
  world: World,
  histories: number,
  { seed, path, replayPath }: Place = {},
): Promise<FailedHistory | null> {
  const property = fc.asyncProperty(anyHistory(replayPath), async (commands) => {
    const model = new Model(world.now);
    try {
      await fc.asyncModelRun(() => ({ model, real: world }), commands);
      await world.compare(model);
    } finally {
      await world.tidy();
    }
  });
  const details = await fc.check(property, {
    numRuns: histories,
    ...(seed !== undefined && { seed }),
    ...(path !== undefined && { path }),
  });
  if (!details.failed) return null;
  const [history] = details.counterexample ?? [];
  const steps = history ? [...history].filter((step) => (step as { hasRan?: boolean }).hasRan) : [];
  const place = {
    seed: details.seed,
    path: details.counterexamplePath ?? '',
    replayPath: /replayPath="([^"]*)"/.exec(fc.stringify(history))?.[1] ?? '',
  };
  const {
    message = 'failed',
    actual,
    expected,
  } = (details.errorInstance ?? {}) as { message?: string; actual?: unknown; expected?: unknown };
  return new FailedHistory(
    [
      message,
      ...(expected === undefined ? [] : [`  it is ${inspect(actual)}`, `  and should be ${inspect(expected)}`]),
      '',
      ...steps.map((step, index) => `${index + 1}. ${String(step)}`),
      '',
      `After ${details.numRuns} histories, made shorter ${details.numShrinks} times. To see it again:`,
      `  VISIT_TEST_SEED=${place.seed} VISIT_TEST_PATH='${place.path}' VISIT_TEST_REPLAY_PATH='${place.replayPath}'`,
    ].join('\n'),
    place,
    steps.length,
  );
}
