import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// What must not outlive this process.

export const isRoot = process.getuid?.() === 0;

let watchdog;

/**
 * Has `entry` ("process <id>" or "folder <path>") removed should this process end without `unwatch`, even by SIGKILL.
 */
export function watch(entry) {
  if (!watchdog) {
    // In a group of its own: Ctrl-C in a terminal must not reach it. It ends after this process: to start another one
    // for each folder would take longer than many tests.
    watchdog = spawn(process.execPath, [fileURLToPath(new URL('watchdog.mjs', import.meta.url))], {
      stdio: ['pipe', 'ignore', 'inherit'],
      detached: true,
    });
    watchdog.stdin.on('error', () => {});
    watchdog.unref();
    watchdog.stdin.unref?.();
  }
  watchdog.stdin.write(`+${entry}\n`);
}

/** Says that `entry` is gone. */
export function unwatch(entry) {
  watchdog?.stdin.write(`-${entry}\n`);
}

/** A fresh folder in the system's folder for such, removed with this process at the latest. */
export function temporaryFolder(name) {
  const path = mkdtempSync(join(tmpdir(), `nest-visit-${name}-`));
  // PostgreSQL runs as another user than root and must get through to its folder.
  if (isRoot) chmodSync(path, 0o711);
  const entry = `folder ${path}`;
  watch(entry);
  return {
    path,
    async remove() {
      rmSync(path, { recursive: true, force: true, maxRetries: 5 });
      unwatch(entry);
    },
  };
}
