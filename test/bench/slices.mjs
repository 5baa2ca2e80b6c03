// CPU time of a request. The applications that are compared take turns of a fraction of a second, each many times, so
// that whatever else runs on the machine meets them alike; and none of them is idle for long, because the system may
// take its memory then.
import { setTimeout as pause } from 'node:timers/promises';

const SLICE = 0.2;

/**
 * @param {object[]} measurings of one route on one platform
 * @param {{ appOf: (measuring: object) => object, rounds: number, seconds: number, warmUp: { requests: number, seconds:
 *   number }, results: import('./results.mjs').Results, signal: AbortSignal }} options `seconds` of load that each
 *   application gets in a round. What comes before is not counted: for the compiler of V8, and for memory that is to be
 *   had again. It ends with either.
 */
export async function measureInSlices(measurings, { appOf, rounds, seconds, warmUp, results, signal }) {
  const loads = [];
  try {
    for (const measuring of measurings) loads.push({ measuring, load: await appOf(measuring).open(measuring) });
    await warm(loads, warmUp, signal);
    for (let round = 0; round < rounds; round++) {
      const before = await usages(loads);
      await inTurn(loads, Math.ceil(seconds / SLICE), signal);
      const after = await usages(loads);
      for (const [index, { measuring }] of loads.entries()) {
        const cpu = (after[index].cpu - before[index].cpu) / (after[index].requests - before[index].requests);
        results.add(measuring, round, { cpu });
      }
    }
  } finally {
    const ends = await Promise.allSettled(loads.map(({ load }) => load.end()));
    for (const [index, { status, value, reason }] of ends.entries()) {
      const { measuring } = loads[index];
      results.add(measuring, rounds, status === 'fulfilled' ? value : { error: reason.message.split('\n')[0] });
    }
  }
}

/** Those that are warm go on with the others: an application closes connections that have been idle for seconds. */
async function warm(loads, limits, signal) {
  const start = await usages(loads);
  for (let turn = 0; turn < limits.seconds / SLICE; turn++) {
    await inTurn(loads, 1, signal);
    const now = await usages(loads);
    if (now.every(({ requests }, index) => requests - start[index].requests >= limits.requests)) return;
  }
}

async function inTurn(loads, times, signal) {
  for (let turn = 0; turn < times; turn++) {
    // Every other time backwards: none shall always come after the same one.
    for (const { load } of turn % 2 === 0 ? loads : loads.toReversed()) {
      signal.throwIfAborted();
      await load.slice(SLICE);
    }
  }
}

/** When all have answered what they had been asked. */
async function usages(loads) {
  await pause(100);
  return Promise.all(loads.map(({ load }) => load.usage()));
}
