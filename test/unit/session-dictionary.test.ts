import { describe, expect, test, vi } from 'vitest';
import { applyChanges } from '../../lib/session/session.changes.js';
import { DefaultSessionSerializer } from '../../lib/session/session.codec.js';
import { SessionDictionary } from '../../lib/session/session.dictionary.js';

const dictionary = (data: Record<string, unknown> = {}) => {
  const stored = () => structuredClone(new Map(Object.entries(data)));
  const load = vi.fn<typeof stored>(stored);
  const session = new SessionDictionary(new DefaultSessionSerializer(), load);
  /** What a save on top of `current` would store. */
  const savedOn = (current: Record<string, unknown>): Record<string, unknown> | null => {
    const changes = session.changes();
    return changes && Object.fromEntries(applyChanges(new Map(Object.entries(current)), changes));
  };
  return { session, load, savedOn };
};

describe('The dictionary', () => {
  test('R46: decodes only when it is used, and only once', () => {
    const { session, load } = dictionary({ a: 1 });
    expect(session.changes()).toBeNull();
    expect(load).not.toHaveBeenCalled();
    session.get('a');
    session.get('b');
    expect(load).toHaveBeenCalledTimes(1);
  });

  test('R50: reading is no change', () => {
    const { session } = dictionary({ a: 1, list: [1], date: new Date(0), map: new Map([[1, 2]]) });
    for (const key of session.keys()) session.get(key);
    session.has('a');
    expect(session.changes()).toBeNull();
  });

  test('setting the same value again, or setting and reverting, is no change', () => {
    const { session } = dictionary({ a: 1, list: [1] });
    session.set('a', 1);
    session.set('list', [1]);
    session.set('new', 1);
    session.delete('new');
    expect(session.changes()).toBeNull();
  });

  test.each<[string, (value: never) => void]>([
    ['an array', (list: number[]) => list.push(2)],
    ['a map in it', (list: [Map<string, number>]) => list[0].set('x', 1)],
    ['a date', (date: Date) => date.setTime(5)],
    ['a buffer', (buffer: Buffer) => (buffer[0] = 9)],
  ])('B11: a change within %s is detected', (what, change) => {
    const values: Record<string, unknown> = {
      'an array': [1],
      'a map in it': [new Map()],
      'a date': new Date(0),
      'a buffer': Buffer.from('abc'),
    };
    const { session } = dictionary({ value: values[what] });
    change(session.get('value') as never);
    expect([...session.changes()!.written.keys()]).toEqual(['value']);
  });

  test('R51: changes are replayed on the data that other requests have stored in the meantime', () => {
    const { session, savedOn } = dictionary({ a: 1, b: 1, c: { n: 1 }, d: 1 });
    session.set('a', 2);
    session.delete('b');
    (session.get('c') as { n: number }).n = 2;
    expect(savedOn({ a: 5, b: 5, c: { n: 5 }, d: 5, e: 5 })).toEqual({ a: 2, c: { n: 2 }, d: 5, e: 5 });
  });

  test('R51: clear also removes what other requests have stored', () => {
    const { session, savedOn } = dictionary({ a: 1, b: 1 });
    session.clear();
    session.set('a', 1);
    expect(savedOn({ a: 5, b: 5, e: 5 })).toEqual({ a: 1 });
    expect(dictionary().savedOn({})).toBeNull();
  });

  test('clearing an empty session is no change', () => {
    const { session } = dictionary();
    session.clear();
    expect(session.changes()).toBeNull();
  });

  test('revert discards all unsaved changes', () => {
    const { session } = dictionary({ list: [1] });
    (session.get('list') as number[]).push(2);
    session.set('a', 1);
    session.clear();
    session.revert();
    expect(session.changes()).toBeNull();
    expect(session.get('list')).toEqual([1]);
  });

  describe('after a save', () => {
    const save = ({ session }: ReturnType<typeof dictionary>, current: Record<string, unknown>): void => {
      const changes = session.changes()!;
      session.saved(changes, applyChanges(new Map(Object.entries(current)), changes));
    };

    test('nothing is left to save, and data of other requests is visible', () => {
      const one = dictionary({ a: 1 });
      one.session.set('b', 1);
      save(one, { a: 5, c: 5 });
      expect(one.session.changes()).toBeNull();
      expect(Object.fromEntries(one.session.keys().map((key) => [key, one.session.get(key)]))).toEqual({
        a: 5,
        b: 1,
        c: 5,
      });
    });

    test('an object that was handed out is still the one that is saved', () => {
      const one = dictionary({ list: [1] });
      const list = one.session.get('list') as number[];
      one.session.set('b', 1);
      save(one, { list: [1] });
      list.push(2);
      expect(one.savedOn({})).toEqual({ list: [1, 2] });
    });

    test('a change during a save is saved by the next one', () => {
      const one = dictionary();
      const cart = { items: [1] };
      one.session.set('cart', cart);
      const changes = one.session.changes()!;
      const stored = applyChanges(new Map(), changes);
      cart.items.push(2);
      one.session.set('late', 1);
      one.session.saved(changes, stored);
      expect(one.savedOn({})).toEqual({ cart: { items: [1, 2] }, late: 1 });
    });
  });
});
