import { parseArgs } from 'node:util';

export const HELP = `node test/bench/run.mjs [options]

Starts private database servers on free ports of 127.0.0.1, measures nest-visit and what else there is in interleaved
rounds, prints ratios, compares them with the aims and writes docs/benchmarks.md and docs/benchmarks.svg. Measures the
package as it was built last (npm run build). Takes about a quarter of an hour; close other programs meanwhile.

  --quick              only whether all works: few variants, one short round, about a minute; writes nothing
  --only <regex>       only variants whose key, such as express/visit-mariadb/node20, matches; and the bare application
  --rounds <n>         rounds, 3 by default
  --seconds <s>        of each measuring; by default as many as fit into the time
  --node <20,24>       on these versions of Node; others than the running one are fetched by npx
  --scale              also a large table, which takes long to fill
  --expunge            also three processes that expunge old visits while others are in use
  --memory             also ten minutes of reading, each of other visits, and what memory the process has after each
  --codec              also what encoding sessions costs, beside other serializers
  --rows <n>           of those tables, by default ten million, or one million for --expunge and --memory
  --only-extras        nothing but what --scale, --expunge, --memory and --codec add
  --load <name>        wrk or autocannon; by default wrk where it is installed
  --write              write the report after --quick, too
  --help               this text`;

const NUMBER = /^\d+(\.\d+)?$/;

/** What the command line says, checked; exits where that makes no sense. */
export function readOptions(args) {
  try {
    const { values } = parseArgs({
      args,
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
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
    const { quick } = values;
    return {
      help: values.help,
      quick,
      only: values.only === undefined ? undefined : new RegExp(values.only),
      rounds: Math.max(1, Math.trunc(number('rounds', values.rounds, quick ? 1 : 3))),
      seconds: number('seconds', values.seconds, quick ? 1.5 : undefined),
      majors: list(values.node),
      scale: values.scale,
      expunge: values.expunge,
      memory: values.memory,
      codec: values.codec,
      onlyExtras: values['only-extras'],
      rows: number('rows', values.rows),
      load: oneOf('load', values.load, ['wrk', 'autocannon']),
      write: values.write ?? (!quick && values.only === undefined && !values['only-extras']),
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

function list(text) {
  const majors = text?.split(',') ?? [];
  if (!majors.every((major) => /^\d+$/.test(major))) throw new Error(`--node must be major versions such as 20,24, got "${text}"`);
  return majors;
}

function oneOf(name, text, allowed) {
  if (text !== undefined && !allowed.includes(text)) throw new Error(`--${name} must be ${allowed.join(' or ')}, got "${text}"`);
  return text;
}
