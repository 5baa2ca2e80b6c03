import { connect } from 'node:net';

/** Requests on their way at once, over as many connections as a browser has. */
const [CONNECTIONS, PIPELINED] = [6, 50];

export interface FloodReport {
  /** How many answers had each status. */
  readonly statuses: ReadonlyMap<number, number>;
  /** Whether any of them brought a cookie. */
  readonly hasCookie: boolean;
}

/** Sends so many requests to an application on this machine, as fast as it answers. */
export async function flood(
  address: string,
  count: number,
  requestOf: (index: number) => string,
): Promise<FloodReport> {
  const port = Number(new URL(address).port);
  const statuses = new Map<number, number>();
  let hasCookie = false;
  let sent = 0;
  const runConnection = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      let waiting = 0;
      let rest = '';
      const sendMore = (): void => {
        const requests: string[] = [];
        while (requests.length < PIPELINED && sent < count) requests.push(requestOf(sent++));
        waiting = requests.length;
        if (waiting === 0) socket.end();
        else socket.write(requests.join(''), 'latin1');
      };
      socket.on('connect', sendMore);
      socket.on('error', reject);
      socket.on('close', () => resolve());
      socket.on('data', (bytes) => {
        const text = rest + bytes.toString('latin1');
        const heads = [...text.matchAll(/HTTP\/1\.1 (\d{3})[^]*?\r\n\r\n/g)];
        for (const [head, status] of heads) {
          statuses.set(Number(status), (statuses.get(Number(status)) ?? 0) + 1);
          hasCookie ||= /^set-cookie:/im.test(head);
        }
        const last = heads.at(-1);
        rest = last ? text.slice(last.index + last[0].length) : text;
        waiting -= heads.length;
        if (waiting === 0) sendMore();
      });
    });
  await Promise.all(Array.from({ length: CONNECTIONS }, runConnection));
  return { statuses, hasCookie };
}

/** What belongs to the application's own parts, or to tests, is not ours. */
const FOREIGN = new Set([
  'DataSource',
  'ModulesContainer',
  'DiscoveryService',
  'Logger',
  'HttpAdapterHost',
  'ManualClock',
  'Alarm',
  'Timeout',
]);

/** How many entries all maps, sets and lists have that these objects hold, at whatever depth. */
export function entriesHeldBy(roots: readonly object[]): number {
  const seen = new Set<object>();
  const next: unknown[] = [...roots];
  let entries = 0;
  while (next.length > 0) {
    const value = next.pop();
    if (typeof value !== 'object' || value === null || seen.has(value) || FOREIGN.has(value.constructor?.name))
      continue;
    seen.add(value);
    if (value instanceof Map || value instanceof Set) {
      entries += value.size;
      next.push(...value.keys(), ...value.values());
    } else if (Array.isArray(value)) entries += value.length;
    next.push(...Object.values(value));
  }
  return entries;
}
