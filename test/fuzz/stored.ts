import type { Random } from './random.js';

/** A row of format 1 with this JSON text. */
export const format1 = (text: string): Buffer => Buffer.from(`\u0001${text}`);

const cycle: Record<string, unknown> = { name: 'Ann' };
cycle['self'] = cycle;

/** What sessions hold, one of each kind of value. */
export const sessions: readonly ReadonlyMap<string, unknown>[] = [
  new Map(Object.entries({ userName: 'Ann', visits: 3, cart: [{ id: 1, name: 'ünï ☃ 👩‍🚀' }], '2': null })),
  new Map<string, unknown>([
    ['at', new Date(5)],
    ['plain', { a: [1, 2, { b: true }] }],
    ['9', new Map<unknown, unknown>([['k', new Set([1n, Number.NaN])]])],
    [
      'bytes',
      { buffer: Buffer.from('abc'), floats: new Float64Array([1, -0]), view: new DataView(new ArrayBuffer(4)) },
    ],
  ]),
  new Map<string, unknown>([
    ['cycle', cycle],
    ['shared', [cycle, cycle, undefined, -0, Infinity]],
    ['__proto__', { polluted: new Date(0) }],
    ['constructor', { prototype: { polluted: 1 } }],
  ]),
];

const TAGS = [
  'Array',
  'Map',
  'Set',
  'Date',
  'Buffer',
  'ArrayBuffer',
  'DataView',
  'Int8Array',
  'Uint16Array',
  'Float64Array',
  'BigUint64Array',
  'BigInt',
];
const CONSTANTS = ['undefined', 'NaN', 'Infinity', '-Infinity', '-0'];
const STRANGE_TAGS = [
  '__proto__',
  'constructor',
  'toString',
  'Object',
  'Function',
  'Error',
  'RegExp',
  'SharedArrayBuffer',
  'Proxy',
  '',
];
const NAMES = [
  '__proto__',
  '__proto__',
  'constructor',
  'prototype',
  'toJSON',
  'then',
  'length',
  'hasOwnProperty',
  'polluted',
  'a',
  '0',
  '4294967295',
  '',
];
const NUMBERS = [
  '0',
  '-0',
  '1',
  '-1',
  '0.5',
  '1e21',
  '1e308',
  '1e999',
  '-1e999',
  '4294967295',
  '4294967296',
  '9007199254740993',
  '8640000000000001',
];
const CONTENTS = [
  '""',
  '"AA=="',
  '"AAAAAAAAAAA="',
  '"===="',
  '"4294967296"',
  '"-"',
  '"99999999999999999999999999"',
  '"0x10"',
  '"\\ud800"',
  '"\\u0000"',
  'null',
  'true',
  '{}',
  '[]',
];

function value(random: Random, nodes: number, depth = 0): string {
  const kind = random.below(depth > 3 ? 5 : 9);
  if (kind === 0) return random.of(NUMBERS);
  if (kind === 1) return random.of(CONTENTS);
  if (kind < 5) return `[${random.chance(0.9) ? random.below(nodes) : random.of(NUMBERS)}]`;
  if (kind === 5) return `["${random.of(CONSTANTS)}"]`;
  if (kind === 6) return `["BigInt",${random.of(CONTENTS)}]`;
  if (kind === 7) return `[${random.list(random.below(4), () => value(random, nodes, depth + 1)).join()}]`;
  return object(random, () => value(random, nodes, depth + 1));
}

function object(random: Random, content: () => string): string {
  return `{${random.list(random.below(4), () => `"${random.of(NAMES)}":${content()}`).join()}}`;
}

function node(random: Random, nodes: number): string {
  const kind = random.below(10);
  if (kind < 3)
    return object(random, () => (random.chance(0.8) ? `[${random.below(nodes)}]` : value(random, nodes, 2)));
  if (kind === 9) return value(random, nodes);
  const tag = random.chance(0.9) ? random.of(TAGS) : random.of(STRANGE_TAGS);
  const isContainer = ['Array', 'Map', 'Set'].includes(tag);
  const contents = isContainer
    ? random.list(random.below(5), () => value(random, nodes, random.chance(0.9) ? 4 : 0))
    : [random.chance(0.3) ? random.of(NUMBERS) : random.of(CONTENTS)];
  return `[${[`"${tag}"`, ...contents].join()}]`;
}

/** Close to what the serializer writes, or just that; with any names, tags, references and cycles. */
export function almostFormat1(random: Random): Buffer {
  const plain = object(random, () => value(random, 1));
  const graph = (): string => {
    const nodes = 1 + random.below(5);
    return random.chance(0.95) ? `[${random.list(nodes, () => node(random, nodes)).join()}]` : value(random, nodes);
  };
  const parts = [
    plain,
    object(random, graph),
    `[${random.list(random.below(5), () => `"${random.of(NAMES)}"`).join()}]`,
  ];
  return format1(`[${parts.slice(0, random.chance(0.7) ? 2 : 1 + random.below(3)).join()}]`);
}

/** A row with a few wounds. */
export function damaged(random: Random, rows: readonly Buffer[]): Buffer {
  let bytes = Buffer.from(random.of(rows));
  for (let wounds = 1 + random.below(3); wounds > 0; wounds--) {
    const at = random.below(bytes.length + 1);
    const to = Math.min(bytes.length, at + 1 + random.below(20));
    switch (random.below(5)) {
      case 0:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
        break;
      case 1:
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          Buffer.from(
            random.of([
              '[',
              ']',
              '{',
              '}',
              ',',
              ':',
              '"',
              '\\',
              '1e9',
              '__proto__',
              '"__proto__":',
              '[0]',
              '\u0000',
              '☃',
            ]),
          ),
          bytes.subarray(at),
        ]);
        break;
      case 2: {
        const other = random.of(rows);
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(random.below(other.length))]);
        break;
      }
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at, to), bytes.subarray(to)]);
        break;
      default:
        if (at < bytes.length) bytes[at] = random.below(256);
    }
  }
  return bytes;
}
