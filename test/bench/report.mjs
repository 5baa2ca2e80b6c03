// What was measured, as tables: printed, and written to docs/.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { judge, needsNewerNode } from './aims.mjs';
import { barChart } from './chart.mjs';
import { COUNTED_BY } from './databases.mjs';
import { spreadOf } from './results.mjs';

/**
 * @typedef {{ title: string, text?: string[], head?: string[], rows?: string[][] }} Section a table, and what is to be
 *   said about it
 * @typedef {import('./results.mjs').Results} Results
 */

const ROUTES = ['static', 'read', 'write'];
const PLATFORMS = { express: 'Express', fastify: 'Fastify' };
const NONE = '–';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));

// ---- Numbers as text

const digits = (value) => (value >= 9.95 ? value.toFixed(0) : value >= 0.0995 ? value.toFixed(2) : value.toFixed(3));

/** "0.85 (0.81–0.90)", the median of the rounds and their extremes. */
function ratio(spread) {
  if (!spread) return NONE;
  const { median, min, max } = spread;
  return min === max ? digits(median) : `${digits(median)} (${digits(min)}–${digits(max)})`;
}

/** "55.2 (54.8–56.1)" microseconds. */
function micros(spread) {
  if (!spread) return NONE;
  const [median, min, max] = [spread.median, spread.min, spread.max].map((value) =>
    value.toFixed(value < 99.95 ? 1 : 0),
  );
  return min === max ? median : `${median} (${min}–${max})`;
}

const whole = (spread) => (spread ? Math.round(spread.median).toLocaleString('en') : NONE);
const megabytes = (bytes) => (bytes === undefined ? NONE : (bytes / 2 ** 20).toFixed(0));

// ---- Sections

/** Each platform on each Node, which is what ratios are made within. */
function groupsOf(results) {
  const groups = new Map();
  for (const app of results.apps) {
    const { platform, node } = app.subject;
    const name = `${PLATFORMS[platform]}, Node ${node.version.slice(1)}`;
    const group = groups.get(name) ?? { name, apps: [], subjects: [] };
    group.apps.push(app);
    group.subjects.push(app.subject);
    groups.set(name, group);
  }
  return [...groups.values()];
}

const measured = (results, subjects, connections) =>
  ROUTES.filter((route) => subjects.some((subject) => results.samples(subject, route, connections).length > 0));

/** @returns {Section} */
function shareSection(results, { name, apps, subjects }) {
  const routes = measured(results, subjects, 64);
  return {
    title: `${name}: requests per second as a share of the bare application`,
    head: ['64 connections', ...routes, ...routes.map((route) => `SQL/1,000 ${route}`), 'memory, MB', 'errors'],
    rows: apps.filter(({ subject }) => !subject.variant.otherStore).map((app) => rowOf(results, app, 'bare', routes)),
  };
}

/** @returns {Section} */
function cpuSection(results, { name, apps, subjects }) {
  const routes = measured(results, subjects, 64);
  const cpu = (sample) => sample.cpu;
  return {
    title: `${name}: CPU time of a request, in µs`,
    text: [
      'Of all threads of the application under 64 connections; in the right half as a multiple of the bare ' +
        'application.',
    ],
    head: ['', ...routes, ...routes.map((route) => `${route} ÷ bare`), 'errors'],
    rows: apps
      .filter(({ subject }) => !subject.variant.otherStore && measured(results, [subject], 64).length > 0)
      .map(({ subject }) => [
        subject.variant.title,
        ...routes.map((route) => micros(results.spread(subject, route, 64, cpu))),
        ...routes.map((route) => ratio(results.ratio(subject, results.sibling(subject, 'bare'), route, 64, cpu))),
        troubles(results.samplesOf(subject)),
      ]),
  };
}

/** @returns {Section} */
function storeCpuSection(results, { name, apps, subjects }) {
  const routes = measured(results, subjects, 64);
  const cpu = (sample) => sample.cpu;
  return {
    title: `${name}: CPU time of a request with each store, in µs, and as a multiple of MariaDB by TypeORM`,
    head: ['64 connections', ...routes, ...routes.map((route) => `${route} ÷ MariaDB`), 'errors'],
    rows: apps.map(({ subject, warmUp }) => [
      subject.variant.title,
      ...routes.map((route) => micros(results.spread(subject, route, 64, cpu))),
      ...routes.map((route) =>
        ratio(results.ratio(subject, results.sibling(subject, 'visit-mariadb'), route, 64, cpu)),
      ),
      troubles([...results.samplesOf(subject), subject.variant.counts ? warmUp : { ...warmUp, lost: 0 }]),
    ]),
  };
}

/** @returns {Section} */
function storeSection(results, { name, apps, subjects }) {
  const own = apps.filter(({ subject }) => subject.variant.app === 'nest-visit');
  const routes = measured(
    results,
    subjects.filter(({ variant }) => variant.otherStore),
    64,
  );
  return {
    title: `${name}: requests per second with other stores, MariaDB by TypeORM = 1`,
    head: ['64 connections', ...routes, ...routes.map((route) => `SQL/1,000 ${route}`), 'memory, MB', 'errors'],
    rows: routes.length > 0 ? own.map((app) => rowOf(results, app, 'visit-mariadb', routes)) : [],
  };
}

function rowOf(results, { subject, memory, warmUp }, unit, routes) {
  return [
    subject.variant.title,
    ...routes.map((route) => ratio(results.ratio(subject, results.sibling(subject, unit), route))),
    ...routes.map((route) => whole(results.spread(subject, route, 64, ({ statements }) => statements))),
    `${megabytes(memory.warm)} → ${megabytes(memory.end)}`,
    troubles([...results.samplesOf(subject), subject.variant.counts ? warmUp : { ...warmUp, lost: 0 }]),
  ];
}

/** Never an empty cell where something went wrong. */
function troubles(samples) {
  const sum = (name) => samples.reduce((total, sample) => total + (sample[name] ?? 0), 0);
  const broken = samples.filter(({ error }) => error).length;
  const found = [
    sum('refused') && `${sum('refused')} not 2xx`,
    sum('failed') && `${sum('failed')} unanswered`,
    sum('lost') && `${sum('lost')} writes lost`,
    sum('surplus') && `${sum('surplus')} writes too many`,
    broken && `${broken} measurings failed`,
  ].filter(Boolean);
  return found.length > 0 ? `**${found.join(', ')}**` : 'none';
}

/** @returns {Section} */
function peerSection(results, { name, subjects }) {
  const routes = measured(results, subjects, 64);
  const own = subjects.filter(({ variant }) => ['visit-mariadb', 'visit-postgres'].includes(variant.id));
  const peers = subjects.filter(({ variant }) => variant.app !== 'nest-visit' && variant.id !== 'bare');
  return {
    title: `${name}: how many times as fast nest-visit is`,
    head: ['as …', ...own.flatMap(({ variant }) => routes.map((route) => `${route}, ${short(variant)}`))],
    rows: peers.map((peer) => [
      peer.variant.title,
      ...own.flatMap((subject) => routes.map((route) => ratio(results.ratio(subject, peer, route)))),
    ]),
  };
}

const short = ({ title }) => /\((.*)\)/.exec(title)[1];

/** @returns {Section} */
function latencySection(results, { name, subjects }) {
  const latency = (sample) => sample.latency / 1000;
  const one = (subject) => results.sibling(subject, `one-${subject.variant.database}`);
  return {
    title: `${name}: latency of one connection`,
    head: ['', '`read`, ms', '÷ one statement per need'],
    rows: subjects
      .filter((subject) => measured(results, [subject], 1).length > 0)
      .map((subject) => [
        subject.variant.title,
        ratio(results.spread(subject, 'read', 1, latency)),
        ratio(results.ratio(subject, one(subject), 'read', 1, latency)),
      ]),
  };
}

/** @returns {Section} */
function crowdSection(results, { name, subjects }) {
  const routes = measured(results, subjects, 512);
  return {
    title: `${name}: requests per second with 512 connections`,
    text: ['As a share of the bare application. Many requests meet in the same session.'],
    head: ['', ...routes],
    rows: subjects
      .filter((subject) => measured(results, [subject], 512).length > 0)
      .map((subject) => [
        subject.variant.title,
        ...routes.map((route) => ratio(results.ratio(subject, results.sibling(subject, 'bare'), route, 512))),
      ]),
  };
}

/** @returns {Section} */
function contestSection(results) {
  return {
    title: 'Concurrent writes to the same session',
    text: [
      '64 connections increment counters in 20 sessions. The table shows how many acknowledged increments are missing afterwards.',
    ],
    head: ['', 'answered', 'lost'],
    rows: results.apps
      .filter(({ warmUp }) => warmUp.lost !== undefined)
      .map(({ subject, warmUp: { answered, lost } }) => [
        `${subject.variant.title}, ${PLATFORMS[subject.platform]}, Node ${subject.node.major}`,
        String(answered),
        String(lost),
      ]),
  };
}

/** @returns {Section} */
function scaleSection(scale) {
  return {
    title: 'A large table',
    text: [
      '`read` with 64 connections under Fastify. Active are the visits that are read, in turn; they are spread ' +
        'over the whole table, and with many of them the pages of a large one do not fit into the cache that MariaDB ' +
        'has by default.',
    ],
    head: ['', 'rows', 'active', '÷ with 10,000 rows', 'aim', ''],
    rows: scale.map(({ name, rows, active, ratios, troubles: count, aim }) => {
      const spread = spreadOf(ratios);
      const judged =
        rows < aim.rows ? 'too few rows to tell' : verdict(spread.median >= aim.share, 1 - spread.median / aim.share);
      const trouble = count > 0 ? `, **${count} not answered with 2xx**` : '';
      return [
        name,
        rows.toLocaleString('en'),
        active.toLocaleString('en'),
        ratio(spread),
        `≥ ${aim.share}`,
        judged + trouble,
      ];
    }),
  };
}

const ms = (value) => value.toFixed(value < 10 ? 1 : 0);

/** @returns {Section} */
function codecSection(codecs) {
  const json = (shape) => codecs.find((one) => one.shape === shape && one.codec === 'JSON');
  const beside = (value, other) => `${(value / 1000).toFixed(1)} µs, ×${digits(value / other)}`;
  return {
    title: 'Turning sessions into bytes and back',
    text: ['Medians of nine rounds, and as a multiple of JSON, which turns a Date into text.'],
    head: ['', 'session', 'bytes', 'encode', 'decode', 'a Date stays one'],
    rows: codecs.map(({ shape, codec, keeps, bytes, encode, decode }) => [
      codec,
      shape,
      bytes.toLocaleString('en'),
      beside(encode, json(shape).encode),
      beside(decode, json(shape).decode),
      keeps ? 'yes' : 'no',
    ]),
  };
}

/** @returns {Section} */
function memorySection(memory) {
  return {
    title: 'Memory, with ever other visits',
    text: [
      '`read` with 64 connections under Fastify, each minute of other visits. The resident set of the process ' +
        'after each minute.',
    ],
    head: ['', 'visits', 'requests', 'MB after each minute', 'last three ÷ second to fourth', 'aim', 'errors'],
    rows: memory.map(({ name, rows, requests, troubles: count, resident, growth, aim }) => [
      name,
      rows.toLocaleString('en'),
      requests.toLocaleString('en'),
      resident.map(megabytes).join(' '),
      digits(growth),
      `≤ ${aim}: ${verdict(growth <= aim, growth / aim - 1)}`,
      count > 0 ? `**${count} not answered with 2xx**` : 'none',
    ]),
  };
}

/** @returns {Section} */
function expungeSection(expunge) {
  return {
    title: 'Expunging while others read and write',
    text: [
      'Three processes run `nest-visit expunge` at once, while 48 connections read and 16 write under Fastify, as ' +
        'fast as they are answered. The p99 is that of requests, the median of several loads.',
    ],
    head: [
      '',
      'visits',
      'per second',
      'aim',
      'p99 of `read`, ms',
      'p99 of `write`, ms',
      'aim',
      'requests/s ÷ quiet',
      'deadlocks',
      'errors',
    ],
    rows: expunge.map(({ name, rows, wanted, perSecond, p99, rate, deadlocks, lost, failed, aim }) => {
      const slower = ({ quiet, busy, ratio: factor }) => `${ms(quiet)} → ${ms(busy)}, ×${digits(factor)}`;
      const isMet = Math.max(p99.read.ratio, p99.write.ratio) <= aim.p99;
      const errors = [
        rows !== wanted && `${wanted - rows} left`,
        lost && `${lost} writes lost`,
        failed && `${failed} not answered with 2xx`,
      ].filter(Boolean);
      return [
        name,
        rows.toLocaleString('en'),
        Math.round(perSecond).toLocaleString('en'),
        `≥ ${aim.rows.toLocaleString('en')}: ${verdict(perSecond >= aim.rows, 1 - perSecond / aim.rows)}`,
        slower(p99.read),
        slower(p99.write),
        `≤ ×${aim.p99}: ${isMet ? 'met' : 'missed'}`,
        digits(rate),
        String(deadlocks),
        errors.length > 0 ? `**${errors.join(', ')}**` : 'none',
      ];
    }),
  };
}

/** @returns {Section} */
function aimSection({ results, cpu }, options) {
  return {
    title: 'Aims',
    text: needsNewerNode(results) ? ['Most aims are for Node 24, which `--node 24` measures with.'] : [],
    head: ['', 'on', 'aim', 'measured', ''],
    rows: judge({ results, cpu }, options).map(({ aim, subject, measured: spread, met, gap }) => [
      aim.title,
      `${PLATFORMS[subject.platform]}, ${short(subject.variant)}, Node ${subject.node.major}`,
      `${aim.bound} ${aim.limit}`,
      ratio(spread),
      verdict(met, gap),
    ]),
  };
}

const verdict = (met, gap) => (met ? 'met' : `missed by ${(gap * 100).toFixed(0)} %`);

/** @returns {Section[]} */
function sectionsFor(results, { options, cpu, scale, expunge, memory, codecs }) {
  const groups = groupsOf(results);
  if (options.mode === 'stores') return groups.map((group) => storeCpuSection(cpu, group));
  const sections =
    options.mode === 'cpu'
      ? groups.flatMap((group) => [cpuSection(cpu, group), latencySection(results, group)])
      : [
          ...groups.flatMap((group) => [
            shareSection(results, group),
            cpuSection(cpu, group),
            peerSection(results, group),
            latencySection(results, group),
            crowdSection(results, group),
            storeSection(results, group),
          ]),
          contestSection(results),
          ...(scale ? [scaleSection(scale)] : []),
          ...(expunge ? [expungeSection(expunge)] : []),
          ...(memory ? [memorySection(memory)] : []),
          ...(codecs ? [codecSection(codecs)] : []),
        ];
  return [...sections, aimSection({ results, cpu }, options)].filter(({ rows }) => rows.length > 0);
}

// ---- As text

export function printReport(results, facts) {
  for (const { title, text = [], head, rows } of sectionsFor(results, facts)) {
    console.log(`\n${title}\n`);
    for (const line of text) console.log(`${line}\n`);
    const widths = head.map((name, column) =>
      Math.max(...[name, ...rows.map((row) => row[column])].map((cell) => cell.length)),
    );
    for (const row of [head, ...rows])
      console.log(
        row
          .map((cell, column) => cell.padEnd(widths[column]))
          .join('   ')
          .trimEnd(),
      );
  }
  console.log(`\n${facts.minutes.toFixed(1)} minutes`);
}

// ---- As docs/benchmarks.md

export function writeReport(results, facts) {
  const sections = sectionsFor(results, facts).map(({ title, text = [], head, rows }) =>
    [`## ${title}`, ...text, tableOf(head, rows)].join('\n\n'),
  );
  writeFileSync(at('../../docs/benchmarks.md'), `${[introduction(facts), ...sections].join('\n\n')}\n`);
  writeFileSync(at('../../docs/benchmarks.svg'), barChart(panelsFor(results)));
  console.log('\ndocs/benchmarks.md and docs/benchmarks.svg are written');
}

function tableOf(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function panelsFor(results) {
  const newest = Math.max(...results.subjects().map(({ node }) => node.major));
  return groupsOf(results)
    .filter(({ subjects: [{ node }] }) => node.major === newest)
    .map(({ name, subjects }) => ({
      title: `${name}: requests per second, bare application = 1`,
      bars: subjects
        .filter(({ variant }) => !variant.otherStore)
        .map((subject) => ({
          label: subject.variant.title,
          own: subject.variant.app === 'nest-visit',
          shares: Object.fromEntries(
            ROUTES.map((route) => [
              route,
              results.ratio(subject, results.sibling(subject, 'bare'), route)?.median,
            ]).filter(([, share]) => share),
          ),
        })),
    }));
}

function introduction({ nodes, seconds, load, databases, minutes, options: { rounds, mode } }) {
  const above = ['@nestjs/core', 'typeorm', 'mysql2', 'pg'];
  const peers = [
    'express-session',
    'connect-typeorm',
    'express-mysql-session',
    'connect-pg-simple',
    '@fastify/session',
  ];
  const servers = Object.values(databases).map(({ title }) => title);
  const counting = Object.keys(databases).flatMap((kind) => COUNTED_BY[kind] ?? []);
  const machine = `${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB of memory, ${process.platform} (${process.arch})`;
  const order =
    rounds === 1
      ? 'One round through all variants'
      : `${rounds} rounds through all variants, every other one backwards`;
  const lines = [
    'Each variant is the same Nest application with three routes, in its own process: `static` does not use the ' +
      'session, `read` returns a counter from it, `write` increments the counter. Every request has the cookie of ' +
      'one of 200 sessions, in rotation.',
    `${order}, ${seconds} s for each load after a warm-up, ${Math.ceil(minutes)} minutes in total.`,
    'Only ratios within one round are used: the median of the rounds, with the minimum and maximum in parentheses.',
    'The servers run with their default settings, except for the number of connections and `pg_stat_statements` on ' +
      'PostgreSQL. A commit is on disk before it is acknowledged. Redis writes its log to disk every second. Each ' +
      'variant may open ten connections to its database.',
    `"SQL/1,000" is the number of statements that reach the server for 1,000 requests. ${counting.join('. ')}. ` +
      'Other databases are not counted.',
    '"Memory" is the resident set size after the warm-up and at the end. Only some variants have served 512 ' +
      'connections by then.',
    'After each `write` load, the counters of all sessions are added up. No increment that was answered with 2xx ' +
      'may be missing.',
    '"One statement per need" is a prototype, not a library: one `SELECT` for each request and one `UPDATE` for ' +
      'each write, with the driver alone and without grouping.',
    '"The least" is also a prototype: a hook that finds the visit, AsyncLocalStorage, an interceptor that does ' +
      'nothing, and one narrow, grouped, prepared look-up, without any other feature of a session. It only reads.',
    'The other libraries run with their default settings, and with those that their documentation recommends: ' +
      '`resave` and `saveUninitialized` are off.',
  ];
  if (load.startsWith('autocannon')) {
    lines.push(
      'Autocannon is slower than the bare application under Fastify, so shares of that look better than they are; ' +
        'wrk shows more.',
    );
  }
  return `# Benchmarks

This page is written by \`npm run bench\`, which starts private database servers, runs each variant under load, and stops
the servers again. The libraries to compare with are installed at the first run. \`npm run bench -- --help\` lists the
options.
${mode === 'quick' ? '\n**This was a quick run: too short for its figures to mean anything.**\n' : ''}
![Requests per second as a share of the bare application](benchmarks.svg)

## How it is measured

${lines.map((line) => `- ${line}`).join('\n')}

| | |
| --- | --- |
| machine, shared by application, database and load | ${machine} |
| load | ${load} |
| Node | ${nodes.map(({ version }) => version.slice(1)).join(', ')} |
| databases | ${servers.join(', ')} |
| below all | ${above.map((name) => `${name} ${versionOf(name, '../../')}`).join(', ')} |
| compared with | ${peers.map((name) => `${name} ${versionOf(name)}`).join(', ')}; connect-typeorm with typeorm ${versionOf('typeorm')} |`;
}

/** The version of a package as it is installed for what is compared with, or for the library. */
function versionOf(name, folder = '') {
  return JSON.parse(readFileSync(at(`${folder}node_modules/${name}/package.json`), 'utf8')).version;
}
