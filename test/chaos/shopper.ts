import { complainAboutFailure } from './load.js';
import { idOf, Visitor, type Dice, type Reply } from './visitor.js';

/**
 * A browser that fills a cart, signs in and out, and gets renewed keys, with one request after the other. It remembers
 * the responses, and complains if they no longer apply.
 */
export class Shopper {
  readonly visitor: Visitor;
  private id: string | undefined;
  private user: string | null = null;
  /** The sum of the acknowledged increments, and those with an unknown outcome. */
  private sums: number[] = [];
  private unknown = 0;
  /** The last acknowledged value, and later ones with an unknown outcome. */
  private stored: number | undefined;
  private tried: number[] = [];
  private latest = 0;
  requests = 0;
  failures = 0;

  constructor(
    choose: () => string,
    private readonly name: string,
    private readonly dice: Dice,
    private readonly complain: (text: string) => void,
  ) {
    this.visitor = new Visitor(choose);
  }

  async act(): Promise<void> {
    const what = this.dice.below(20);
    if (this.id === undefined || what < 8) return this.add();
    if (what < 12) return this.put();
    if (what < 14) return void (await this.ask(() => this.visitor.get('/who')));
    if (what < 18) return this.signIn(this.dice.below(4) === 0 ? 'other' : 'own');
    return this.signOut();
  }

  private async add(): Promise<void> {
    const reply = await this.ask(() => this.visitor.post('/add'));
    if (reply) this.sums.push(reply.body!['value'] as number);
    else this.unknown++;
  }

  private async put(): Promise<void> {
    const value = ++this.latest;
    this.tried.push(value);
    if (!(await this.ask(() => this.visitor.post('/set', { key: 'last', value })))) return;
    this.stored = value;
    this.tried = [];
  }

  private async signIn(as: 'own' | 'other'): Promise<void> {
    const user = `${as} user ${this.name}`;
    const isAnothers = this.user !== null && this.user !== user;
    if (!(await this.ask(() => this.visitor.post('/login', { user }), { user, isAnothers }))) return;
    this.user = user;
  }

  private async signOut(): Promise<void> {
    // It has another visit afterwards, unless it has kept its visit.
    const isEnded = this.dice.below(4) === 0;
    const reply = await this.send(() => this.visitor.post('/logout', { keepVisit: !isEnded }));
    if (this.judge(reply)) {
      this.user = null;
      if (isEnded) this.begin(undefined);
      return;
    }
    // Whether it is signed out shows at the next look-up. A visit that has lost its user belongs to nobody if the new
    // key did not arrive.
    let seen: Reply;
    do seen = await this.send(() => this.visitor.get('/who'));
    while (!this.judge(seen));
    const { id, user } = seen.body as { id: string; user: string | null };
    if (id === this.id && user === this.user) return;
    if (user !== null) this.complain(`${this.name} is ${user} after a sign-out that failed`);
    this.user = null;
    if (id !== this.id) this.begin(undefined);
  }

  /** Another visit, about which nothing is known yet. */
  private begin(id: string | undefined): void {
    Object.assign(this, { id, sums: [], unknown: 0, stored: undefined, tried: [] });
  }

  /** The response, if the request was executed and it is about the right visit. */
  private async ask(
    send: () => Promise<Reply>,
    change?: { user: string; isAnothers: boolean },
  ): Promise<Reply | undefined> {
    const reply = await this.send(send);
    if (!this.judge(reply)) return undefined;
    const { id, user } = reply.body as { id: string; user: string | null };
    if (change?.isAnothers) this.begin(id);
    this.id ??= id;
    const expected = change ? change.user : this.user;
    if (id !== this.id || user !== expected)
      this.complain(
        `${this.name}: ${reply.path} is about ${user} in ${id}, should be ${expected} in ${this.id}: ` +
          this.history.join(' | '),
      );
    return reply;
  }

  /** The last responses. */
  private readonly history: string[] = [];

  private async send(send: () => Promise<Reply>): Promise<Reply> {
    const reply = await send();
    this.requests++;
    const { path, status, body, sent, given } = reply;
    this.history.push(
      `${path} …${sent?.slice(-4)}: ${status} ${String(body?.['code'] ?? body?.['user'])} …${given?.slice(-4)}`,
    );
    if (this.history.length > 12) this.history.shift();
    return reply;
  }

  /** Whether it was executed. */
  private judge(reply: Reply): boolean {
    if (reply.status === 200 || reply.status === 201) return true;
    this.failures++;
    complainAboutFailure(reply, (what) => this.complain(`${what}: ${this.history.join(' | ')}`));
    // A key that was renewed by age, before the failed one.
    if (reply.given !== undefined && (reply.sent === null || idOf(reply.given) !== idOf(reply.sent)))
      this.complain(`a failure with the cookie of another visit: ${this.history.join(' | ')}`);
    return false;
  }

  /** Compares the stored with the acknowledged data. Returns the id of the visit and its user. */
  async close(): Promise<{ readonly id: string | undefined; readonly user: string | null }> {
    const reply = await this.visitor.get('/data');
    const { id, user, data } = (reply.body ?? {}) as {
      id?: string;
      user?: string;
      data?: { n?: number; last?: number };
    };
    const { n = 0, last } = data ?? {};
    const [least, most] = [this.sums.length, this.sums.length + this.unknown];
    const isSame = this.id === undefined || (id === this.id && user === this.user && id === idOf(this.visitor.key!));
    const isCounted =
      n >= least && n <= most && new Set(this.sums).size === least && this.sums.every((sum) => sum >= 1 && sum <= n);
    if (!isSame || !isCounted || (last !== this.stored && !this.tried.includes(last!)))
      this.complain(
        `${this.name}: ${reply.text} of ${this.user} in ${this.id}, ${least} to ${most} increments, last ` +
          `${this.stored} or ${this.tried.join()}: ${this.history.join(' | ')}`,
      );
    return { id: this.id, user: this.user };
  }
}
