// What the library aims at, each compared with what was measured.

/** @typedef {import('./results.mjs').Results} Results */
/** @typedef {import('./results.mjs').Spread} Spread */

/**
 * @typedef {object} Aim
 * @property {string} title
 * @property {'cpu' | 'latency' | 'rate' | 'statements'} figure what it speaks of
 * @property {readonly string[]} platforms
 * @property {number} from the first major version of Node that it is meant for
 * @property {'≤' | '≥'} bound
 * @property {number} limit
 * @property {(results: Results, subject: object) => Spread | undefined} measure
 */

const NODE_24 = 24;
const ANY_NODE = 20;
const both = ['express', 'fastify'];

/** What is compared with; "one" and "least" are those on the same database. */
const NAMES = {
  bare: 'bare',
  one: 'one statement per need',
  least: 'the least',
  'connect-typeorm': 'connect-typeorm',
  'fastify-mysql': '@fastify/session on MariaDB',
};

const FIGURES = {
  cpu: (route) => `CPU time of \`${route}\``,
  latency: (route) => `latency of \`${route}\`, one connection`,
  rate: (route) => `\`${route}\` per second`,
};

/** @type {Aim[]} */
const aims = [
  ...atMost('cpu', 'express', 'least', { read: 1 }),
  ...atMost('cpu', 'express', 'bare', { write: 3 }),
  ...atLeast('cpu', 'express', 'connect-typeorm', { read: 7.5, write: 5 }),
  ...atMost('cpu', 'fastify', 'least', { read: 1.12 }),
  ...atMost('cpu', 'fastify', 'bare', { write: 4.5 }),
  ...atLeast('cpu', 'fastify', 'fastify-mysql', { read: 5, write: 2.6 }),
  ...both.flatMap((platform) => atMost('latency', platform, 'one', { read: 1.25 }, 1)),
  ...atLeast('rate', 'express', 'connect-typeorm', { read: 3.2, write: 3.5 }),
  ...atLeast('rate', 'fastify', 'fastify-mysql', { read: 7, write: 3 }),
  ...atLeast('rate', 'fastify', 'one', { read: 2.2 }),
  ...['static', 'read'].map((route) => ({
    title: `statements for 1,000 \`${route}\``,
    figure: 'statements',
    platforms: both,
    from: ANY_NODE,
    bound: '≤',
    limit: 120,
    measure: (results, subject) => results.spread(subject, route, 64, ({ statements }) => statements),
  })),
];

/** Ours ÷ that of the other, of what should be small. */
function atMost(figure, platform, other, limits, connections) {
  return ratios({ figure, platform, other, limits, connections, bound: '≤' });
}

/** How many times better than the other: of CPU time theirs ÷ ours, of rates ours ÷ theirs. */
function atLeast(figure, platform, other, limits, connections) {
  return ratios({ figure, platform, other, limits, connections, bound: '≥' });
}

function ratios({ figure, platform, other, limits, connections, bound }) {
  const isTheirsOverOurs = figure === 'cpu' && bound === '≥';
  return Object.entries(limits).map(([route, limit]) => ({
    title: isTheirsOverOurs
      ? `${FIGURES[figure](route)}: ${NAMES[other]} ÷ ours`
      : `${FIGURES[figure](route)} ÷ ${NAMES[other]}`,
    figure,
    platforms: [platform],
    from: NODE_24,
    bound,
    limit,
    measure(results, subject) {
      const its = results.sibling(
        subject,
        ['one', 'least'].includes(other) ? `${other}-${subject.variant.database}` : other,
      );
      const pair = isTheirsOverOurs ? [its, subject] : [subject, its];
      return results.ratio(...pair, route, connections, (sample) => sample[figure]);
    },
  }));
}

/**
 * @param {{ results: Results, cpu: Results }} measured `cpu` are those of slices
 * @param {{ mode: string }} options
 * @returns {{ aim: Aim, subject: object, measured: Spread, met: boolean, gap: number }[]} `gap` is how far the median
 *   is on the wrong side, as a share of the limit
 */
export function judge({ results, cpu }, { mode }) {
  const meant = aims.filter(({ figure }) => mode !== 'cpu' || ['cpu', 'latency'].includes(figure));
  return results
    .subjects()
    .filter(({ variant }) => ['visit-mariadb', 'visit-postgres'].includes(variant.id))
    .flatMap((subject) =>
      meant
        .filter(({ platforms, from }) => platforms.includes(subject.platform) && subject.node.major >= from)
        .map((aim) => ({ aim, subject, measured: aim.measure(aim.figure === 'cpu' ? cpu : results, subject) }))
        .filter(({ measured }) => measured)
        .map((row) => {
          const { bound, limit } = row.aim;
          const share = row.measured.median / limit;
          const gap = bound === '≥' ? 1 - share : share - 1;
          return { ...row, gap, met: gap <= 0 };
        }),
    );
}

/** Whether no subject of this run could be held against the aims that speak of a Node. */
export function needsNewerNode(results) {
  return results.subjects().every(({ node }) => node.major < NODE_24);
}
