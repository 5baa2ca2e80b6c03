// What is compared, and how much of it is measured.

/**
 * @typedef {object} Variant
 * @property {string} id
 * @property {string} title
 * @property {string} app the file in apps/
 * @property {string} [store] which of its stores, where that does not follow from the database
 * @property {'mariadb' | 'postgres' | 'sqlite' | 'redis' | 'memcached' | 'memory' | 'file'} [database] where its
 *   sessions are
 * @property {readonly ('express' | 'fastify')[]} platforms
 * @property {readonly string[]} [routes] what it can do, if not all
 * @property {boolean} [counts] whether its sum of counters must be right; false: it is not even looked at
 * @property {boolean} [isForCpu] measured with the others' CPU time only, and without their flags
 * @property {boolean} [otherStore] compared with nest-visit on MariaDB only, on the newest Node
 */

const both = ['express', 'fastify'];

const LIBRARIES = { kysely: 'Kysely', drizzle: 'Drizzle' };

/** @type {Variant[]} */
export const variants = [
  { id: 'bare', title: 'bare Nest, no sessions', app: 'bare', platforms: both },
  {
    id: 'interceptor',
    title: 'bare Nest, an interceptor that does nothing',
    app: 'bare',
    store: 'interceptor',
    platforms: both,
  },
  {
    id: 'express-memory',
    title: 'express-session, in memory',
    app: 'express-session',
    store: 'memory',
    platforms: ['express'],
  },
  {
    id: 'connect-typeorm',
    title: 'express-session + connect-typeorm (MariaDB)',
    app: 'express-session',
    store: 'typeorm',
    database: 'mariadb',
    platforms: ['express'],
  },
  {
    id: 'express-mysql',
    title: 'express-session + express-mysql-session',
    app: 'express-session',
    store: 'mysql',
    database: 'mariadb',
    platforms: ['express'],
  },
  {
    id: 'express-pg',
    title: 'express-session + connect-pg-simple',
    app: 'express-session',
    store: 'postgres',
    database: 'postgres',
    platforms: ['express'],
  },
  {
    id: 'fastify-memory',
    title: '@fastify/session, in memory',
    app: 'fastify-session',
    store: 'memory',
    platforms: ['fastify'],
  },
  {
    id: 'fastify-mysql',
    title: '@fastify/session + express-mysql-session',
    app: 'fastify-session',
    store: 'mysql',
    database: 'mariadb',
    platforms: ['fastify'],
  },
  {
    id: 'one-mariadb',
    title: 'one statement per need (MariaDB)',
    app: 'one-statement',
    database: 'mariadb',
    platforms: both,
    counts: true,
  },
  {
    id: 'one-postgres',
    title: 'one statement per need (PostgreSQL)',
    app: 'one-statement',
    database: 'postgres',
    platforms: both,
    counts: true,
  },
  ...[
    { id: 'least-mariadb', title: 'the least, found in a hook by hand (MariaDB)', database: 'mariadb' },
    { id: 'least-postgres', title: 'the least, found in a hook by hand (PostgreSQL)', database: 'postgres' },
  ].map((variant) => ({ ...variant, app: 'least', platforms: both, routes: ['static', 'read'] })),
  {
    id: 'visit-mariadb',
    title: 'nest-visit (MariaDB)',
    app: 'nest-visit',
    database: 'mariadb',
    platforms: both,
    counts: true,
  },
  {
    id: 'visit-defaults',
    title: 'nest-visit (MariaDB), with the defaults of V8',
    app: 'nest-visit',
    database: 'mariadb',
    platforms: both,
    counts: true,
    isForCpu: true,
  },
  {
    id: 'visit-postgres',
    title: 'nest-visit (PostgreSQL)',
    app: 'nest-visit',
    database: 'postgres',
    platforms: both,
    counts: true,
  },
  ...[
    { id: 'visit-sqlite', title: 'nest-visit (SQLite)', database: 'sqlite' },
    { id: 'visit-prisma-mariadb', title: 'nest-visit (MariaDB, by Prisma)', store: 'prisma', database: 'mariadb' },
    { id: 'visit-prisma-postgres', title: 'nest-visit (PostgreSQL, by Prisma)', store: 'prisma', database: 'postgres' },
    ...['kysely', 'drizzle'].flatMap((store) => [
      {
        id: `visit-${store}-mariadb`,
        title: `nest-visit (MariaDB, by ${LIBRARIES[store]})`,
        store,
        database: 'mariadb',
      },
      {
        id: `visit-${store}-postgres`,
        title: `nest-visit (PostgreSQL, by ${LIBRARIES[store]})`,
        store,
        database: 'postgres',
      },
      { id: `visit-${store}-sqlite`, title: `nest-visit (SQLite, by ${LIBRARIES[store]})`, store, database: 'sqlite' },
    ]),
    { id: 'visit-redis', title: 'nest-visit (Redis)', database: 'redis' },
    { id: 'visit-memory', title: 'nest-visit (memory)', database: 'memory' },
    { id: 'visit-memcached', title: 'nest-visit (memcached, by Keyv)', store: 'keyv', database: 'memcached' },
    { id: 'visit-file', title: 'nest-visit (a file, by Keyv)', store: 'keyv', database: 'file' },
    // The load sends the first copy of each visit for ever, as no browser does: sums would say nothing.
    { id: 'visit-cookie', title: 'nest-visit (sealed cookies)', store: 'sealed-cookie', counts: false },
  ].map((variant) => ({ counts: true, ...variant, app: 'nest-visit', platforms: both, otherStore: true })),
];

/**
 * While an application starts under load, V8 may conclude that what requests allocate lives long, and doubles what they
 * cost from then on. Whether it does is chance; with room for young objects it does not (docs/performance.md), and CPU
 * times can be compared.
 */
const CPU_FLAGS = ['--min-semi-space-size=16'];

export const ROUTES = { static: 'GET', read: 'GET', write: 'POST' };

const beside = ['one-mariadb', 'one-postgres', 'visit-mariadb', 'visit-postgres'];
const single = ['bare', 'interceptor', 'least-mariadb', 'least-postgres', ...beside];
const crowd = ['bare', 'visit-mariadb', 'visit-postgres'];

/** Which variants meet which load; what quick runs leave out makes no difference to whether the benchmark works. */
const loadsOf = {
  full: [
    {
      connections: 64,
      routes: ['read', 'write'],
      only: variants.filter(({ isForCpu }) => !isForCpu).map(({ id }) => id),
    },
    {
      connections: 64,
      routes: ['static'],
      only: variants.filter(({ otherStore, isForCpu }) => !otherStore && !isForCpu).map(({ id }) => id),
    },
    { connections: 1, routes: ['read'], only: single },
    { connections: 512, routes: ['read', 'write'], only: crowd },
  ],
  quick: [
    {
      connections: 64,
      routes: ['read', 'write'],
      only: ['bare', 'connect-typeorm', 'fastify-mysql', 'one-mariadb', 'visit-mariadb', 'visit-postgres'],
    },
  ],
  cpu: [{ connections: 1, routes: ['read'], only: beside }],
  stores: [],
};

/** Whose CPU time is measured, all with one connection after the other. */
const slicesOf = {
  full: [
    {
      connections: 64,
      routes: ['static', 'read', 'write'],
      only: variants.filter(({ otherStore, isForCpu }) => !otherStore && !isForCpu).map(({ id }) => id),
    },
  ],
  quick: [{ connections: 64, routes: ['read'], only: ['bare', 'visit-mariadb'] }],
  cpu: [
    {
      connections: 64,
      routes: ['static', 'read', 'write'],
      only: [
        'bare',
        'interceptor',
        'least-mariadb',
        'visit-mariadb',
        'visit-defaults',
        'one-mariadb',
        'connect-typeorm',
        'fastify-mysql',
      ],
    },
  ],
  stores: [
    {
      connections: 64,
      routes: ['read', 'write'],
      only: variants.filter(({ app, isForCpu }) => app === 'nest-visit' && !isForCpu).map(({ id }) => id),
    },
  ],
};

/** Without the routes that nobody asked for. */
function asked(loads, routes) {
  return loads
    .map((load) => ({ ...load, routes: load.routes.filter((route) => routes?.includes(route) ?? true) }))
    .filter((load) => load.routes.length > 0);
}

/** All applications to start: `{ key, variant, platform, node, flags }`. */
export function subjectsFor({ mode, routes, only = /^/, nodes }) {
  const loads = asked([...loadsOf[mode], ...slicesOf[mode]], routes);
  const wanted = ({ variant }) => loads.some((load) => isMeant(load, variant));
  return nodes.flatMap((node) =>
    ['express', 'fastify'].flatMap((platform) => {
      const all = variants
        .filter((variant) => variant.platforms.includes(platform) && (!variant.otherStore || node === nodes.at(-1)))
        .map((variant) => ({
          key: `${platform}/${variant.id}/node${node.major}`,
          variant,
          platform,
          node,
          flags: ['cpu', 'stores'].includes(mode) && !variant.isForCpu ? CPU_FLAGS : [],
        }))
        .filter(wanted);
      const named = all.filter(({ key }) => only.test(key));
      // Without these there is nothing to compare with.
      const unit = mode === 'stores' ? 'visit-mariadb' : 'bare';
      return named.length > 0 ? all.filter((subject) => subject.variant.id === unit || named.includes(subject)) : [];
    }),
  );
}

/** All measurings of one round, in an order that leaves little time between those that are compared. */
export function measuringsFor(subjects, { mode, routes }) {
  return measuringsOf(asked(loadsOf[mode], routes), subjects);
}

/** What is measured in slices: lists of those that take turns. */
export function slicesFor(subjects, { mode, routes }) {
  const groups = new Map();
  for (const measuring of measuringsOf(asked(slicesOf[mode], routes), subjects)) {
    const { subject, route, connections } = measuring;
    const key = `${subject.platform}, Node ${subject.node.major}, ${route} ×${connections}`;
    groups.set(key, [...(groups.get(key) ?? []), measuring]);
  }
  return [...groups].map(([name, measurings]) => ({ name, measurings }));
}

function measuringsOf(loads, subjects) {
  return loads.flatMap((load) =>
    load.routes.flatMap((route) =>
      subjects
        .filter(({ variant }) => isMeant(load, variant) && (variant.routes?.includes(route) ?? true))
        .map((subject) => ({ subject, route, method: ROUTES[route], connections: load.connections })),
    ),
  );
}

function isMeant({ only }, { id }) {
  return !only || only.includes(id);
}
