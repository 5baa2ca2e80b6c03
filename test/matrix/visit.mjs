// A visit to a running application of the matrix: a new cookie, a remembered value, a sign-in, and its end.
import { deepEqual, equal, match, notEqual } from 'node:assert/strict';

/** As far as one site needs it: a cookie is kept by name, and goes when its life is 0. */
function browserAt(address) {
  const jar = new Map();
  return {
    jar,
    send: async (path, method = 'GET', headers = {}) => {
      const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(address + path, {
        method,
        headers: { ...(cookie && { cookie }), ...headers },
        redirect: 'manual',
      });
      const cookies = response.headers.getSetCookie();
      for (const header of cookies) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(header);
        if (/;\s*max-age=0/i.test(header)) jar.delete(name);
        else jar.set(name, value);
      }
      return { status: response.status, text: await response.text(), cookies };
    },
  };
}

/** @throws AssertionError that says what was otherwise */
export async function visit(address) {
  const { jar, send } = browserAt(address);
  const statusOf = async (...request) => (await send(...request)).status;

  const first = await send('/');
  equal(first.text, '1 nobody 32 0', 'the first request');
  equal(first.cookies.length, 1, 'cookies of the first request');
  match(first.cookies[0], /^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/);
  const second = await send('/');
  equal(second.text, '2 nobody 32 1', 'the second request');
  deepEqual(second.cookies, [], 'cookies of the second request');

  equal(await statusOf('/early'), 302, 'a redirect');
  equal((await send('/late')).text, 'main.ts', 'what was changed before the redirect');

  equal(await statusOf('/visits'), 401, '@RequireIdentity() before the sign-in');
  equal(await statusOf('/mine'), 403, 'a guard before the sign-in');
  const before = jar.get('visit');
  equal(await statusOf('/login', 'POST'), 201, 'the sign-in');
  notEqual(jar.get('visit'), before, 'the key does not change with the sign-in');
  const [{ userId, isCurrent }] = JSON.parse((await send('/visits')).text);
  deepEqual({ userId, isCurrent }, { userId: '7', isCurrent: true }, 'the visits of the user');
  equal((await send('/mine')).text, 'mine', 'a guard after the sign-in');

  // Its own origin has its port, which Express 4 leaves out of the name of the host.
  const { origin, hostname } = new URL(address);
  equal(await statusOf('/logout', 'POST', { origin: `http://${hostname}:1` }), 403, 'the sign-out by another site');
  equal(await statusOf('/visits'), 200, 'after the sign-out by another site');
  equal(await statusOf('/logout', 'POST', { origin }), 201, 'the sign-out');
  equal(await statusOf('/visits'), 401, 'after the sign-out');
}
