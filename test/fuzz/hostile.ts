import { BASE64URL, type Random } from './random.js';

const PATHS = ['polluted', 'x', 'isNew', 'userId', 'visit_key', 'toString', 'then'];
const NAMES = [
  'visit',
  'visit',
  'visit',
  'visit',
  'visit',
  'visit ',
  ' visit',
  '\tvisit',
  'Visit',
  'VISIT',
  'visit[]',
  'visi',
  'xvisit',
];
const OTHER_NAMES = [
  '__Host-visit',
  '__proto__',
  'constructor',
  'visit.sid',
  '',
  '$Version',
  '%76isit',
  'vi\u00adsit',
  'visit_key',
];

/**
 * What does not become a key, whatever stands before or after it; without what a cookie or a query would cut off or cut
 * at.
 */
export const JUNK = [
  '',
  '__proto__',
  'constructor',
  'hasOwnProperty',
  '[object Object]',
  'null',
  'undefined',
  'NaN',
  '0',
  '-1',
  'true',
  "'OR'1'='1",
  "'--",
  '../../etc/passwd',
  '${7*7}',
  '{{7*7}}',
  '<script>alert(1)</script>',
  '%00',
  '%2e',
  '%zz',
  '%c0%ae',
  's:abc.def',
  'j:{"__proto__":{"polluted":1}}',
  '.',
  '='.repeat(50),
  '"',
  '""',
  '"""',
  '\\',
  '\u0000',
  '\u0080\u00ff',
  'é'.repeat(76),
  '.'.repeat(76),
  'a'.repeat(76),
  `${'0'.repeat(32)}.`,
  `.${'A'.repeat(43)}`,
  `${'g'.repeat(32)}.${'A'.repeat(43)}`,
  `${'0'.repeat(32)}.${'+'.repeat(43)}`,
  `${'0'.repeat(32)}:${'A'.repeat(43)}`,
];

/** Of the right form, and of nobody. */
export function forgedKey(random: Random): string {
  return `${random.hex(32)}.${random.base64url(43)}`;
}

/** Of the right form, with the id of a visit that there is. */
export function wrongSecret(random: Random, keys: readonly string[]): string {
  const key = random.of(keys);
  const [id, secret] = key.split('.') as [string, string];
  switch (random.below(4)) {
    case 0: {
      const at = random.below(43);
      const other = secret[at] === 'A' ? 'B' : 'A';
      return `${id}.${secret.slice(0, at)}${other}${secret.slice(at + 1)}`;
    }
    case 1:
      // The last character of 43 carries four bits: each of three others means the same bytes to a decoder of base64.
      return `${id}.${secret.slice(0, 42)}${BASE64URL[BASE64URL.indexOf(secret[42]!) ^ (1 + random.below(3))]}`;
    case 2: {
      // A visit may have had two keys.
      const other = random.of(keys);
      return other.startsWith(id) ? `${id}.${random.base64url(43)}` : `${id}.${other.slice(33)}`;
    }
    default:
      return `${id}.${random.base64url(43)}`;
  }
}

/** Text in the place of a key, that opens none of the visits of `keys`. */
export function keyText(random: Random, keys: readonly string[]): string {
  const key = random.of(keys);
  switch (random.below(12)) {
    case 0:
    case 1:
      return forgedKey(random);
    case 2:
    case 3:
      return wrongSecret(random, keys);
    case 4:
      return key.slice(0, random.below(key.length));
    case 5:
      return key.slice(1 + random.below(key.length - 1));
    case 6:
      return random.of([
        key + key,
        `${key}.${key}`,
        `${key},${key}`,
        `${key}=`,
        `=${key}`,
        `Visit=${key}`,
        `${key}.`,
        `.${key}`,
        `${key}\u0000`,
      ]);
    case 7:
      return random.of([
        key.toUpperCase(),
        key.replace('.', '%2E'),
        key.replace('.', '\uff0e'),
        encodeURIComponent(`"${key}`),
        `\u200b${key}`,
        key.split('').toReversed().join(''),
        Buffer.from(key).toString('base64'),
        JSON.stringify([key]),
      ]);
    case 8:
      return random.latin1(random.length()).replace(/[;,]/g, '.');
    case 9:
      return random.of(JUNK).repeat(1 + random.below(3));
    default:
      return random.of(JUNK);
  }
}

/** A Cookie header that opens none of the visits; undefined: there is none. */
export function cookieHeader(random: Random, keys: readonly string[]): string | undefined {
  if (random.chance(0.05)) return undefined;
  if (random.chance(0.03))
    return random.of([
      ';'.repeat(500),
      '='.repeat(500),
      'visit',
      'visit;',
      '=visit',
      'visit=',
      ' ',
      '"visit"=x',
      random.latin1(300),
    ]);
  const pairs = random.list(random.chance(0.02) ? random.below(300) : 1 + random.below(6), () => {
    const name = random.chance(0.8) ? random.of(NAMES) : random.of([...OTHER_NAMES, random.latin1(3)]);
    // Under another name even a genuine key is nothing.
    const value = name.trim() !== 'visit' && random.chance(0.3) ? random.of(keys) : keyText(random, keys);
    return random.of([
      `${name}=${value}`,
      `${name}=${value}`,
      `${name}= ${value} `,
      `${name}="${value.replaceAll('"', '')}x"`,
      value,
      name,
    ]);
  });
  return pairs.join(random.of(['; ', '; ', ';', ';;', ' ; ', ', ']));
}

/** A value as JSON text may spell it: `__proto__` is an own property of what is read. */
export function jsonText(random: Random, depth = 0): string {
  const kind = depth > 4 ? random.below(4) : random.below(8);
  if (kind === 0)
    return random.of(['null', 'true', '0', '-0', '1e400', '1e-400', '123456789012345678901234567890', '""']);
  if (kind < 4) return JSON.stringify(random.chance(0.7) ? random.of(JUNK) : random.unicode(random.below(20)));
  if (kind === 4) return `[${random.list(random.below(4), () => jsonText(random, depth + 1)).join()}]`;
  const names = ['__proto__', 'constructor', 'prototype', ...PATHS];
  return `{${random.list(random.below(5), () => `${JSON.stringify(random.of(names))}:${jsonText(random, depth + 1)}`).join()}}`;
}

/** What a parser may make of the parameter with the key, and that opens none of the visits; text mostly. */
export function parameterValue(random: Random, keys: readonly string[]): unknown {
  const text = keyText(random, keys);
  switch (random.below(8)) {
    case 0:
      return [random.of(keys), random.of([random.of(keys), text])].slice(random.below(2));
    case 1:
      return { [random.of(['0', 'key', 'toString', 'length'])]: random.of(keys) };
    case 2:
      return JSON.parse(jsonText(random)) as unknown;
    case 3:
      return random.of([
        null,
        undefined,
        0,
        true,
        Number.NaN,
        1n,
        Buffer.from(random.of(keys)),
        { toString: () => random.of(keys) },
      ]);
    default:
      return text;
  }
}

export interface HostileParameters {
  readonly values: unknown;
  /** What has to be left of them. */
  readonly rest: unknown;
}

/** Query or body as a parser would give it, with and without our parameter. */
export function parameters(random: Random, keys: readonly string[]): HostileParameters {
  if (random.chance(0.1)) {
    const values = random.of([
      undefined,
      null,
      '',
      'visit_key',
      5,
      Buffer.from('visit_key'),
      [random.of(keys)],
      Object.create({ visit_key: random.of(keys) }),
    ]);
    return { values, rest: values };
  }
  const others = JSON.parse(
    `{${random.list(random.below(4), () => `"${random.of(['__proto__', 'constructor', 'a', 'visit_key_', '0'])}":${jsonText(random, 2)}`).join()}}`,
  ) as object;
  const entries = Object.entries(others);
  const withOurs = random.chance(0.8)
    ? random.shuffled([...entries, ['visit_key', parameterValue(random, keys)] as const])
    : entries;
  const values = Object.fromEntries(withOurs);
  const isBare = random.chance(0.5);
  const rest = Object.fromEntries(withOurs.filter(([name]) => name !== 'visit_key'));
  return { values: isBare ? Object.create(null, Object.getOwnPropertyDescriptors(values)) : values, rest };
}

const HEADERS = [
  'user-agent',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'forwarded',
  'host',
  'referer',
  'origin',
  'accept',
  'x-real-ip',
  '__proto__',
  'constructor',
];

/** An address as a proxy, or a liar, tells it. */
export function addressText(random: Random): string {
  return random.of([
    '127.0.0.1',
    '::1',
    '::ffff:1.2.3.4',
    '::ffff:1.2.3.4.5',
    '::FFFF:999.1.1.1',
    'fe80::1%eth0',
    `fe80::1%${random.latin1(100)}`,
    '1:2:3:4:5:6:7:8',
    '1:2:3:4:5:6:7::',
    '1:2:3:4:5:6:7::8',
    '::1:2:3:4:5:6:7:8',
    ':'.repeat(random.below(60)),
    '1.'.repeat(random.below(60)),
    `::ffff:${'1'.repeat(random.below(300))}`,
    '1:2:3:4:5::1.2.3.4',
    'unknown',
    random.latin1(random.length()),
    '',
  ]);
}

/** Other headers than the cookie. */
export function otherHeaders(random: Random): Record<string, string> {
  const value = (name: string): string =>
    name === 'x-forwarded-for' || name === 'x-real-ip'
      ? random.list(1 + random.below(4), () => addressText(random)).join(', ')
      : random.chance(0.5)
        ? random.of(JUNK)
        : random.latin1(random.length());
  return Object.fromEntries(random.list(random.below(5), () => random.of(HEADERS)).map((name) => [name, value(name)]));
}
