import { describe, expect, test } from 'vitest';
import { MemoryVisitStore } from 'nest-visit';
import { VisitCookie } from '../../lib/key/visit-cookie.js';
import { VISIT_KEY_LENGTH, VisitKey } from '../../lib/key/visit-key.js';
import { resolveOptions } from '../../lib/options/resolve-options.js';

const options = {
  name: 'visit',
  path: '/',
  domain: undefined,
  secure: false,
  sameSite: 'lax',
  httpOnly: true,
  partitioned: false,
  permanent: false,
  clearSiteData: [],
  allowInsecure: false,
} as const;
const cookie = (more: object = {}): VisitCookie => new VisitCookie({ cookie: { ...options, ...more } });

describe('The cookie', () => {
  test.each([
    ['visit=a', ['a']],
    ['other=1; visit=a; visit=b', ['a', 'b']],
    ['visit="a"', ['a']],
    [' visit = a ;;=;x', ['a']],
    ['visits=a; xvisit=b; Visit=c', []],
    ['visit', []],
    ['', []],
  ])('R21: reads all values of its name from %j', (header, values) => {
    expect(cookie().read(header)).toEqual(values);
  });

  test('reads no more values than a browser would send', () => {
    expect(cookie().read(Array.from({ length: 1000 }, (_, i) => `visit=${i}`).join(';'))).toHaveLength(8);
  });

  test('names that only resemble a __Host- name are not read', () => {
    expect(cookie({ name: '__Host-visit' }).read('__host-visit=a; visit=b; __Host-Visit=c')).toEqual([]);
  });

  test('R15: SameSite is always sent, the other attributes as set', () => {
    expect(
      cookie({ domain: 'example.org', path: '/app', secure: true, sameSite: 'strict', httpOnly: false }).write(
        'k',
        null,
        0,
      ),
    ).toBe('visit=k; Domain=example.org; Path=/app; Secure; SameSite=Strict');
  });

  test('R18, B32: is cleared with the same name, path and domain', () => {
    expect(cookie({ domain: 'example.org', path: '/app' }).clear()).toBe(
      'visit=; Max-Age=0; Domain=example.org; Path=/app; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax',
    );
  });

  test('ASVS 3.3.5: never has more than 4096 bytes, even with the longest name', () => {
    const named = (name: string) =>
      resolveOptions({ store: new MemoryVisitStore(), cookie: { name, secure: true } }).cookie;
    const longest = named('n'.repeat(128));
    expect(longest.name).toMatch(/^__Host-n/);
    const [pair] = new VisitCookie({ cookie: longest }).write(VisitKey.create().text, 1000, 0).split(';');
    expect(pair!.length).toBe(7 + 128 + 1 + VISIT_KEY_LENGTH);
    expect(pair!.length).toBeLessThanOrEqual(4096);
    for (const length of [129, 4096]) expect(() => named('n'.repeat(length))).toThrow('option "cookie.name"');
  });

  test('R19: a permanent one states its lifetime in whole seconds', () => {
    expect(cookie().write('k', 1500, 0)).toBe(
      'visit=k; Max-Age=2; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; HttpOnly; SameSite=Lax',
    );
  });
});
