// Whether the memory of the process grows with the visits that it has seen: minutes of load, each with other visits.
import { openTable } from './scale.mjs';

const MINUTES = 10;
/** The least that still counts as growth, as a factor. */
const AIM = 1.1;

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/**
 * @param {{ databases: Record<string, import('./databases.mjs').Database>, load: object, node: object, rows: number,
 *   minutes?: number, signal: AbortSignal, toStop: (() => Promise<void>)[] }} options
 * @returns {Promise<{ name: string, rows: number, requests: number, troubles: number, resident: number[], growth:
 *   number, aim: number }[]>} `resident` is the resident set in bytes after each minute, `growth` the last three of
 *   them as a share of the second to the fourth
 */
export async function measureMemory({ databases, load, rows: wished, minutes = MINUTES, ...rest }) {
  const database = databases.mariadb;
  console.log(`filling a table of ${database.title}`);
  const { rows, targetOfAll, memory } = await openTable(database, 'mariadb', wished, rest);
  const resident = [];
  let requests = 0;
  let troubles = 0;
  for (let minute = 0; minute < minutes; minute++) {
    const [first, last] = [minute, minute + 1].map((part) => 1 + Math.floor((part * rows) / minutes));
    const { ok, refused, failed } = await load.during(targetOfAll(first, last), 60);
    requests += ok;
    troubles += refused + failed;
    resident.push(await memory());
    console.log(
      `minute ${minute + 1}: ${ok.toLocaleString('en')} requests, ${(resident.at(-1) / 2 ** 20).toFixed(0)} MB`,
    );
  }
  const growth = median(resident.slice(-3)) / median(resident.slice(1, 4));
  return [{ name: database.title, rows, requests, troubles, resident, growth, aim: AIM }];
}
