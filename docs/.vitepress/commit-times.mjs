// When the pages were last changed, from one run of git: VitePress runs git once more for each page that it does not
// know, such as those of the API reference.
import { spawnSync } from 'node:child_process';
import { docs } from './repository.mjs';

/** The time of the last commit of each page, in milliseconds, by its path in `docs`; empty without git. */
export function commitTimes() {
  const args = ['log', '--format=/%at', '--name-only', '--relative', '--', '*.md'];
  const { stdout } = spawnSync('git', args, { cwd: docs, encoding: 'utf8', maxBuffer: Infinity });
  const times = new Map();
  let time = 0;
  for (const line of (stdout ?? '').split('\n')) {
    if (line.startsWith('/')) time = Number(line.slice(1)) * 1000;
    else if (line && !times.has(line)) times.set(line, time);
  }
  return times;
}
