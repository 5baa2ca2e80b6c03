import { Agent, request, type IncomingMessage } from 'node:http';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';

/** A response whose head has arrived. */
export interface Head {
  readonly status: number;
  readonly headers: Headers;
  /** The `Set-Cookie` headers, whole. */
  readonly cookies: readonly string[];
}

/** A response as a test reads it. */
export interface Answer extends Head {
  readonly text: string;
}

export interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as a form. */
  readonly form?: Record<string, string>;
  /** Sent instead of the cookies of the jar; cookies of the response are not stored either. */
  readonly cookie?: string | null;
}

/**
 * An HTTP client with a simple cookie jar for one site: a cookie is stored by its name, and deleted if its lifetime is
 * 0.
 */
export class Browser {
  constructor(
    readonly address: string,
    readonly jar = new Map<string, string>(),
  ) {}

  get(path: string, ask: Ask = {}): Promise<Answer> {
    return this.send(path, ask);
  }

  post(path: string, ask: Ask = {}): Promise<Answer> {
    return this.send(path, { method: 'POST', ...ask });
  }

  /** A second browser with a copy of the cookies. */
  clone(): Browser {
    const other = new Browser(this.address);
    for (const [name, value] of this.jar) other.jar.set(name, value);
    return other;
  }

  /** The same browser, with the same cookies, on another machine. */
  via({ address }: { readonly address: string }): Browser {
    const other = new Browser(address, this.jar);
    return other;
  }

  /** Like `get()`, but there as soon as the head of the response is. The rest has to be read. */
  open(path: string, ask: Ask = {}): Promise<Head & { readonly rest: () => Promise<string> }> {
    return this.begin(path, ask);
  }

  private async send(path: string, ask: Ask): Promise<Answer> {
    const head = await this.begin(path, ask);
    return Object.assign(head, { text: await head.rest() });
  }

  private async begin(path: string, { method = 'GET', headers = {}, json, form, cookie }: Ask) {
    const sent = cookie === undefined ? [...this.jar].map(([name, value]) => `${name}=${value}`).join('; ') : cookie;
    const body = json === undefined ? form && String(new URLSearchParams(form)) : JSON.stringify(json);
    const type = json === undefined ? form && 'application/x-www-form-urlencoded;charset=UTF-8' : 'application/json';
    const answer = await exchange(`${this.address}${path}`, {
      method,
      headers: {
        ...DEFAULTS,
        ...(sent ? { cookie: sent } : {}),
        ...(type ? { 'content-type': type } : {}),
        ...lowerCased(headers),
        ...(body === undefined
          ? method === 'POST'
            ? { 'content-length': '0' }
            : {}
          : { 'content-length': String(Buffer.byteLength(body)) }),
      },
      body,
    });
    if (cookie === undefined) for (const header of answer.cookies) this.keep(header);
    return answer;
  }

  private keep(header: string): void {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(header)!;
    if (/;\s*max-age=0/i.test(header)) this.jar.delete(name!);
    else this.jar.set(name!, value!);
  }
}

/** The headers that `fetch` of Node sends by default. */
const DEFAULTS = { accept: '*/*', 'accept-language': '*', 'sec-fetch-mode': 'cors', 'user-agent': 'node' };

/** Connections are closed earlier than by servers: otherwise a request might use a connection that is being closed. */
const agent = new Agent({ keepAlive: true, timeout: 3000 });

/**
 * Like `fetch` without redirects, and with compression only if it is asked for, but with a third of its CPU time, which
 * would otherwise be most of an end-to-end test.
 */
function exchange(
  url: string,
  { body, ...options }: { method: string; headers: Record<string, string>; body: string | undefined },
): Promise<Head & { readonly rest: () => Promise<string> }> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { ...options, agent }, (response) => {
      response.on('error', ignore);
      let all: Headers | undefined;
      resolve({
        status: response.statusCode!,
        get headers() {
          return (all ??= headersOf(response.rawHeaders));
        },
        cookies: response.headers['set-cookie'] ?? [],
        rest: () => textOf(response),
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

function textOf(response: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    if (response.errored) return reject(response.errored);
    const body =
      response.headers['content-encoding'] === 'gzip' ? pipeline(response, createGunzip(), ignore) : response;
    let text = '';
    body.setEncoding('utf8').on('data', (part: string) => (text += part));
    body.on('error', reject);
    body.on('end', () => resolve(text));
  });
}

/** Whoever reads the rest is told of errors. */
const ignore = (): void => {};

function headersOf(raw: readonly string[]): Headers {
  const headers = new Headers();
  for (let index = 0; index < raw.length; index += 2) headers.append(raw[index]!, raw[index + 1]!);
  return headers;
}

function lowerCased(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
