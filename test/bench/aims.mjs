// What the library aims at, each compared with what was measured.

/**
 * @typedef {object} Aim
 * @property {string} title
 * @property {'express' | 'fastify'} platform
 * @property {number} [from] the first major version of Node that it is meant for
 * @property {number} [below] the first one that it is not meant for
 * @property {string} route
 * @property {number} [connections] 64 if not given
 * @property {string} [over] the variant to compare with; "one" is that on the same database
 * @property {'rate' | 'latency' | 'statements'} of
 * @property {number} limit at least, of rates; at most, of all else
 */

const NODE_24 = { from: 24 };
const NODE_20 = { from: 20, below: 24 };

/** @type {Aim[]} */
const aims = [
  ...shares('express', NODE_24, { static: 0.85, read: 0.85, write: 0.65 }, 'bare'),
  ...shares('express', NODE_24, { read: 3.2, write: 3.5 }, 'connect-typeorm'),
  ...shares('fastify', NODE_24, { static: 0.6, read: 0.6, write: 0.28 }, 'bare'),
  ...shares('fastify', NODE_24, { read: 7, write: 3 }, 'fastify-mysql'),
  ...shares('fastify', NODE_24, { read: 2.2 }, 'one'),
  ...shares('express', NODE_20, { read: 0.72 }, 'bare'),
  ...shares('fastify', NODE_20, { read: 0.45 }, 'bare'),
  ...['express', 'fastify'].flatMap((platform) => [
    {
      ...NODE_24,
      platform,
      route: 'read',
      connections: 1,
      over: 'one',
      of: 'latency',
      limit: 1.15,
      title: 'latency of `read`, one connection ÷ one statement per need',
    },
    ...['static', 'read'].map((route) => ({
      platform,
      route,
      of: 'statements',
      limit: 120,
      title: `statements for 1,000 \`${route}\``,
    })),
  ]),
];

function shares(platform, nodes, limits, over) {
  const names = {
    bare: 'bare',
    one: 'one statement per need',
    'connect-typeorm': 'connect-typeorm',
    'fastify-mysql': '@fastify/session on MariaDB',
  };
  return Object.entries(limits).map(([route, limit]) => ({
    ...nodes,
    platform,
    route,
    over,
    of: 'rate',
    limit,
    title: `\`${route}\` ÷ ${names[over]}`,
  }));
}

/**
 * @param {import('./results.mjs').Results} results
 * @returns {{ aim: Aim, subject: object, measured: import('./results.mjs').Spread, met: boolean, gap: number }[]} `gap` is how far
 *   the median is on the wrong side, as a share of the limit
 */
export function judge(results) {
  return results
    .subjects()
    .filter(({ variant }) => ['visit-mariadb', 'visit-postgres'].includes(variant.id))
    .flatMap((subject) =>
      aims
        .filter(
          ({ platform, from = 0, below = Infinity }) =>
            platform === subject.platform && subject.node.major >= from && subject.node.major < below,
        )
        .map((aim) => ({ aim, subject, measured: measuredFor(results, aim, subject) }))
        .filter(({ measured }) => measured)
        .map((row) => {
          const { of, limit } = row.aim;
          const gap = of === 'rate' ? 1 - row.measured.median / limit : row.measured.median / limit - 1;
          return { ...row, gap, met: gap <= 0 };
        }),
    );
}

function measuredFor(results, { of, over, route, connections = 64 }, subject) {
  if (of === 'statements') return results.spread(subject, route, connections, ({ statements }) => statements);
  const other = results.sibling(subject, over === 'one' ? `one-${subject.variant.database}` : over);
  // With one connection, the next request is sent when the last one is answered: the latency is what the rate leaves.
  return results.ratio(subject, other, route, connections, of === 'latency' ? ({ rate }) => 1 / rate : undefined);
}

/** Aims that no subject of this run could be held against, because of its Node. */
export function nodesMissing(results) {
  const majors = results.subjects().map(({ node }) => node.major);
  return [
    { name: 'Node 20', of: NODE_20 },
    { name: 'Node 24', of: NODE_24 },
  ]
    .filter(({ of: { from, below = Infinity } }) => !majors.some((major) => major >= from && major < below))
    .map(({ name }) => name);
}
