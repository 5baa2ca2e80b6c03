import { parseArgs } from 'node:util';
import { ROUTES } from './variants.mjs';

export const HELP = `node test/bench/run.mjs [options]

Starts private database servers on free ports of 127.0.0.1, measures nest-visit and other libraries in interleaved
rounds, prints ratios, compares them with the goals, and writes docs/benchmarks.md and docs/benchmarks.svg. Measures the
last build of the package (npm run build). Takes about a quarter of an hour; close other programs in the meantime.

  --cpu                only the CPU time of a request, which other programs affect less than requests per second, and
                       the latency of one connection; few variants, some minutes; writes nothing
  --stores             only the CPU time of a request with each store; some minutes; writes nothing
  --quick              only checks that everything works: few variants, one short round, about a minute; writes nothing
  --only <regex>       only variants whose key, such as express/visit-mariadb/node20, matches; and the bare application,
                       or MariaDB with TypeORM for --stores
  --route <names>      only these of static, read and write, such as read,write
  --rounds <n>         rounds, 3 by default, or 5 for --cpu and --stores
  --seconds <s>        the duration of each measurement; by default as long as the time permits, or 1 for --cpu and
                       --stores
  --node <20,24>       on these versions of Node; npx downloads them, except the running one
  --scale              also a large table, which takes long to fill
  --expunge            also three processes that expunge old visits while others are in use
  --memory             also ten minutes of reading, each with other visits, and the memory of the process after each
  --codec              also the cost of encoding sessions, compared with other serializers
  --rows <n>           the size of these tables, by default ten million, or one million for --expunge and --memory
  --only-extras        only the additions of --scale, --expunge, --memory and --codec
  --load <name>        wrk or autocannon; by default wrk, if it is installed
  --write              write the report after --quick, too
  --help               this text`;

const DEFAULT_ROUNDS = { full: 3, quick: 1, cpu: 5, stores: 5 };
/** The other modes have as many as fit into the time. */
const DEFAULT_SECONDS = { quick: 1.5, cpu: 1, stores: 1 };

/** How CPU time is measured; --rounds and --seconds are for it where nothing else is. */
const SLICES = { rounds: 5, seconds: 1, warmUp: { requests: 20_000, seconds: 5 } };
const QUICK_SLICES = { rounds: 1, seconds: 0.4, warmUp: { requests: 1000, seconds: 1 } };

const NUMBER = /^\d+(\.\d+)?$/;

/** What the command line says, checked; exits where that makes no sense. */
export function readOptions(args) {
  try {
    const { values } = parseArgs({
      args,
      options: {
        cpu: { type: 'boolean', default: false },
        stores: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        route: { type: 'string' },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        node: { type: 'string' },
        expunge: { type: 'boolean', default: false },
        'only-extras': { type: 'boolean', default: false },
        rows: { type: 'string' },
        scale: { type: 'boolean', default: false },
        memory: { type: 'boolean', default: false },
        codec: { type: 'boolean', default: false },
        load: { type: 'string' },
        write: { type: 'boolean' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    const chosen = ['quick', 'cpu', 'stores'].filter((name) => values[name]);
    if (chosen.length > 1) throw new Error(`--${chosen.join(' and --')} exclude each other`);
    const [mode = 'full'] = chosen;
    if (values.write && ['cpu', 'stores'].includes(mode))
      throw new Error(`--${mode} measures too little for a report, so --write makes no sense`);
    const rounds = Math.max(1, Math.trunc(number('rounds', values.rounds, DEFAULT_ROUNDS[mode])));
    const seconds = number('seconds', values.seconds, DEFAULT_SECONDS[mode]);
    return {
      help: values.help,
      mode,
      slices: mode === 'full' ? SLICES : mode === 'quick' ? QUICK_SLICES : { ...SLICES, rounds, seconds },
      only: values.only === undefined ? undefined : new RegExp(values.only),
      routes: values.route?.split(',').map((route) => oneOf('route', route, Object.keys(ROUTES))),
      rounds,
      seconds,
      majors: majors(values.node),
      scale: values.scale,
      expunge: values.expunge,
      memory: values.memory,
      codec: values.codec,
      onlyExtras: values['only-extras'],
      rows: number('rows', values.rows),
      load: oneOf('load', values.load, ['wrk', 'autocannon']),
      write:
        values.write ??
        (mode === 'full' &&
          [values.only, values.route].every((value) => value === undefined) &&
          !values['only-extras']),
    };
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    return process.exit(2);
  }
}

function number(name, text, fallback) {
  if (text === undefined) return fallback;
  if (!NUMBER.test(text) || Number(text) === 0) throw new Error(`--${name} must be a number above 0, got "${text}"`);
  return Number(text);
}

function majors(text) {
  const list = text?.split(',') ?? [];
  if (!list.every((major) => /^\d+$/.test(major)))
    throw new Error(`--node must be major versions such as 20,24, got "${text}"`);
  return list;
}

function oneOf(name, text, allowed) {
  if (text !== undefined && !allowed.includes(text))
    throw new Error(`--${name} must be one of ${allowed.join(', ')}, got "${text}"`);
  return text;
}
