// `npm run matrix`: see --help.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { installDependencies, requireNode } from '../../sample/install.mjs';
import { temporaryFolder } from '../support/servers.mjs';
import { tryRow } from './application.mjs';
import { pack } from './pack.mjs';
import { nameOf, rows, rowsWith } from './rows.mjs';
import { writeTable } from './table.mjs';
import { stopAll } from './tools.mjs';

const HELP = `npm run matrix [-- options]

Packs the package, and tries it in ${rows.length} small applications: versions of Nest, TypeORM and Node, Bun, Express and
Fastify, both module formats, Jest and vitest, bundles by esbuild and webpack, npm, pnpm, and Yarn's Plug'n'Play. Each
pair of these occurs in some application, which is installed, compiled, started, visited over HTTP, and tested by its
own test.

Each application takes about a minute. Rows that have worked with the same package before are skipped, so an interrupted
run continues where it was. When every row has been tried, the table in docs/compatibility.md is written.

  --only WORDS   only the rows whose names have all of these words: --only "nest 12,bun"; may be repeated
  --again        try rows even if they have worked before
  --jobs N       the number of applications at a time (1)
  --keep         keep the folders of the applications, and print their paths
  --list         only print the names of the rows
  --help

Needs npm and access to a registry; nothing is installed outside of temporary folders and npm's own cache. Each version
of Node and Bun is installed from npm. Results are stored in artifacts/matrix.json. The exit code is 0 if no row failed.`;

const root = fileURLToPath(new URL('../..', import.meta.url));
const RESULTS = join(root, 'artifacts/matrix.json');

/** What was found of this package before. */
function resultsFor(digest) {
  const kept = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : undefined;
  return kept?.digest === digest ? kept.results : {};
}

function keep(digest, results) {
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify({ digest, results }, undefined, 2)}\n`);
}

async function main({ only = [], again, jobs, keep: keepsFolders }) {
  const filters = only.length > 0 ? only : [''];
  const chosen = rows.filter((row) =>
    filters.some((words) => rowsWith(words.split(',').map((w) => w.trim())).includes(row)),
  );
  if (chosen.length === 0) throw new Error(`no row has all of ${only.join(' or ')}: see --list`);
  if (!installDependencies(root)) throw new Error('the dependencies could not be installed');

  const folder = keepsFolders
    ? { path: mkdtempSync(join(tmpdir(), 'nest-visit-matrix-')), remove: () => {} }
    : temporaryFolder('matrix');
  const interruption = {};
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => {
      interruption.by ??= signal;
      stopAll();
    });
  try {
    const { tarball, digest } = await pack(folder.path, { build: true });
    const results = resultsFor(digest);
    const due = chosen.filter((row) => again || results[nameOf(row)]?.outcome !== 'works');
    if (due.length < chosen.length) console.log(`${chosen.length - due.length} of ${chosen.length} have worked before`);
    let next = 0;
    const work = async () => {
      while (next < due.length && !interruption.by) {
        const number = next++;
        const row = due[number];
        const place = join(folder.path, `app-${rows.indexOf(row)}`);
        const began = Date.now();
        const steps = [];
        const result = await tryRow(row, { place, folder: folder.path, tarball, onStep: (step) => steps.push(step) });
        if (interruption.by) return;
        results[nameOf(row)] = result;
        keep(digest, results);
        const { outcome, reason } = result;
        const seconds = Math.round((Date.now() - began) / 1000);
        console.log(
          `[${number + 1}/${due.length}] ${nameOf(row)}: ${outcome}${reason ? ` at ${steps.at(-1)}` : ''} (${seconds} s)`,
        );
        if (reason) console.log(reason.replaceAll(/^/gm, '    '));
        if (keepsFolders) console.log(`    ${place}`);
        else await Promise.all([place, `${place}-bundle`].map((path) => rm(path, { recursive: true, force: true })));
      }
    };
    await Promise.all(Array.from({ length: Math.min(jobs, due.length) }, work));
    if (interruption.by) {
      process.exitCode = 128 + constants.signals[interruption.by];
      return;
    }
    const outcomes = chosen.map((row) => results[nameOf(row)].outcome);
    const count = (outcome) => outcomes.filter((one) => one === outcome).length;
    if (rows.every((row) => results[nameOf(row)])) console.log(`Wrote ${writeTable(results)}`);
    else console.log('The table in docs/compatibility.md is left as it is, until every row has been tried.');
    console.log(`${count('works')} passed, ${count('fails')} failed, ${count('not run')} not run`);
    process.exitCode = count('fails') > 0 ? 1 : 0;
  } finally {
    await folder.remove();
  }
}

requireNode();
const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    again: { type: 'boolean' },
    jobs: { type: 'string', default: '1' },
    keep: { type: 'boolean' },
    list: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  },
});
if (values.help) console.log(HELP);
else if (values.list) console.log(rows.map(nameOf).join('\n'));
else await main({ ...values, jobs: Number(values.jobs) || 1 });
