import { execFile, fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll } from 'vitest';
import { PATIENCE } from './patience.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The file that starts the built command. */
export const main = join(root, 'dist/esm/cli/main.js');

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the built command in a separate process. */
export function program(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [main, ...args],
      { cwd: root, timeout: PATIENCE, env: { ...process.env, ...env } },
      (error, out, err) => {
        resolve({ code: error ? Number(error.code ?? -1) : 0, out, err });
      },
    );
  });
}

/**
 * For the tests of one file: one process runs all their commands, because starting one takes longer than most commands.
 */
export function useCommands() {
  let host: ChildProcess;
  let ended: Promise<unknown>;
  let last: Promise<unknown> = Promise.resolve();
  let folder: string;
  let files = 0;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nest-visit-cli-'));
    host = fork(fileURLToPath(new URL('fixtures/command-host.mjs', import.meta.url)), { cwd: root, execArgv: [] });
    ended = once(host, 'exit');
  });
  afterAll(async () => {
    host?.disconnect();
    await rm(folder, { recursive: true, force: true });
  });
  return {
    /** The folder of the files of these tests. */
    get folder(): string {
      return folder;
    },
    /** Runs the built command. */
    command: (...args: string[]): Promise<Outcome> => {
      const outcome = last.then(async () => {
        const answered = once(host, 'message');
        host.send(args);
        const [answer] = (await Promise.race([answered, ended])) as [Outcome];
        return answer;
      });
      last = outcome.catch(() => {});
      return outcome;
    },
    /** The path of a new file with this text. */
    file: async (text: string, extension = 'mjs'): Promise<string> => {
      const path = join(folder, `data-source-${++files}.${extension}`);
      await writeFile(path, text);
      return path;
    },
  };
}
