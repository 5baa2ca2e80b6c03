import { setTimeout as pause } from 'node:timers/promises';
import { expect, vi } from 'vitest';
import { PATIENCE } from '../support/patience.js';
import { isSoak } from '../support/soak.js';
import type { AppProcess } from './app-process.js';
import { idOf, Visitor, type Reply } from './visitor.js';

/**
 * As many as two processors can handle for hours; in daily runs, a third proves the same, and leaves room for other
 * tests.
 */
export const VISITORS = isSoak ? 40 : 15;
/** The pause of a visitor after a success, and after a failure: clients wait while a service is unavailable. */
const THINKING = isSoak ? 20 : 100;
const BACKING_OFF = 100;

/** One visitor, who sends one request after the other and remembers the results. */
class Client {
  readonly visitor: Visitor;
  key = '';
  user: string | null = null;
  /** The sum of the acknowledged increments. */
  readonly sums: number[] = [];
  /** Increments with an unknown outcome. */
  unknown = 0;
  /** The last acknowledged value, and the last attempted one. */
  stored = 0;
  tried = 0;
  /** Requests that have written, since `Load.thrives` was called. */
  writes = 0;

  constructor(choose: () => string) {
    this.visitor = new Visitor(choose);
  }

  /**
   * Begins a visit, and signs in if it has a user. False if the database was too slow for the application; then it can
   * begin again.
   */
  async arrives(): Promise<boolean> {
    this.visitor.key = null;
    const { user } = this;
    const replies = [
      await this.visitor.post('/add'),
      ...(user === null ? [] : [await this.visitor.post('/login', { user })]),
    ];
    const failed = replies.find(({ status }) => status !== 201);
    if (failed) {
      expect(failed.status, failed.text).toBe(503);
      return false;
    }
    this.sums.push(replies[0]!.body!['value'] as number);
    this.key = this.visitor.key!;
    return true;
  }
}

/** Visitors who use their sessions continuously, and the checks after the fault. */
export class Load {
  readonly clients: readonly Client[];
  /** Responses that no fault may cause. */
  readonly complaints: string[] = [];
  /** The number of requests with a 503 or without a response. */
  failures = 0;
  /** Responses to requests that have only read. */
  reads = 0;
  private isOver = false;
  private working: Promise<unknown> = Promise.resolve();
  private waiting = 0;
  private heapBefore = 0;

  constructor(
    readonly apps: readonly AppProcess[],
    count = VISITORS,
    /** Whether a connection may break: only if an application is killed or ends. */
    private readonly mayBreak = false,
  ) {
    let turn = 0;
    // In turns, as a load balancer does.
    const choose = (): string => {
      const serving = apps.filter((app) => app.serving);
      return (serving[turn++ % serving.length] ?? apps[0]!).address;
    };
    this.clients = Array.from({ length: count }, () => new Client(choose));
  }

  /** Requests in flight. */
  get underWay(): number {
    return this.waiting;
  }

  /** Each visitor begins a visit, and every second one signs in; then all work until `finish`. */
  async begin(): Promise<this> {
    await Promise.all(
      this.clients.map(async (client, index) => {
        if (index % 2 === 0) client.user = `user ${index}`;
        await this.until(() => client.arrives(), 'a visit begins');
      }),
    );
    this.heapBefore = await this.heap();
    this.working = Promise.all(this.clients.map((client) => this.work(client)));
    return this;
  }

  private async work(client: Client): Promise<void> {
    for (let turn = 0; !this.isOver && this.complaints.length < 20; turn++) {
      const reads = turn % 4 === 3;
      const succeeded = await (reads ? this.read(client) : turn % 2 ? this.set(client) : this.add(client));
      // A read-only server serves readers normally.
      if (succeeded && !reads) client.writes++;
      await pause(succeeded ? THINKING : BACKING_OFF);
    }
  }

  private async add(client: Client): Promise<boolean> {
    const reply = await this.ask(client, () => client.visitor.post('/add'));
    if (reply.status === 201) client.sums.push(reply.body!['value'] as number);
    else client.unknown++;
    return reply.status === 201;
  }

  private async set(client: Client): Promise<boolean> {
    const value = ++client.tried;
    const reply = await this.ask(client, () => client.visitor.post('/set', { key: 'last', value }));
    if (reply.status === 201) client.stored = value;
    return reply.status === 201;
  }

  private async read(client: Client): Promise<boolean> {
    const reply = await this.ask(client, () => client.visitor.get('/who'));
    if (reply.status === 200) this.reads++;
    return reply.status === 200;
  }

  private async ask(client: Client, send: () => Promise<Reply>): Promise<Reply> {
    this.waiting++;
    const reply = await send();
    this.waiting--;
    const { status, body, given } = reply;
    if (given !== undefined || client.visitor.key !== client.key) this.complain(reply, 'the cookie was changed');
    if (status === 200 || status === 201) {
      if (body!['id'] !== idOf(client.key)) this.complain(reply, `another visit than ${client.key}`);
      if (body!['user'] !== client.user) this.complain(reply, `the user was ${client.user}`);
      return reply;
    }
    this.failures++;
    if (status === 0) {
      if (!this.mayBreak) this.complain(reply, 'no answer');
    } else if (!(this.mayBreak && isClosing(reply))) {
      complainAboutFailure(reply, (what) => this.complain(reply, what));
    }
    return reply;
  }

  /** Resolves when this many more requests have failed. */
  async suffers(count = 40): Promise<void> {
    const before = this.failures;
    await this.until(() => this.failures >= before + count, `${count} requests fail`);
  }

  /** Resolves when this many more writing requests have succeeded, some of each visitor. */
  async thrives(rounds = 8): Promise<void> {
    for (const client of this.clients) client.writes = 0;
    await this.until(
      () => this.clients.every(({ writes }) => writes >= rounds),
      `all visitors have written ${rounds} times again`,
    );
  }

  /** Resolves when the condition holds, or if there is a complaint. */
  async until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    try {
      await vi.waitUntil(async () => this.complaints.length > 0 || (await condition()), {
        timeout: PATIENCE,
        interval: 20,
      });
    } catch (error) {
      throw new Error(`${PATIENCE} ms were not enough until ${what}${this.said()}`, { cause: error });
    }
    expect(this.complaints, this.said()).toEqual([]);
  }

  /** The last log lines of the applications. */
  private said(): string {
    return this.apps
      .map(({ platform, running, log }) => `\n${platform} ${running ? 'runs' : 'has ended'}:\n${log.slice(-1500)}`)
      .join('');
  }

  async finish(): Promise<void> {
    this.isOver = true;
    await this.working;
  }

  /** Ends the work, and compares the stored with the acknowledged data. */
  async settle(): Promise<void> {
    await this.finish();
    for (const client of this.clients) {
      let reply!: Reply;
      // Calls that wait for the database may still be refused for a while.
      await this.until(async () => (reply = await client.visitor.get('/data')).status !== 503, 'the session is read');
      const { id, user, data } = (reply.body ?? {}) as {
        id?: string;
        user?: string;
        data?: { n?: number; last?: number };
      };
      const { n = 0, last = 0 } = data ?? {};
      if (reply.given !== undefined || id !== idOf(client.key) || user !== client.user)
        this.complain(reply, `the visit was ${client.key}`);
      if (n < client.sums.length || n > client.sums.length + client.unknown)
        this.complain(
          reply,
          `${client.sums.length} increments were acknowledged, ${client.unknown} may have been done`,
        );
      if (new Set(client.sums).size !== client.sums.length)
        this.complain(reply, `increments came to ${client.sums.join()}`);
      if (last < client.stored || last > client.tried)
        this.complain(reply, `${client.stored} was acknowledged, ${client.tried} tried last`);
    }
    expect(this.complaints).toEqual([]);
    // Not exact: a busy process has compiled more code, and its pools are full.
    expect((await this.heap()) - this.heapBefore, 'bytes of the heap more than before').toBeLessThan(40 * 2 ** 20);
  }

  private async heap(): Promise<number> {
    const running = this.apps.filter((app) => app.running);
    const sizes = await Promise.all(running.map((app) => app.tell<number>('/heap')));
    return Math.max(0, ...sizes);
  }

  private complain({ path, status, text, given }: Reply, what: string): void {
    this.complaints.push(`${path}: ${what} (${status} ${text}; cookie ${given})`);
  }
}

/** Fastify sends this itself while it closes. */
const isClosing = ({ status, body }: Reply): boolean => status === 503 && body?.['code'] !== 'VISIT_STORE_UNAVAILABLE';

/** A failure must be one that clients can handle, and must not disclose internals. */
export function complainAboutFailure(
  { status, body, retryAfter, text }: Reply,
  complain: (what: string) => void,
): void {
  if (status !== 503) complain('not a 503');
  else if (retryAfter === null || !(Number(retryAfter) > 0)) complain(`Retry-After is ${retryAfter}`);
  else if (body?.['code'] !== 'VISIT_STORE_UNAVAILABLE') complain('not the code of this library');
  if (/select |update |insert |econn|127\.0\.0\.1|sql|at .*\.js|node_modules|\bapp\b/i.test(text))
    complain('it shows the inside');
}
