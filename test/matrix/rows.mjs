// What the packed package is tried with. Not every combination, of which there are some two thousand: a covering array,
// in which each two values meet at least once.

/** The columns of the table, and what each may be. */
export const DIMENSIONS = {
  nest: ['10', '11', '12'],
  platform: ['express', 'fastify'],
  typeorm: ['0.3', '1'],
  format: ['commonjs', 'esm'],
  runtime: ['node 20', 'node 22', 'node 24', 'node 26', 'bun'],
  tests: ['jest', 'vitest'],
  bundle: ['none', 'esbuild', 'webpack'],
  packager: ['npm', 'pnpm', 'yarn pnp'],
};

const NAMES = Object.keys(DIMENSIONS);

/** Values that cannot meet, whatever nest-visit does, with the reason. */
export const IMPOSSIBLE = [
  { values: { runtime: 'bun', packager: 'yarn pnp' }, reason: "Bun does not know Yarn's Plug'n'Play" },
];

const isPossible = (row) =>
  !IMPOSSIBLE.some(({ values }) => Object.entries(values).every(([name, value]) => row[name] === value));

const combinations = NAMES.reduce(
  (rows, name) => rows.flatMap((row) => DIMENSIONS[name].map((value) => ({ ...row, [name]: value }))),
  [{}],
).filter(isPossible);

const pairsByRow = new Map(
  combinations.map((row) => [
    row,
    NAMES.flatMap((one, index) => NAMES.slice(index + 1).map((other) => `${one} ${row[one]}, ${other} ${row[other]}`)),
  ]),
);

/**
 * The rows: always the one next that has most pairs that no row before has, and of these the one whose values were
 * taken least.
 */
function cover() {
  const open = new Set([...pairsByRow.values()].flat());
  const taken = new Map();
  const valuesOf = (row) => NAMES.map((name) => `${name} ${row[name]}`);
  const rows = [];
  while (open.size > 0) {
    let best;
    for (const [row, pairs] of pairsByRow) {
      const gain = pairs.filter((pair) => open.has(pair)).length;
      const wear = valuesOf(row).reduce((sum, value) => sum + (taken.get(value) ?? 0), 0);
      if (!best || gain > best.gain || (gain === best.gain && wear < best.wear)) best = { row, gain, wear };
    }
    for (const pair of pairsByRow.get(best.row)) open.delete(pair);
    for (const value of valuesOf(best.row)) taken.set(value, (taken.get(value) ?? 0) + 1);
    rows.push(best.row);
  }
  return rows;
}

export const rows = cover();

/** What a row is called, in progress, in filters, and in the file of results. */
export function nameOf({ nest, platform, typeorm, format, runtime, tests, bundle, packager }) {
  const parts = [`nest ${nest}`, platform, `typeorm ${typeorm}`, format, runtime, tests];
  return [...parts, bundle === 'none' ? 'plain' : bundle, packager].join(', ');
}

/** The rows whose name has all of these words: `nest 12` and `bun`, for example. */
export const rowsWith = (words) => rows.filter((row) => words.every((word) => nameOf(row).includes(word)));
