import { connect } from 'node:net';
import { PATIENCE } from '../support/patience.js';
import { forgedKey, jsonText, keyText, otherHeaders, parameterValue, wrongSecret } from './hostile.js';
import type { Random } from './random.js';

export interface WireAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** Sends bytes as they are: HTTP clients refuse to send most of what is hostile. */
export function send(port: number, request: Buffer): Promise<WireAnswer> {
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    socket.setTimeout(PATIENCE, () => socket.destroy(new Error('no answer')));
    socket.on('data', (bytes) => void received.push(bytes));
    socket.on('error', reject);
    socket.on('close', () => {
      const text = Buffer.concat(received).toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      resolve({
        status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1]),
        head: text.slice(0, end),
        body: text.slice(end + 4),
      });
    });
  });
}

/** Every byte as an escape, so that what a parser makes of it is the text. */
const escaped = (text: string): string =>
  [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
const encode = (text: string): string => text.replace(/[^A-Za-z0-9_-]+/gu, escaped);

const PIECES = [
  '%',
  '%zz',
  '%c0%ae',
  '&&&',
  '=',
  '[',
  ']]',
  '[[[[[[',
  '%00=%00',
  '+',
  '__proto__',
  'a'.repeat(3000),
  'visit_key',
  'visit_key[',
  'visit_key]',
  '\u00ff\u0080',
  '#',
  '?visit_key=x',
];
const OTHERS = [
  '__proto__[polluted]',
  'constructor[prototype][polluted]',
  '__proto__.polluted',
  'a[__proto__][polluted]',
  'a[constructor][prototype][polluted]',
  'a[]',
  'a',
  'visit_key_',
];

function pairs(random: Random, keys: readonly string[]): string {
  const text = () => encode(keyText(random, keys));
  const genuine = encode(random.of(keys));
  // Each of them by itself: `visit_key[0]=…` after `visit_key=…` would be another parameter to some parsers.
  const ours = random.of([
    () => `visit_key=${text()}`,
    () => `visit_key=${text()}`,
    () => `visit_key=${genuine}&visit_key=${random.of([text(), genuine])}`,
    () => `visit_key=${text()}&visit_key=${genuine}`,
    () => `visit_key[]=${genuine}`,
    () => `visit_key[0]=${genuine}&visit_key[1]=${text()}`,
    () =>
      `visit_key[__proto__][x]=polluted&visit_key[${random.of(['length', 'toString', 'constructor', '__proto__'])}]=${genuine}`,
    () => `visit_key${'[a]'.repeat(random.below(60))}[b]=${genuine}`,
    () => `visit_key%00=${genuine}`,
    () => `Tg_visit=${genuine}`,
  ])();
  const others = random.list(random.below(4), () => `${random.of(OTHERS)}=${text()}`);
  const junk = random.list(random.below(3), () => random.of(PIECES));
  return random.shuffled([ours, ...others, ...junk]).join('&');
}

function json(random: Random, keys: readonly string[]): string {
  const ours =
    JSON.stringify(parameterValue(random, keys), (_, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value,
    ) ?? 'null';
  return random.of([
    () => `{"visit_key":${ours}}`,
    () => `{"a":${jsonText(random)},"visit_key":${ours}}`,
    () => `{"visit_key":${JSON.stringify(random.of(keys))},"visit_key":${ours}}`,
    () => `{"__proto__":{"visit_key":${JSON.stringify(random.of(keys))},"polluted":1},"visit_key":${ours}}`,
    () => `{"constructor":{"prototype":{"polluted":1}},"visit_key":${ours}}`,
    () => `[${JSON.stringify(random.of(keys))}]`,
    () => JSON.stringify(random.of(keys)),
    () => `{"visit_key":${ours}`,
    () => '['.repeat(random.below(2000)),
    () => `{"a":${'['.repeat(500)}${']'.repeat(500)},"visit_key":${ours}}`,
  ])();
}

/** Field values that Node's parser takes; a few that it does not. */
const field = (random: Random, value: string): string =>
  random.chance(0.01) ? value : value.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?');

/** A request, as bytes, that opens none of the visits. With `presents` it carries a key that is nobody's. */
export function hostileRequest(
  random: Random,
  keys: readonly string[],
  { presents, path, cookie }: { presents: boolean; path: string; cookie: string | undefined },
): Buffer {
  const hasBody = random.chance(0.5);
  const headers = Object.entries(otherHeaders(random)).filter(([name]) => name !== 'host');
  const lines = headers.map(([name, value]) => `${name}: ${field(random, value)}`);
  lines.unshift(
    'Host: ' +
      (random.chance(0.8)
        ? 'localhost'
        : field(random, random.of(['', '[', 'a:b:c', 'localhost:99999', '__proto__', random.latin1(50)]))),
    'Connection: close',
  );
  if (presents) lines.push(`Cookie: visit=${random.chance(0.5) ? forgedKey(random) : wrongSecret(random, keys)}`);
  if (cookie !== undefined) lines.push(`${random.of(['Cookie', 'cookie', 'COOKIE'])}: ${field(random, cookie)}`);
  let body = Buffer.alloc(0);
  if (hasBody) {
    const [type, text] = random.of<() => [string, string]>([
      () => ['application/x-www-form-urlencoded', pairs(random, keys)],
      () => ['application/x-www-form-urlencoded; charset=iso-8859-1', pairs(random, keys)],
      () => ['application/json', json(random, keys)],
      () => ['application/json; charset=utf-16', json(random, keys)],
      () => [
        random.of(['text/plain', 'multipart/form-data; boundary=x', 'application/xml', '__proto__', '']),
        json(random, keys),
      ],
    ])();
    body = Buffer.from(text, random.chance(0.8) ? 'utf8' : 'latin1');
    lines.push(`Content-Type: ${type}`, `Content-Length: ${body.length}`);
  }
  const query = random.chance(0.7) ? `?${pairs(random, keys).replace(/[ #]/g, '')}` : '';
  return Buffer.concat([
    Buffer.from(`${hasBody ? 'POST' : 'GET'} ${path}${query} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`, 'latin1'),
    body,
  ]);
}
