import { expect } from 'vitest';
import { replay } from './random.js';

/** What every object of the process inherits from. */
const SHARED: readonly object[] = [
  Object.prototype,
  Function.prototype,
  Array.prototype,
  String.prototype,
  Number.prototype,
  Map.prototype,
  Set.prototype,
  Date.prototype,
  Promise.prototype,
  Error.prototype,
  Uint8Array.prototype,
  Buffer.prototype,
  Object,
  Array,
];

/** A check that nothing has been added to, changed in or taken from what all objects share. */
export function watchBuiltIns(): (message?: string) => void {
  const before = SHARED.map((object) => ({
    object,
    prototype: Object.getPrototypeOf(object) as unknown,
    properties: Object.getOwnPropertyDescriptors(object) as Record<PropertyKey, PropertyDescriptor>,
  }));
  return function expectUntouched(message = replay()) {
    for (const { object, prototype, properties } of before) {
      const names = Reflect.ownKeys(object);
      expect(names, message).toEqual(Reflect.ownKeys(properties));
      expect(Object.getPrototypeOf(object), message).toBe(prototype);
      for (const name of names) {
        const now = Object.getOwnPropertyDescriptor(object, name)!;
        if (now.value !== properties[name]!.value || now.get !== properties[name]!.get)
          expect.fail(`${String(name)} was replaced; ${message}`);
      }
    }
  };
}
