import { createSecretKey, type KeyObject } from 'node:crypto';
import { types } from 'node:util';
import { InvalidOption } from './invalid-option.js';

/** 32 random bytes, or the same as text: 64 hexadecimal digits, base64 or base64url. */
export type EncryptionKey = Uint8Array | string;

/**
 * What happens to data that is not encrypted. `refuse`: it is unreadable. `read`: it is read, and new data is
 * encrypted. `write`: new data is written without encryption, and encrypted data is read too.
 */
export type PlainData = 'refuse' | 'read' | 'write';

const PLAIN_DATA: readonly unknown[] = ['refuse', 'read', 'write'] satisfies PlainData[];

/** The option `session.encryption` after validation. The keys are objects that show nothing when they are logged. */
export interface ResolvedEncryption {
  readonly keys: readonly KeyObject[];
  readonly plain: PlainData;
}

const KEY_BYTES = 32;
const HEXADECIMAL = /^[0-9a-f]{64}$/i;
const BASE64 = /^(?:[A-Za-z0-9+/]{43}|[A-Za-z0-9_-]{43})=?$/;

/**
 * Validates the option. Errors name the position and type of a wrong value, but never show it, because it may contain a
 * key.
 *
 * @throws InvalidOption
 */
export function parseEncryption(value: unknown): ResolvedEncryption {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || types.isUint8Array(value)) {
    throw new InvalidOption('an object such as { keys: [key] }', kindOf(value));
  }
  const { keys, plain = 'refuse', ...others } = value as Record<string, unknown>;
  const [other] = Object.keys(others);
  // A name as short as this is not a key.
  if (other !== undefined)
    throw new InvalidOption('an object with keys and plain', /^\w{1,20}$/.test(other) ? `"${other}"` : 'another name');
  if (!PLAIN_DATA.includes(plain)) {
    throw new InvalidOption('an object whose plain is "refuse", "read" or "write"', `${kindOf(plain)} for plain`);
  }
  return { keys: parseKeys(keys, 'keys', 'an object'), plain: plain as PlainData };
}

/**
 * Validates a list of keys, and never shows one.
 *
 * @param name the name of the list, for errors
 * @param owner what contains the list, for errors
 * @throws InvalidOption
 */
export function parseKeys(keys: unknown, name: string, owner: string): readonly KeyObject[] {
  if (!Array.isArray(keys) || keys.length === 0)
    throw new InvalidOption(`${owner} with a list of ${name}`, `${kindOf(keys)} for ${name}`);
  const parsed = keys.map((key: unknown, index) => {
    const bytes = bytesOf(key);
    if (bytes?.length === KEY_BYTES) return createSecretKey(bytes);
    throw new InvalidOption(
      `${owner} whose ${name} are ${KEY_BYTES} bytes each: a Buffer, 64 hexadecimal digits, or base64 (openssl ` +
        `rand -base64 ${KEY_BYTES})`,
      `${kindOf(key)} for ${name}[${index}]`,
    );
  });
  for (const [index, key] of parsed.entries()) {
    const first = parsed.findIndex((one) => one.equals(key));
    if (first !== index)
      throw new InvalidOption(
        `${owner} with different ${name}`,
        `the same for ${name}[${first}] and ${name}[${index}]`,
      );
  }
  return parsed;
}

function bytesOf(key: unknown): Uint8Array | undefined {
  if (types.isUint8Array(key)) return key;
  if (typeof key !== 'string') return undefined;
  // A key that is read from a file ends with a line break.
  const text = key.trim();
  if (HEXADECIMAL.test(text)) return Buffer.from(text, 'hex');
  return BASE64.test(text) ? Buffer.from(text, 'base64') : undefined;
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return value === '' ? 'an empty string' : `a string of ${value.length} characters`;
  if (types.isUint8Array(value)) return `${value.length} bytes`;
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
