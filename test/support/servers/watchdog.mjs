// Ends what a killed test process leaves behind. Its parent tells it by lines on stdin: "+process <id>", "+folder
// <path>", and "-…" when one is gone again. When stdin ends, the parent has ended, and whatever is left then must not
// outlive it.
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const left = new Set();
for await (const line of createInterface({ input: process.stdin })) {
  if (line.startsWith('+')) left.add(line.slice(1));
  else left.delete(line.slice(1));
}

const of = (kind) =>
  [...left].filter((entry) => entry.startsWith(`${kind} `)).map((entry) => entry.slice(kind.length + 1));
const signal = (id, name) => {
  try {
    return process.kill(id, name);
  } catch {
    return false;
  }
};

// A negative id is a group of processes. SIGQUIT is an orderly stop to MariaDB and an immediate one to PostgreSQL,
// which after SIGKILL would leave a segment of shared memory.
const processes = of('process').map(Number);
for (const id of processes) signal(id, 'SIGQUIT');
const deadline = Date.now() + 10_000;
// They are not our children, so the system tells nobody here when they end: asking is all there is.
while (Date.now() < deadline && processes.some((id) => signal(id, 0))) await pause(50);
for (const id of processes) signal(id, 'SIGKILL');
for (const folder of of('folder')) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
