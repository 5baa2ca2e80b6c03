// The table of docs/compatibility.md, between its markers.
import { readFileSync, writeFileSync } from 'node:fs';
import { nameOf, rows } from './rows.mjs';

const PAGE = new URL('../../docs/compatibility.md', import.meta.url);
const MARKERS = ['<!-- matrix -->', '<!-- /matrix -->'];

const WORDS = {
  express: 'Express',
  fastify: 'Fastify',
  commonjs: 'CommonJS',
  esm: 'ES modules',
  bun: 'Bun',
  jest: 'Jest',
  none: '',
  'yarn pnp': "Yarn Plug'n'Play",
};
const shown = (value) => WORDS[value] ?? value.replace(/^node/, 'Node');

const STEPS = { visit: 'a visit over HTTP', command: 'the command `nest-visit`', test: "the application's own test" };

function verdictOf({ outcome, remark, step, reason }) {
  if (outcome === 'works') return remark ? `works; ${remark}` : 'works';
  if (outcome === 'not run') return 'not run: the runtime could not be had';
  const lines = reason.split('\n').map((line) => line.trim());
  const said = lines.find((line) => /^\w*Error: |error TS\d/.test(line)) ?? lines[0];
  return `**fails** at ${STEPS[step] ?? `the ${step}`}: ${said.slice(0, 200).replaceAll('|', '\\|')}`;
}

function tableOf(results) {
  const head = ['Nest', 'platform', 'TypeORM', 'format', 'runtime', 'tests', 'bundle', 'packages', 'outcome'];
  const lines = rows.map((row) => {
    const { nest, platform, typeorm, format, runtime, tests, bundle, packager } = row;
    const runner = runtime === 'bun' && tests === 'jest' ? '`bun test`' : shown(tests);
    const cells = [
      nest,
      shown(platform),
      typeorm,
      shown(format),
      shown(runtime),
      runner,
      shown(bundle),
      shown(packager),
    ];
    return [...cells, verdictOf(results[nameOf(row)])];
  });
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Writes the table into the page. The name of the page. */
export function writeTable(results) {
  const text = readFileSync(PAGE, 'utf8');
  const [before, after] = [text.split(MARKERS[0])[0], text.split(MARKERS[1])[1]];
  writeFileSync(PAGE, `${before}${MARKERS[0]}\n\n${tableOf(results)}\n\n${MARKERS[1]}${after}`);
  return 'docs/compatibility.md';
}
