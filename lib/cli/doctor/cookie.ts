import { parseSetCookie, type SetCookie } from 'cookie';
import type { ResolvedVisitOptions } from '../../options/visit-options.interface.js';
import { optionTable } from '../../options/option-table.js';
import { lineOf } from '../error-line.js';
import { plain } from '../terminal.js';
import { findingsOf, type Finding } from './finding.js';

type CookieOptions = ResolvedVisitOptions['cookie'];

/** How long to wait for a response, in milliseconds. */
const PATIENCE = 15_000;
const MOST_REDIRECTS = 5;
const PREFIX = /^__(?:host|secure)-/i;

/** The response of one URL. */
interface Answer {
  readonly url: URL;
  readonly status: number;
  readonly headers: Headers;
}

const { ok, warning, failed } = findingsOf('cookie');

/** Checks whether browsers accept the cookie that this URL sends through all proxies, and whether it is protected. */
export async function examineCookie(url: URL, options: CookieOptions | undefined): Promise<Finding[]> {
  const base = (options?.name ?? (optionTable.cookie.name.default() as string)).replace(PREFIX, '');
  try {
    const answers = await fetched(url);
    const found = answers.flatMap((answer) => cookiesIn(answer, base).map((header) => ({ answer, header })))[0];
    if (!found) return [missing(answers.at(-1)!, base)];
    const findings = judgedCookie(found.header, found.answer, options);
    const again = (await fetched(url)).flatMap((answer) => cookiesIn(answer, base))[0];
    if (again !== undefined && parseSetCookie(again).value === parseSetCookie(found.header).value)
      findings.push(
        failed(
          'two visitors received the same key: a cache stores responses with cookies, so everyone shares one visit',
        ),
      );
    return [
      ...(findings.some(({ status }) => status === 'failed') ? [] : [ok(described(parseSetCookie(found.header)))]),
      ...findings,
    ];
  } catch (error) {
    const reason = error instanceof Error && error.cause !== undefined ? error.cause : error;
    return [failed(`${shown(url)} does not answer: ${lineOf(reason)}`)];
  }
}

/** Requests the URL like a browser without cookies, and follows redirects. */
async function fetched(url: URL): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let next: URL | undefined = url; next && answers.length <= MOST_REDIRECTS;) {
    const target: URL = next;
    // Names and passwords are no part of what `fetch` takes.
    const { username, password } = target;
    const headers = new Headers({
      accept: 'text/html, */*;q=0.8',
      'sec-fetch-site': 'none',
      'sec-fetch-mode': 'navigate',
      connection: 'close',
    });
    if (username !== '') headers.set('authorization', `Basic ${btoa(`${unescaped(username)}:${unescaped(password)}`)}`);
    const response = await fetch(new URL(`${target.pathname}${target.search}`, target.origin), {
      redirect: 'manual',
      signal: AbortSignal.timeout(PATIENCE),
      headers,
    });
    await response.body?.cancel();
    answers.push({ url: target, status: response.status, headers: response.headers });
    const location = response.headers.get('location');
    next = location !== null && URL.canParse(location, target.href) ? new URL(location, target) : undefined;
    if (next && !/^https?:$/.test(next.protocol)) next = undefined;
  }
  return answers;
}

/** The headers that set a cookie of this name, whatever its prefix. */
function cookiesIn({ headers }: Answer, base: string): string[] {
  return headers.getSetCookie().filter((header) => parseSetCookie(header).name.replace(PREFIX, '') === base);
}

function missing({ url, status, headers }: Answer, base: string): Finding {
  const names = headers.getSetCookie().map((header) => plain(parseSetCookie(header).name));
  const others = names.length > 0 ? ` (but ${names.join(', ')})` : '';
  return warning(
    `${shown(url)} answered ${status} without the cookie "${base}"${others}: a visit begins when there is ` +
      'something to store, so use a page that starts one, such as a page with a form token',
  );
}

/** The findings for a cookie of this response. */
export function judgedCookie(setCookie: string, answer: Answer, options?: CookieOptions): Finding[] {
  return [...judged(parseSetCookie(setCookie), answer, options)];
}

function* judged(cookie: SetCookie, { url, headers }: Answer, options: CookieOptions | undefined): Iterable<Finding> {
  const { name, secure = false, httpOnly = false, sameSite, domain, path = '' } = cookie;
  const isHttps = url.protocol === 'https:';
  const isLoopback = /^(?:localhost|.*\.localhost|127\..*|\[::1\])$/.test(url.hostname);
  if (isHttps && !secure)
    yield failed(
      'no Secure although the URL is https: the application sees the request as http; enable the trust-proxy ' +
        'setting of the framework and let the proxy send X-Forwarded-Proto, or set cookie.secure to true',
    );
  if (!isHttps && !isLoopback)
    yield secure
      ? failed('Secure over plain HTTP: browsers reject the cookie; use the https URL')
      : warning('plain HTTP: everyone on the network path can read the key');
  if (/^__host-/i.test(name) && (!secure || path !== '/' || domain !== undefined))
    yield failed(
      'the prefix __Host- requires Secure, Path=/ and no Domain: browsers reject the cookie; check whether a ' +
        'proxy changes cookies',
    );
  else if (/^__secure-/i.test(name) && !secure)
    yield failed('the prefix __Secure- requires Secure: browsers reject the cookie');
  else if (isHttps && !PREFIX.test(name))
    yield warning('no prefix, so other hosts of the site can overwrite the cookie: cookie.secure: true adds __Host-');
  if (!httpOnly) yield failed('no HttpOnly: every script on a page can read the key');
  if (sameSite === undefined || sameSite === true || sameSite === false)
    yield warning('no SameSite: browsers use different defaults');
  else if (sameSite === 'none' && options?.sameSite !== 'none')
    yield warning('SameSite=None: other sites can send requests with the cookie');
  if (domain !== undefined) {
    const host = domain.replace(/^\./, '').toLowerCase();
    yield url.hostname === host || url.hostname.endsWith(`.${host}`)
      ? warning(`Domain=${plain(domain)}: all hosts below this domain receive the key`)
      : failed(`Domain=${plain(domain)} does not match ${url.hostname}: browsers reject the cookie`);
  }
  if (path !== '' && !covers(path, url.pathname))
    yield failed(`Path=${plain(path)}: browsers do not send it back to ${plain(url.pathname)}`);
  if (!/\bno-store\b/i.test(headers.get('cache-control') ?? ''))
    yield failed('no Cache-Control: no-store: a proxy has removed it, so caches may store the key');
  if (Number(headers.get('age') ?? 0) > 0 || /\bhit\b/i.test(headers.get('x-cache') ?? ''))
    yield failed(`the response comes from a cache, with another visitor's key`);
  if (options) yield* differences(cookie, options);
}

type Shown = string | boolean | undefined;

/** The differences between the options in the file and the running application. */
function* differences(cookie: SetCookie, options: CookieOptions): Iterable<Finding> {
  const pairs: [string, Shown, Shown][] = [
    ['name', cookie.name, options.name],
    ['Path', cookie.path, options.path],
    ['Domain', cookie.domain?.replace(/^\./, '').toLowerCase(), options.domain?.replace(/^\./, '').toLowerCase()],
    ['SameSite', cookie.sameSite, options.sameSite],
    ['HttpOnly', cookie.httpOnly ?? false, options.httpOnly],
  ];
  for (const [attribute, sent, meant] of pairs) {
    if (sent === meant) continue;
    const [is, shouldBe] = [sent, meant].map((one) => (one === undefined ? 'none' : plain(String(one))));
    yield warning(
      `${attribute} is ${is}, but the options say ${shouldBe}: check whether NODE_ENV differs there, or whether ` +
        'a proxy changes it',
    );
  }
}

/** RFC 6265bis 5.1.4. */
function covers(path: string, requested: string): boolean {
  return requested === path || requested.startsWith(path.endsWith('/') ? path : `${path}/`);
}

/** Without its value. */
function described({ name, secure, httpOnly, sameSite, domain, path, partitioned, maxAge }: SetCookie): string {
  const attributes = [
    secure && 'Secure',
    httpOnly && 'HttpOnly',
    typeof sameSite === 'string' && `SameSite=${sameSite}`,
    partitioned && 'Partitioned',
    path !== undefined && `Path=${plain(path)}`,
    domain !== undefined && `Domain=${plain(domain)}`,
    maxAge !== undefined && `Max-Age=${maxAge}`,
  ];
  return `"${plain(name)}" with ${attributes.filter(Boolean).join(', ') || 'no attribute'}`;
}

/** Neither password nor parameters. */
function shown({ origin, pathname }: URL): string {
  return plain(`${origin}${pathname}`);
}

function unescaped(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
