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
  }

  test('R25, B22: no time zone of process, connection or database moves an instant, over a daylight-saving change either', async () => {
    const { options } = await db.open();
    const show = async (
      zone: string,
      moments: readonly { at: number; id?: string }[],
      more: object = {},
    ): Promise<Shown[]> => {
      const { stdout } = await run(
        process.execPath,
        [fixture('daylight.mjs'), JSON.stringify({ ...options, driver: undefined, ...more }), JSON.stringify(moments)],
        { env: { ...process.env, TZ: zone }, timeout: PATIENCE },
      );
      return JSON.parse(stdout) as Shown[];
    };
    // Half an hour before clocks in Berlin go from 3:00 back to 2:00, and half an hour before they go from 2:00 to
    // 3:00.
    const instants = [Date.UTC(2026, 9, 25, 0, 30), Date.UTC(2026, 2, 29, 0, 30)].map((at) => ({ at }));
    const made = await show('Europe/Berlin', instants);
    expect(made.map(({ expiry }) => expiry)).toEqual(instants.map(({ at }) => new Date(at + 3_600_000).toISOString()));

    const expected = made.map(({ id, created, expiry }) => expect.objectContaining({ id, created, expiry }) as Shown);
    const moments = instants.map(({ at }, index) => ({ at, id: made[index]!.id }));
    for (const zone of ['Europe/Berlin', 'Pacific/Auckland', 'America/St_Johns', 'UTC']) {
      for (const connection of db.name === 'mariadb' ? [{}, { timezone: '+09:30' }] : [{}])
        expect(await show(zone, moments, connection)).toEqual(expected);
    }
  });
});
