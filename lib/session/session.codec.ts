import { isUtf8 } from 'node:buffer';
import { types } from 'node:util';
import { SessionDataError } from '../errors/visit.error.js';
import { flatten, isRecord, unflatten, unreadable, type Instances } from './session.graph.js';
import { reasonOf } from '../errors/failure.js';

/**
 * Converts session data to bytes and back. It must be deterministic: equal data must give equal bytes, because changes
 * are detected by comparing them.
 */
export interface SessionSerializer {
  /** Throws SessionDataError (code SESSION_VALUE) with the path of a value that cannot be stored. */
  encode(data: ReadonlyMap<string, unknown>): Uint8Array;
  /** Throws if the bytes cannot be read. */
  decode(bytes: Uint8Array): Map<string, unknown>;
}

const FORMAT = 1;

/** Deeper data goes the other way, which is a loop. */
const PLAIN_DEPTH = 200;

/**
 * The default serializer. It supports plain data, Date, Map, Set, BigInt, Buffer, ArrayBuffer, DataView and typed
 * arrays, undefined, NaN, infinities and -0, cycles, and the same object in several places of one entry, to any depth.
 *
 * Some values come back slightly different: a hole of an array as undefined, an object without a prototype as a plain
 * object, a getter as its value, a view with its own buffer. Two entries that share an object come back with one object
 * each. Symbol keys, and properties added to an array, Map, Set, Date or buffer, are not stored. An instance of a class
 * of the application comes back as a plain object with its own enumerable properties.
 *
 * Functions, symbols, objects with a `toJSON` method (which is never called), and instances of other built-in classes
 * (such as Error, RegExp and URL) are refused with the path of the value.
 *
 * Format 1 is the byte 1 followed by JSON text: `[{plain entries}]`, `[{plain entries}, {entry: nodes}]` if JSON cannot
 * represent an entry directly, and `[…, …, [keys]]` if the keys have a different order than these objects.
 */
export class DefaultSessionSerializer implements SessionSerializer {
  private readonly instances: Instances;

  /**
   * @param options `instances`: with `'refuse'`, instances of the application's classes are refused. @default 'plain'
   */
  constructor({ instances = 'plain' }: { readonly instances?: Instances } = {}) {
    this.instances = instances;
  }

  /** @throws SessionDataError with code SESSION_VALUE and the path of a value that cannot be stored */
  encode(data: ReadonlyMap<string, unknown>): Uint8Array {
    const plain: [string, unknown][] = [];
    const graphs: [string, unknown[]][] = [];
    let ordered = true;
    for (const [key, value] of data) {
      if (typeof key !== 'string')
        throw new SessionDataError(
          'SESSION_VALUE',
          `a key of the session must be a string, got ${String(key)} (${typeof key})`,
        );
      if (startsWithDigit(key)) ordered = false;
      if (isPlainEntry(value, this.instances)) {
        plain.push([key, value]);
        if (graphs.length > 0) ordered = false;
      } else {
        graphs.push([key, flatten(key, value, this.instances)]);
      }
    }
    // fromEntries defines properties and never assigns them: "__proto__" becomes a key like any other.
    const parts: unknown[] = [Object.fromEntries(plain)];
    if (graphs.length > 0) parts.push(Object.fromEntries(graphs));
    if (!ordered) addOrder(parts, [...data.keys()]);
    try {
      return Buffer.from(String.fromCharCode(FORMAT) + JSON.stringify(parts));
    } catch (error) {
      throw new SessionDataError('SESSION_VALUE', `the session cannot be written: ${reasonOf(error)}`, undefined, {
        cause: error,
      });
    }
  }

  /** @throws SessionDataError with code SESSION_UNREADABLE, whatever the bytes are */
  decode(bytes: Uint8Array): Map<string, unknown> {
    try {
      return read(bytes);
    } catch (error) {
      if (error instanceof SessionDataError) throw error;
      // Not even as a cause: what JSON.parse says quotes the data.
      throw unreadable(`it is not of this format (${reasonOf(error)})`);
    }
  }
}

/** Whether JSON represents the value exactly: no other types, and no object twice. */
function isPlainEntry(value: unknown, instances: Instances): boolean {
  if (typeof value !== 'object') return isPlain(value, undefined, 0, instances);
  try {
    return isPlain(value, new Set(), 0, instances);
  } catch {
    // A getter threw; the other way names its path.
    return false;
  }
}

function isPlain(value: unknown, seen: Set<unknown> | undefined, depth: number, instances: Instances): boolean {
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return true;
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
  if (typeof value !== 'object' || depth > PLAIN_DEPTH) return false;
  if (seen!.has(value)) return false;
  seen!.add(value);
  // JSON.stringify would call it, even an inherited one.
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (Array.isArray(value)) {
    // Not `every`, which passes over holes.
    for (let at = 0; at < value.length; at++) if (!isPlain(value[at], seen, depth + 1, instances)) return false;
    return prototype === Array.prototype;
  }
  // Written as the plain object that it comes back as: what has not changed gives the same bytes.
  if (prototype !== Object.prototype && prototype !== null && (instances === 'refuse' || !isRecord(value)))
    return false;
  for (const key of Object.keys(value))
    if (!isPlain((value as Record<string, unknown>)[key], seen, depth + 1, instances)) return false;
  return true;
}

/** Objects put keys that are whole numbers first. */
function startsWithDigit(key: string): boolean {
  const code = key.charCodeAt(0);
  return code >= 48 && code <= 57;
}

function addOrder(parts: unknown[], keys: string[]): void {
  const natural = parts.flatMap((part) => Object.keys(part as object));
  if (keys.every((key, index) => key === natural[index])) return;
  if (parts.length === 1) parts.push({});
  parts.push(keys);
}

function read(bytes: Uint8Array): Map<string, unknown> {
  if (!types.isUint8Array(bytes)) throw unreadable(`expected bytes, got ${bytes === null ? 'null' : typeof bytes}`);
  if (bytes.length === 0) throw unreadable('there are no bytes');
  // Formats of the past get their own reader here, forever.
  if (bytes[0] !== FORMAT) {
    const format = bytes[0]!.toString(16).padStart(2, '0');
    throw unreadable(
      `its format 0x${format} is unknown (expected 0x01); another serializer, a newer version, or option ` +
        '"session.encryption" may have written it',
    );
  }
  if (!isUtf8(bytes)) throw unreadable('it is not UTF-8 text');
  return readFormat1(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8', 1));
}

function readFormat1(text: string): Map<string, unknown> {
  const parts = JSON.parse(text) as unknown;
  if (!Array.isArray(parts) || parts.length > 3) throw unreadable('it is not a list of one to three parts');
  const [plain, graphs = {}, keys] = parts as unknown[];
  if (!isObject(plain) || !isObject(graphs)) throw unreadable('a part of it is not an object');
  const data = new Map(Object.entries(plain));
  const count = data.size + Object.keys(graphs).length;
  for (const key of Object.keys(graphs)) data.set(key, unflatten(graphs[key], key));
  if (data.size !== count) throw unreadable('it has an entry twice');
  return keys === undefined ? data : inOrder(data, keys);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function inOrder(data: ReadonlyMap<string, unknown>, keys: unknown): Map<string, unknown> {
  if (!Array.isArray(keys)) throw unreadable('its keys are not a list');
  const ordered = new Map<string, unknown>();
  for (const key of keys as string[]) if (data.has(key)) ordered.set(key, data.get(key));
  if (ordered.size !== data.size || keys.length !== data.size) throw unreadable('its list of keys does not fit');
  return ordered;
}
