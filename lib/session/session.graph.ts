import { types } from 'node:util';
import { SessionDataError } from '../errors/visit.error.js';
import { reasonOf } from '../errors/failure.js';

/*
 * A session entry that is more than plain JSON data is written as a list of nodes, the entry itself first:
 *
 *   node      {"key": value, …} for an object, else [tag, …]: ["Array", value, …], ["Set", value, …],
 *             ["Map", key, value, …], ["Date", milliseconds or null], ["Buffer", base64], likewise ArrayBuffer, DataView
 *             and the typed arrays, whose bytes are in the order of the machine (little-endian wherever it matters)
 *   value     a JSON string, number, boolean or null as it is, [3] for node 3, or a constant
 *   constant  ["undefined"], ["NaN"], ["Infinity"], ["-Infinity"], ["-0"], ["BigInt", "12"]; may also stand as a node
 *
 * Both ways are loops over that list, so no nesting is too deep.
 */

const CONSTANTS = new Map<unknown, undefined | number>([
  ['undefined', undefined],
  ['NaN', Number.NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
  ['-0', -0],
]);

// A map, so that a tag such as "constructor" finds nothing.
const BINARY = new Map<unknown, (bytes: ArrayBuffer) => unknown>([
  ['Buffer', (bytes) => Buffer.from(bytes)],
  ['ArrayBuffer', (bytes) => bytes],
  ['DataView', (bytes) => new DataView(bytes)],
  ['Int8Array', (bytes) => new Int8Array(bytes)],
  ['Uint8Array', (bytes) => new Uint8Array(bytes)],
  ['Uint8ClampedArray', (bytes) => new Uint8ClampedArray(bytes)],
  ['Int16Array', (bytes) => new Int16Array(bytes)],
  ['Uint16Array', (bytes) => new Uint16Array(bytes)],
  ['Int32Array', (bytes) => new Int32Array(bytes)],
  ['Uint32Array', (bytes) => new Uint32Array(bytes)],
  ['Float32Array', (bytes) => new Float32Array(bytes)],
  ['Float64Array', (bytes) => new Float64Array(bytes)],
  ['BigInt64Array', (bytes) => new BigInt64Array(bytes)],
  ['BigUint64Array', (bytes) => new BigUint64Array(bytes)],
]);

const REMEDIES = new Map([
  ['Error', 'keep its message or its code instead'],
  ['Promise', 'await it first'],
  ['RegExp', 'keep its source as a string instead'],
  ['URL', 'keep it as a string instead (its href)'],
]);

/**
 * What happens to instances of classes: their own enumerable properties are stored as a plain object, or they are
 * refused.
 */
export type Instances = 'plain' | 'refuse';

/**
 * The maximum number of holes in an array. A hole is written as undefined, so a few assignments such as `list[4e9] = 1`
 * could create billions of values.
 */
const MOST_HOLES = 100_000;

/** A step from a value to a nested value: a key, a position, or an element of a Map or Set. */
type Step = string | number | { readonly call: string };

/**
 * Converts one entry of the session to nodes.
 *
 * @throws SessionDataError with code SESSION_VALUE and the path of a value that cannot be stored
 */
export function flatten(key: string, value: unknown, instances: Instances): unknown[] {
  return new GraphWriter(key, instances).write(value);
}

class GraphWriter {
  private readonly found: object[] = [];
  private readonly indexes = new Map<object, number>();
  private readonly origins: { readonly parent: number; readonly step: Step }[] = [];

  constructor(
    private readonly key: string,
    private readonly instances: Instances,
  ) {}

  write(root: unknown): unknown[] {
    const nodes: unknown[] = [];
    const first = this.value(root, -1, this.key);
    if (this.found.length === 0) return [first];
    for (let index = 0; index < this.found.length; index++) nodes.push(this.node(this.found[index]!, index));
    return nodes;
  }

  private value(value: unknown, parent: number, step: Step): unknown {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return value;
      case 'number':
        if (Object.is(value, -0)) return ['-0'];
        return Number.isFinite(value) ? value : [String(value)];
      case 'bigint':
        return ['BigInt', String(value)];
      case 'undefined':
        return ['undefined'];
      case 'object':
        return value === null ? null : this.reference(value, parent, step);
      case 'function':
        return this.refuse(parent, step, 'a function', 'keep the data it works on instead');
      default:
        return this.refuse(parent, step, 'a symbol', 'keep a string instead');
    }
  }

  private reference(value: object, parent: number, step: Step): [number] {
    let index = this.indexes.get(value);
    if (index === undefined) {
      index = this.found.push(value) - 1;
      this.indexes.set(value, index);
      this.origins.push({ parent, step });
    }
    return [index];
  }

  private node(value: object, index: number): unknown {
    try {
      // By brand and constructor name instead of instanceof: values made in another realm, as under Jest, are as good.
      const name = constructorName(value);
      if (Array.isArray(value) && name === 'Array') return this.array(value, index);
      if (name === 'Object' && isDictionary(value)) return this.dictionary(value as Record<string, unknown>, index);
      if (types.isMap(value) && name === 'Map') return this.map(value, index);
      if (types.isSet(value) && name === 'Set') return this.set(value, index);
      if (types.isDate(value) && name === 'Date')
        return ['Date', Number.isNaN(value.getTime()) ? null : value.getTime()];
      if (BINARY.has(name)) {
        if (ArrayBuffer.isView(value))
          return [name, Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')];
        if (types.isArrayBuffer(value)) return [name, Buffer.from(value).toString('base64')];
      }
      if (this.instances === 'plain' && isRecord(value))
        return this.dictionary(value as Record<string, unknown>, index);
      const { parent, step } = this.origins[index]!;
      const remedy =
        REMEDIES.get(types.isNativeError(value) ? 'Error' : name) ??
        (hasToJson(value) ? 'keep what its toJSON() gives' : undefined);
      return this.refuse(
        parent,
        step,
        `an instance of ${name}`,
        remedy ?? 'keep a plain object with what you need of it, or an id that leads to it',
      );
    } catch (error) {
      if (error instanceof SessionDataError) throw error;
      const { parent, step } = this.origins[index]!;
      return this.unread(parent, step, error);
    }
  }

  private array(values: readonly unknown[], index: number): unknown[] {
    const node: unknown[] = ['Array'];
    let holes = 0;
    for (let position = 0; position < values.length; position++) {
      if (!(position in values) && ++holes > MOST_HOLES) {
        const { parent, step } = this.origins[index]!;
        this.refuse(
          parent,
          step,
          `an array of length ${values.length} that is mostly holes`,
          'use a Map or an object instead',
        );
      }
      node.push(this.value(values[position], index, position));
    }
    return node;
  }

  private dictionary(values: Record<string, unknown>, index: number): object {
    // fromEntries defines properties and never assigns them: "__proto__" becomes a key like any other.
    return Object.fromEntries(
      Object.keys(values).map((key) => [key, this.value(this.read(values, key, index), index, key)]),
    );
  }

  private read(values: Record<string, unknown>, key: string, index: number): unknown {
    try {
      return values[key];
    } catch (error) {
      return this.unread(index, key, error);
    }
  }

  private map(values: ReadonlyMap<unknown, unknown>, index: number): unknown[] {
    const node: unknown[] = ['Map'];
    let position = 0;
    for (const [key, value] of values) {
      const call =
        typeof key === 'string' || typeof key === 'number' ? `.get(${JSON.stringify(key)})` : `.values()[${position}]`;
      node.push(this.value(key, index, { call: `.keys()[${position}]` }), this.value(value, index, { call }));
      position++;
    }
    return node;
  }

  private set(values: ReadonlySet<unknown>, index: number): unknown[] {
    const node: unknown[] = ['Set'];
    let position = 0;
    for (const value of values) node.push(this.value(value, index, { call: `.values()[${position++}]` }));
    return node;
  }

  private refuse(parent: number, step: Step, what: string, remedy: string): never {
    const path = this.path(parent, step);
    throw new SessionDataError('SESSION_VALUE', `the session cannot store ${path}, which is ${what}; ${remedy}`, path);
  }

  private unread(parent: number, step: Step, cause: unknown): never {
    const path = this.path(parent, step);
    throw new SessionDataError(
      'SESSION_VALUE',
      `the session cannot store ${path}, because reading it failed: ${reasonOf(cause)}`,
      path,
      { cause },
    );
  }

  private path(parent: number, step: Step): string {
    const parts = [stepText(step)];
    for (let at = parent; at >= 0; at = this.origins[at]!.parent) parts.push(stepText(this.origins[at]!.step));
    const path = parts.toReversed().join('').replace(/^\./, '');
    return path.length > 300 ? `${path.slice(0, 200)} … ${path.slice(-80)}` : path;
  }
}

function stepText(step: Step): string {
  if (typeof step === 'object') return step.call;
  if (typeof step === 'number') return `[${step}]`;
  return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
}

function constructorName(value: object): string {
  const prototype = Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null;
  if (prototype === null) return 'Object';
  const name = prototype.constructor?.name;
  return typeof name === 'string' && name !== '' ? name : 'a class without a name';
}

const hasToJson = (value: object): boolean => typeof (value as { toJSON?: unknown }).toJSON === 'function';

/**
 * Whether the own enumerable properties of an instance are its data. This is so for entities and validated bodies, but
 * not for instances of built-in classes or their subclasses (an error, a list, a promise, a URL), nor for objects with
 * `toJSON`.
 */
export function isRecord(value: object): boolean {
  return !hasToJson(value) && Object.prototype.toString.call(value) === '[object Object]';
}

function isDictionary(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * Restores the value that `flatten` wrote.
 *
 * @throws SessionDataError with code SESSION_UNREADABLE for anything else
 */
export function unflatten(nodes: unknown, key: string): unknown {
  if (!Array.isArray(nodes) || nodes.length === 0) throw unreadable('an entry has no nodes', key);

  const values = nodes.map((node: unknown) => {
    // An object becomes the value itself: what it holds is put in place below.
    if (typeof node === 'object' && node !== null && !Array.isArray(node)) return node;
    const [tag, content] = (Array.isArray(node) ? node : []) as unknown[];
    if (tag === 'Array') return [];
    if (tag === 'Map') return new Map<unknown, unknown>();
    if (tag === 'Set') return new Set<unknown>();
    if (tag === 'Date' && (typeof content === 'number' || content === null)) return new Date(content ?? Number.NaN);
    const binary = BINARY.get(tag);
    if (binary && typeof content === 'string') return binary(new Uint8Array(Buffer.from(content, 'base64')).buffer);
    return constant(tag, content, key);
  });

  const resolve = (value: unknown): unknown => {
    if (!Array.isArray(value)) {
      if (value === undefined || (typeof value === 'object' && value !== null))
        throw unreadable('a value has no known form', key);
      return value;
    }
    const [tag, content] = value as unknown[];
    if (typeof tag !== 'number') return constant(tag, content, key);
    if (!Object.hasOwn(values, tag)) throw unreadable('a node is missing', key);
    return values[tag];
  };

  for (const [index, node] of nodes.entries()) {
    const value: unknown = values[index];
    if (value === node) {
      const object = value as Record<string, unknown>;
      // The key is there already, as JSON.parse has defined it, so that even "__proto__" is only written.
      for (const name of Object.keys(object)) object[name] = resolve(object[name]);
      continue;
    }
    const content = node as unknown[];
    if (content[0] === 'Array')
      for (let at = 1; at < content.length; at++) (value as unknown[]).push(resolve(content[at]));
    if (content[0] === 'Map')
      for (let at = 1; at < content.length; at += 2)
        (value as Map<unknown, unknown>).set(resolve(content[at]), resolve(content[at + 1]));
    if (content[0] === 'Set')
      for (let at = 1; at < content.length; at++) (value as Set<unknown>).add(resolve(content[at]));
  }
  return values[0];
}

function constant(tag: unknown, content: unknown, key: string): unknown {
  if (CONSTANTS.has(tag)) return CONSTANTS.get(tag);
  if (tag === 'BigInt' && typeof content === 'string' && /^-?\d+$/.test(content)) return BigInt(content);
  throw unreadable('a value has no known form', key);
}

/** The error for data that cannot be read. */
export function unreadable(reason: string, path?: string): SessionDataError {
  return new SessionDataError('SESSION_UNREADABLE', `session data cannot be read: ${reason}`, path);
}
