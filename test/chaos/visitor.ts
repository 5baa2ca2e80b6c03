import { Browser } from '../support/browser.js';

/** A request and its response, as needed for the comparison. */
export interface Reply {
  readonly path: string;
  /** The key of the request, or null. */
  readonly sent: string | null;
  /** 0: there was no response, because the connection broke. */
  readonly status: number;
  /** The effect of the response on the cookie: a new key, `''` deletes it, undefined keeps it. */
  readonly given: string | undefined;
  /** The JSON of the response, or null if it was not JSON. */
  readonly body: Readonly<Record<string, unknown>> | null;
  readonly text: string;
  readonly retryAfter: string | null;
}

export const idOf = (key: string): string => key.slice(0, 32);

/** A browser whose requests are sent to one of several addresses, as by a load balancer. */
export class Visitor {
  /** The cookie. */
  key: string | null = null;

  /** @param choose the address of the next request */
  constructor(private readonly choose: () => string) {}

  get(path: string): Promise<Reply> {
    return this.send('GET', path);
  }

  post(path: string, json: object = {}): Promise<Reply> {
    return this.send('POST', path, json);
  }

  private async send(method: string, path: string, json?: object): Promise<Reply> {
    const sent = this.key;
    const cookie = sent === null ? null : `visit=${sent}`;
    let answer;
    try {
      answer = await new Browser(this.choose()).get(path, { method, cookie, json });
    } catch (error) {
      const text = String((error as Error).cause ?? error);
      return { path, sent, status: 0, given: undefined, body: null, text, retryAfter: null };
    }
    const { status, text, cookies, headers } = answer;
    const given = /^visit=([^;]*)/.exec(cookies[0] ?? '')?.[1];
    if (given !== undefined) this.key = given === '' ? null : given;
    return { path, sent, status, given, body: parse(text), text, retryAfter: headers.get('retry-after') };
  }
}

function parse(text: string): Record<string, unknown> | null {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
}

/** Random numbers that can be reproduced by their seed (mulberry32). */
export class Dice {
  private state: number;

  constructor(readonly seed: number) {
    this.state = seed;
  }

  /** At least 0, and less than 1. */
  roll(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(count: number): number {
    return Math.floor(this.roll() * count);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

export const SEED = Number(process.env['VISIT_TEST_SEED'] ?? Date.now() % 2 ** 31);
