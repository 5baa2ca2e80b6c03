// How fast nest-visit is, compared with a bare application and with others. See options.mjs, or --help.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { installDependencies } from '../../sample/install.mjs';
import { temporaryFolder } from '../support/servers.mjs';
import { openDatabase } from './databases.mjs';
import { measureExpunge } from './expunge.mjs';
import { openLoad } from './load.mjs';
import { startSubject } from './measure.mjs';
import { measureMemory } from './memory.mjs';
import { HELP, readOptions } from './options.mjs';
import { findNodes } from './processes.mjs';
import { printReport, writeReport } from './report.mjs';
import { Results } from './results.mjs';
import { measureScale } from './scale.mjs';
import { measureInSlices } from './slices.mjs';
import { measuringsFor, slicesFor, subjectsFor } from './variants.mjs';

/** What a default run may spend on measuring; starts, warm-ups and checks come on top. */
const SECONDS_IN_ALL = 600;

const at = (path) => fileURLToPath(new URL(path, import.meta.url));

const interruption = new AbortController();
const { signal } = interruption;
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(name, () => {
    if (!signal.aborted) console.log(`\nStopping on ${name} …`);
    process.exitCode = 128 + constants.signals[name];
    interruption.abort(new Error(`interrupted by ${name}`));
  });
}
// A reader that left must not keep us from stopping the servers.
process.stdout.on('error', () => {});

async function main(options) {
  prepare();
  const began = Date.now();
  const nodes = findNodes(options.majors);
  const subjects = options.onlyExtras ? [] : subjectsFor({ ...options, nodes });
  const measurings = measuringsFor(subjects, options);
  const folder = temporaryFolder('bench');
  const toStop = [() => folder.remove()];
  try {
    const load = openLoad({ folder: folder.path, signal, wanted: options.load });
    toStop.unshift(() => load.close());
    const seconds = load.seconds(options.seconds ?? Math.min(3, SECONDS_IN_ALL / options.rounds / measurings.length));

    const databases = {};
    const extras = options.scale || options.expunge ? ['mariadb', 'postgres'] : options.memory ? ['mariadb'] : [];
    for (const kind of new Set([...subjects.map(({ variant }) => variant.database).filter(Boolean), ...extras])) {
      databases[kind] = await openDatabase(kind, folder.path);
      toStop.unshift(() => databases[kind].stop());
      signal.throwIfAborted();
    }

    const apps = new Map();
    toStop.unshift(() => Promise.all([...apps.values()].map((app) => app.stop())));
    for (const subject of subjects) {
      console.log(`starting ${subject.key}`);
      apps.set(subject, await start(subject, { databases, load, signal, mode: options.mode }));
    }

    const cpu = await measureCpu(apps, subjects, options);
    console.log(`${options.rounds} × ${measurings.length} measurings of ${seconds} s by ${load.name}`);
    const results = new Results();
    for (let round = 0; round < options.rounds; round++) {
      // Every other round backwards: no variant shall always come after the same one.
      for (const measuring of round % 2 === 0 ? measurings : measurings.toReversed()) {
        const sample = await sampleOf(apps.get(measuring.subject), measuring, seconds);
        results.add(measuring, round, sample);
        console.log(progress(round, measuring, sample));
      }
    }
    for (const app of apps.values()) {
      const { subject, warmUp, warmMemory } = app;
      const own = { subject, warmUp, memory: { warm: warmMemory, end: await app.memory().catch(() => undefined) } };
      results.addApp(own);
      cpu.addApp(own);
    }

    const { rounds, rows } = options;
    const means = { databases, load, node: nodes.at(-1), rounds, seconds, folder: folder.path, signal, toStop };
    const expunge = options.expunge ? await measureExpunge({ ...means, rows: rows ?? 1_000_000 }) : undefined;
    const scale = options.scale ? await measureScale({ ...means, rows: rows ?? 10_000_000 }) : undefined;
    const memory = options.memory ? await measureMemory({ ...means, rows: rows ?? 1_000_000 }) : undefined;

    // What it measures is built, and installed, by now.
    const codecs = options.codec ? (await import('./codec.mjs')).measureCodecs() : undefined;

    const facts = {
      options,
      cpu,
      nodes,
      seconds,
      load: load.name,
      databases,
      scale,
      expunge,
      memory,
      codecs,
      minutes: (Date.now() - began) / 60_000,
    };
    printReport(results, facts);
    if (options.write) writeReport(results, facts);
    if (results.ownTroubles()) {
      console.log('\nnest-visit had errors: see above');
      process.exitCode = 1;
    }
  } finally {
    for (const stop of toStop) await stop().catch((error) => console.error(error));
  }
}

/** What is compared: others as their lock file says, and the package as it was built last. */
function prepare() {
  if (!installDependencies(at('.'))) throw new Error('What is compared with could not be installed');
  if (existsSync(at('../../dist/esm/index.js'))) return;
  console.log('building the package');
  const { status } = spawnSync(process.execPath, [at('../../lib/build.mjs')], { stdio: 'inherit' });
  if (status !== 0) throw new Error('The package could not be built');
}

/** @returns {Promise<Results>} */
async function measureCpu(apps, subjects, options) {
  const results = new Results();
  for (const { name, measurings } of slicesFor(subjects, options)) {
    console.log(`CPU time of a request in µs, ${name}`);
    await measureInSlices(measurings, {
      appOf: ({ subject }) => apps.get(subject),
      ...options.slices,
      results,
      signal,
    });
    for (const { subject, route, connections } of measurings) {
      const samples = results.samples(subject, route, connections);
      console.log(
        `  ${subject.variant.id}: ${samples.map(({ cpu, error }) => error ?? cpu?.toFixed(1)).join(' ')}`.trimEnd(),
      );
    }
  }
  return results;
}

/** A variant that fails is marked, and keeps no other from being measured. */
async function start(subject, means) {
  try {
    return await startSubject(subject, means);
  } catch (error) {
    signal.throwIfAborted();
    console.error(error.message);
    return {
      subject,
      warmUp: {},
      measure: () => Promise.reject(error),
      open: () => Promise.reject(error),
      memory: async () => undefined,
      stop: async () => {},
    };
  }
}

async function sampleOf(app, measuring, seconds) {
  try {
    return await app.measure(measuring, seconds);
  } catch (error) {
    signal.throwIfAborted();
    return { error: error.message.split('\n')[0] };
  }
}

function progress(round, { subject, route, connections }, { rate, latency, error, refused, failed, lost, surplus }) {
  const troubles = Object.entries({ refused, failed, lost, surplus }).filter(([, count]) => count);
  const marks = troubles.map(([name, count]) => `, ${count} ${name}`).join('');
  return `${round + 1}  ${subject.key} ${route} ×${connections}  ${error ?? `${Math.round(rate)}/s, ${latency.toFixed(0)} µs${marks}`}`;
}

const options = readOptions(process.argv.slice(2));
if (options.help) {
  console.log(HELP);
} else {
  try {
    await main(options);
  } catch (error) {
    if (!signal.aborted) {
      console.error(error);
      process.exitCode = 1;
    }
  }
}
