import { describe, expect, test } from 'vitest';
import { judgedCookie } from '../../lib/cli/doctor/cookie.js';
import { resolveOptions } from '../../lib/options/resolve-options.js';
import { MemoryVisitStore } from '../../lib/store/memory/memory-visit.store.js';

const SOUND = '__Host-visit=key; Path=/; HttpOnly; Secure; SameSite=Lax';

/** What the doctor says of a cookie that came with these headers. */
function judge(
  cookie: string,
  { url = 'https://www.shop.example/cart', cache = 'no-store', more = {}, options = false } = {},
) {
  const headers = new Headers({ ...(cache && { 'cache-control': cache }), ...more });
  const resolved = options
    ? resolveOptions({ store: new MemoryVisitStore(), cookie: { secure: true } }).cookie
    : undefined;
  const findings = judgedCookie(cookie, { url: new URL(url), status: 200, headers }, resolved);
  return findings.map(({ status, message }) => `${status}: ${message}`);
}

describe('What the command reports about a cookie that a server sent', () => {
  test('R63: nothing, if it has no faults', () => {
    expect(judge(SOUND)).toEqual([]);
    expect(judge(SOUND, { options: true })).toEqual([]);
    expect(judge('visit=key; Path=/; HttpOnly; SameSite=Lax', { url: 'http://127.0.0.1:3000/' })).toEqual([]);
    expect(judge('__Secure-visit=key; Path=/cart; HttpOnly; Secure; SameSite=Strict')).toEqual([]);
  });

  test.each([
    ['visit=key; Path=/; HttpOnly; SameSite=Lax', {}, 'failed: no Secure although the URL is https'],
    [SOUND, { url: 'http://shop.example/' }, 'failed: Secure over plain HTTP'],
    ['visit=key; Path=/; HttpOnly; SameSite=Lax', { url: 'http://shop.example/' }, 'warning: plain HTTP: everyone'],
    [
      '__Host-visit=key; Path=/; Domain=shop.example; HttpOnly; Secure; SameSite=Lax',
      {},
      'failed: the prefix __Host- requires Secure',
    ],
    ['__Host-visit=key; Path=/shop; HttpOnly; Secure; SameSite=Lax', {}, 'failed: the prefix __Host- requires Secure'],
    ['__Secure-visit=key; Path=/; HttpOnly; SameSite=Lax', {}, 'failed: the prefix __Secure- requires Secure'],
    ['visit=key; Path=/; HttpOnly; Secure; SameSite=Lax', {}, 'warning: no prefix'],
    ['__Host-visit=key; Path=/; Secure; SameSite=Lax', {}, 'failed: no HttpOnly'],
    ['__Host-visit=key; Path=/; HttpOnly; Secure', {}, 'warning: no SameSite'],
    ['__Host-visit=key; Path=/; HttpOnly; Secure; SameSite=None', {}, 'warning: SameSite=None'],
    [
      '__Secure-visit=key; Path=/; Domain=shop.example; HttpOnly; Secure; SameSite=Lax',
      {},
      'warning: Domain=shop.example',
    ],
    [
      '__Secure-visit=key; Path=/; Domain=inner.local; HttpOnly; Secure; SameSite=Lax',
      {},
      'failed: Domain=inner.local does not match www',
    ],
    [
      '__Secure-visit=key; Path=/car; HttpOnly; Secure; SameSite=Lax',
      {},
      'failed: Path=/car: browsers do not send it back to /cart',
    ],
    [SOUND, { cache: 'public, max-age=60' }, 'failed: no Cache-Control: no-store'],
    [SOUND, { more: { age: '7' } }, 'failed: the response comes from a cache'],
    [SOUND, { more: { 'x-cache': 'HIT from edge' } }, 'failed: the response comes from a cache'],
    [SOUND.replace('Lax', 'Strict'), { options: true }, 'warning: SameSite is strict, but the options say lax'],
    [
      SOUND.replace('__Host-', '__Secure-'),
      { options: true },
      'warning: name is __Secure-visit, but the options say __Host-visit',
    ],
  ])('R63: %s %j', (cookie, how, expected) => {
    const findings = judge(cookie, how);
    expect(findings.filter((finding) => finding.startsWith(expected))).toHaveLength(1);
    expect(findings.join()).not.toContain('key;');
  });
});
