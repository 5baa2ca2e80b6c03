import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';
import { PATIENCE } from '../support/patience.js';

const run = promisify(execFile);
const fixture = (name: string): string => fileURLToPath(new URL(`../support/fixtures/${name}`, import.meta.url));

describe('The process', () => {
  test('B39, R29: is not kept alive by schedules, timers or waiting updates', async () => {
    const { stdout } = await run(process.execPath, [fixture('idle.mjs')], { timeout: PATIENCE });
    expect(stdout).toBe('ready\n');
  });
});

describeDatabases('Time zones', (db) => {
  interface Shown {
    id: string;
    created: string;
    expiry: string;
    offset: number;
  }

  // Half an hour before clocks in Berlin go from 3:00 back to 2:00, and half an hour before they go from 2:00 to 3:00.
  const instants = [Date.UTC(2026, 9, 25, 0, 30), Date.UTC(2026, 2, 29, 0, 30)];
  /** What is to be added to local time then, in minutes. */
  const offsets: Record<string, readonly number[]> = {
    'Europe/Berlin': [-120, -60],
    'Pacific/Auckland': [-780, -780],
    'America/St_Johns': [150, 150],
    UTC: [0, 0],
  };

  test('R25, B22: no time zone of process, connection or database, and no change of it, moves an instant', async () => {
    const { options } = await db.open();
    const connections = db.name === 'mariadb' ? [{}, { timezone: '+09:30' }] : [{}];
    const places = Object.keys(offsets).flatMap((zone) => connections.map((connection) => ({ zone, connection })));
    const there = [{ zone: 'Europe/Berlin', connection: {} }, ...places];
    const given = [{ ...options, driver: undefined }, instants, there].map((argument) => JSON.stringify(argument));
    const { stdout } = await run(process.execPath, [fixture('daylight.mjs'), ...given], {
      env: { ...process.env, TZ: there[0]!.zone },
      timeout: PATIENCE,
    });
    const [made, ...seen] = JSON.parse(stdout) as Shown[][];
    expect(made!.map(({ expiry }) => expiry)).toEqual(instants.map((at) => new Date(at + 3_600_000).toISOString()));
    expect(seen).toHaveLength(places.length);
    for (const [index, { zone }] of places.entries()) {
      const expected = made!.map((visit, at) => ({ ...visit, offset: offsets[zone]![at] }));
      expect(seen[index], zone).toEqual(expected);
    }
  });
});
