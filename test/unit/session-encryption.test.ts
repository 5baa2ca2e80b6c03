import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { SessionDataError } from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { parseEncryption, type PlainData } from '../../lib/options/encryption.js';
import { DefaultSessionSerializer } from '../../lib/session/session.codec.js';
import { SessionEncryption } from '../../lib/session/session.encryption.js';

const VISIT = '0123456789abcdef0123456789abcdef';
const plain = Buffer.from('\u0001[{"name":"Ada"}]');
const [first, second] = [randomBytes(32), randomBytes(32)];

const encryption = (keys: readonly unknown[] = [first], plainData: PlainData = 'refuse'): SessionEncryption =>
  new SessionEncryption(parseEncryption({ keys, plain: plainData }));

const encrypt = (keys?: readonly unknown[], data: Uint8Array = plain): Buffer =>
  Buffer.from(encryption(keys).encrypt(data, VISIT));

function expectUnreadable(bytes: Uint8Array, reason: string | RegExp, keys?: readonly unknown[], visit = VISIT): void {
  let error: unknown;
  try {
    encryption(keys).decrypt(bytes, visit);
  } catch (thrown) {
    error = thrown;
  }
  expect(error, Buffer.from(bytes).toString('hex')).toBeInstanceOf(SessionDataError);
  expect(error).toMatchObject({ code: 'SESSION_UNREADABLE', message: expect.stringMatching(reason) as string });
}

function changedAt(bytes: Uint8Array, index: number, mask: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[index]! ^= mask;
  return changed;
}

describe('Encrypted session data', () => {
  test.each([0, 1, 15, 16, 17, 70_000])(
    'R55: %i bytes survive a round trip, and are 33 bytes longer when stored',
    (length) => {
      const data = randomBytes(length);
      const stored = encrypt([first], data);
      expect(stored).toHaveLength(length + 33);
      expect(Buffer.from(encryption().decrypt(stored, VISIT))).toEqual(data);
      if (length > 8) expect(stored.includes(data.subarray(0, 8))).toBe(false);
    },
  );

  test('R55: the same data never gives the same bytes', () => {
    const all = Array.from({ length: 1000 }, () => encrypt());
    expect(new Set(all.map((one) => one.subarray(5, 17).toString('hex'))).size).toBe(1000);
    expect(new Set(all.map((one) => one.subarray(17).toString('hex'))).size).toBe(1000);
  });

  test('R55: data of the first release can still be read', () => {
    const keys = ['000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'];
    const stored = Buffer.from(
      'c16b01ca40a0a1a2a3a4a5a6a7a8a9aaabe743070f2baa6fda405fa592631be2a32d8909f064df0719fea46445f4cf33f6bc',
      'hex',
    );
    expect(Buffer.from(encryption(keys).decrypt(stored, VISIT))).toEqual(plain);
    expect(encrypt(keys).subarray(0, 5)).toEqual(stored.subarray(0, 5));
  });

  test('R55: begins with a byte that no format of the library begins with', () => {
    for (const data of [new Map(), new Map([['a', 1]]), new Map([['a', new Date(0)]])]) {
      expect(new DefaultSessionSerializer().encode(data)[0]).not.toBe(encrypt()[0]);
    }
    expect(() => new TextDecoder('utf-8', { fatal: true }).decode(encrypt().subarray(0, 1))).toThrow(TypeError);
  });

  test('R55: is unreadable if any bit is flipped', () => {
    const stored = encrypt();
    for (let at = 0; at < stored.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const reason = at === 0 ? /not encrypted/ : at < 5 ? /not in option/ : /was changed/;
        expectUnreadable(changedAt(stored, at, 1 << bit), reason);
      }
    }
  });

  test('R55: is unreadable if it is shorter or longer', () => {
    const stored = encrypt();
    for (let length = 0; length < stored.length; length++)
      expectUnreadable(stored.subarray(0, length), /not encrypted|too short|changed/);
    expectUnreadable(Buffer.concat([stored, Buffer.of(0)]), /was changed/);
  });

  test('R55: is unreadable in another visit', () => {
    expectUnreadable(encrypt(), /belongs to another visit/, [first], `${VISIT.slice(0, -1)}0`);
  });

  test('R55: the first key encrypts, and all decrypt; without its key the data is unreadable', () => {
    const old = encrypt([first]);
    expect(Buffer.from(encryption([second, first]).decrypt(old, VISIT))).toEqual(plain);
    const fresh = encrypt([second, first]);
    expect(Buffer.from(encryption([second]).decrypt(fresh, VISIT))).toEqual(plain);
    expectUnreadable(fresh, /not in option/, [first]);
    expectUnreadable(old, /not in option/, [second]);
  });

  test('R55: is unreadable under the name of another known key', () => {
    const named = Buffer.concat([encrypt([second]).subarray(0, 5), encrypt([first]).subarray(5)]);
    expectUnreadable(named, /was changed/, [first, second]);
  });

  test('R55: plain data is read only if the option allows it, and is never written', () => {
    expectUnreadable(plain, /not encrypted[^]*plain/);
    const accepting = encryption([first], 'read');
    expect(accepting.decrypt(plain, VISIT)).toEqual(plain);
    expect(Buffer.from(encryption().decrypt(accepting.encrypt(plain, VISIT), VISIT))).toEqual(plain);
    expect(() => accepting.decrypt(changedAt(encrypt(), 20, 1), VISIT)).toThrow(/was changed/);
  });

  test('R55, B85: plain data is written if the option says so, and both kinds are read then', () => {
    const preparing = encryption([first], 'write');
    expect(preparing.encrypt(plain, VISIT)).toEqual(plain);
    for (const bytes of [plain, encrypt()]) expect(Buffer.from(preparing.decrypt(bytes, VISIT))).toEqual(plain);
    expect(() => preparing.decrypt(encrypt([second]), VISIT)).toThrow(/not in option/);
  });
});

describe('A key', () => {
  test.each<[string, unknown]>([
    ['a Buffer', first],
    ['a Uint8Array', new Uint8Array(first)],
    ['hexadecimal digits', first.toString('hex')],
    ['hexadecimal digits in capitals', first.toString('hex').toUpperCase()],
    ['base64', first.toString('base64')],
    ['base64url', first.toString('base64url')],
    ['the output of a command, with a line break', `${first.toString('base64')}\n`],
  ])('R55: may be %s', (_, key) => {
    expect(Buffer.from(encryption([key]).decrypt(encrypt([first]), VISIT))).toEqual(plain);
  });

  test('R55: does not change with the Buffer that it was given as', () => {
    const given = Buffer.from(first);
    const own = encryption([given]);
    given.fill(0);
    expect(Buffer.from(own.decrypt(encrypt([first]), VISIT))).toEqual(plain);
  });

  test('R55: is not shown when the options are printed', () => {
    const resolved = parseEncryption({ keys: [first.toString('base64')] });
    for (const shown of [inspect(resolved, { depth: 9, showHidden: true }), JSON.stringify(resolved)]) {
      for (const form of ['hex', 'base64', 'base64url'] as const)
        expect(shown.toLowerCase()).not.toContain(first.toString(form).toLowerCase());
      expect(shown).not.toContain([...first].slice(0, 4).join(','));
    }
  });
});
