import { expect, test } from 'vitest';
import { originOf } from '../../lib/request/request-origin.js';

const RULES = { trustedOrigins: [], secure: false };

/** As frameworks show a request: what was asked for, what a proxy says, and what name the framework makes of it. */
interface Shown {
  readonly host: string;
  readonly forwarded?: string;
  readonly hostname: string;
}

const NAKED: Shown = { host: 'intranet.example:3000', hostname: 'intranet.example' };
const FASTIFY_4: Shown = { host: 'intranet.example:3000', hostname: 'intranet.example:3000' };
const UNTRUSTED: Shown = { ...NAKED, forwarded: 'shop.example' };
const PROXIED: Shown = { host: '10.0.0.7:3000', forwarded: 'shop.example', hostname: 'shop.example' };
const PROXIED_PORT: Shown = { host: '10.0.0.7:3000', forwarded: 'Shop.Example:8443', hostname: 'shop.example' };
const PROXIES: Shown = { host: 'inner:80', forwarded: 'shop.example, cdn.example', hostname: 'shop.example' };
const DEFAULT_PORT: Shown = { host: 'inner', forwarded: 'shop.example:443', hostname: 'shop.example' };
const IPV6: Shown = { host: '[::1]:3000', hostname: '[::1]' };

test.each<[string, Shown, string, 'own' | 'foreign']>([
  ['Express 4 and 5, Fastify 5', NAKED, 'http://intranet.example:3000', 'own'],
  ['another port', NAKED, 'http://intranet.example', 'foreign'],
  ['another port', NAKED, 'http://intranet.example:8080', 'foreign'],
  ['Fastify 4', FASTIFY_4, 'http://intranet.example:3000', 'own'],
  ['Fastify 4, another port', FASTIFY_4, 'http://intranet.example', 'foreign'],
  ['a proxy that is not trusted', UNTRUSTED, 'http://shop.example', 'foreign'],
  ['a trusted proxy', PROXIED, 'https://shop.example', 'own'],
  ['a trusted proxy, another port', PROXIED, 'https://shop.example:8443', 'foreign'],
  ['a trusted proxy with a port', PROXIED_PORT, 'https://shop.example:8443', 'own'],
  ['a trusted proxy with a port, another one', PROXIED_PORT, 'https://shop.example', 'foreign'],
  ['several proxies', PROXIES, 'https://shop.example', 'own'],
  ['several proxies, one of them', PROXIES, 'https://cdn.example', 'foreign'],
  ["the scheme's own port", DEFAULT_PORT, 'https://shop.example', 'own'],
  ["the other scheme's own port", DEFAULT_PORT, 'http://shop.example', 'foreign'],
  ['IPv6', IPV6, 'http://[::1]:3000', 'own'],
  ['IPv6, another port', IPV6, 'http://[::1]', 'foreign'],
  ['an invalid host', { host: '%%%', hostname: '%%%' }, 'http://shop.example', 'foreign'],
])(
  'R60, F2: %s: whether a request comes from its own origin: %#',
  (_, { host, forwarded, hostname }, origin, expected) => {
    const headers = { host, origin, ...(forwarded === undefined ? {} : { 'x-forwarded-host': forwarded }) };
    expect(originOf({ method: 'POST', headers, hostname }, RULES)).toBe(expected);
  },
);
