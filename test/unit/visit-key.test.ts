import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { VISIT_KEY_LENGTH, VisitKey } from '../../lib/key/visit-key.js';

describe('A key', () => {
  test('R8, ASVS 7.2.2, 7.2.3: has a public id of 128 bits and a secret of 256 bits, both new each time', () => {
    const keys = Array.from({ length: 1000 }, () => VisitKey.create());
    for (const key of keys) expect(key.text).toMatch(/^[0-9a-f]{32}\.[\w-]{43}$/);
    expect(new Set(keys.map(({ id }) => id)).size).toBe(1000);
    expect(new Set(keys.map(({ hash }) => hash)).size).toBe(1000);
    expect(keys[0]!.text).toHaveLength(VISIT_KEY_LENGTH);
  });

  test('survives a round trip, and keeps its id when it is renewed', () => {
    const key = VisitKey.create();
    const parsed = VisitKey.parse(key.text)!;
    expect(parsed.text).toBe(key.text);
    expect(parsed.matches(key.hash)).toBe(true);
    const renewed = VisitKey.create(key.id);
    expect(renewed.id).toBe(key.id);
    expect(renewed.matches(key.hash)).toBe(false);
  });

  test.each([
    undefined,
    null,
    5,
    {},
    [],
    '',
    ' ',
    'x'.repeat(76),
    `${'a'.repeat(32)}-${'b'.repeat(43)}`,
    `${'A'.repeat(32)}.${'b'.repeat(43)}`,
    `${'a'.repeat(32)}.${'b'.repeat(42)}\n`,
  ])('R9: %j is not a key', (text) => {
    expect(VisitKey.parse(text)).toBeNull();
  });

  test('a malformed hash does not match, and does not throw', () => {
    for (const hash of [null, '', 'x', 'é'.repeat(64)]) expect(VisitKey.create().matches(hash)).toBe(false);
  });

  test('R77: shows its id and never its secret', () => {
    const key = VisitKey.create();
    for (const shown of [
      String(key),
      JSON.stringify({ key }),
      inspect({ key }),
      inspect(key, { showHidden: true, depth: 5 }),
    ]) {
      expect(shown).toContain(key.id);
      expect(shown).not.toContain(key.text.slice(33));
    }
  });
});
