import type { Visit } from 'nest-visit/typeorm';
import { Browser } from '../support/browser.js';
import { idOf, type Reply, type Visitor } from './visitor.js';

/** What clients know about one visit. */
interface Account {
  /** The last key that a client was given. */
  key: string;
  user: string | null;
  /** The result of each acknowledged increment. */
  readonly sums: number[];
  /** The session without the sum. */
  readonly data: Map<string, unknown>;
}

/** Responses of one visit that a complaint shows. */
const SHOWN = 40;

interface Closing {
  readonly visitors: readonly Visitor[];
  /** All of the visit table. */
  readonly rows: readonly Visit[];
  /** The ends that all processes have reported to their plugins. */
  readonly announced: readonly { id: string; reason: string }[];
  readonly addressOf: () => string;
}

/**
 * Records requests of visitors and their responses, to compare them with the database afterwards. All their requests
 * pass through here. Results that depend on the time of other requests are checked at the end, when these are known.
 */
export class Books {
  readonly complaints: string[] = [];
  private readonly accounts = new Map<string, Account>();
  /** Responses that are correct only if the visit of the request has ended. */
  private readonly onlyIfEnded: { readonly reply: Reply; readonly claim: string }[] = [];
  private readonly leftTokens = new Map<string, string>();
  private readonly taken = new Map<string, number>();
  /** Responses by visit, the last one at the end. */
  private readonly history = new Map<string, string[]>();
  private requests = 0;
  private counter = 0;
  private readonly refusals = new Map<string, number>();

  get summary(): string {
    const refused = [...this.refusals].map(([code, count]) => `${count} ${code}`).join(', ');
    return `${this.requests} requests, ${this.accounts.size} visits, refused: ${refused || 'none'}`;
  }

  async add(visitor: Visitor): Promise<void> {
    const reply = await visitor.post('/add');
    if (!this.accept(reply)) return;
    this.account(reply, visitor).sums.push(reply.body!['value'] as number);
  }

  async set(visitor: Visitor, key: string): Promise<void> {
    const value = ++this.counter;
    const reply = await visitor.post('/set', { key, value });
    if (!this.accept(reply)) return;
    this.account(reply, visitor).data.set(key, value);
  }

  /** Stores something in the session that can be taken once. Returns its name. */
  async leaveToken(visitor: Visitor): Promise<string> {
    const token = `token ${++this.counter}`;
    const reply = await visitor.post('/set', { key: token, value: token });
    if (this.accept(reply)) {
      const account = this.account(reply, visitor);
      account.data.set(token, token);
      this.leftTokens.set(token, reply.body!['id'] as string);
    }
    return token;
  }

  async take(visitor: Visitor, token: string): Promise<void> {
    const reply = await visitor.post('/take', { key: token });
    if (!this.accept(reply) || reply.body!['value'] === null) return;
    this.account(reply, visitor).data.delete(token);
    this.taken.set(token, (this.taken.get(token) ?? 0) + 1);
  }

  async who(visitor: Visitor): Promise<void> {
    this.accept(await visitor.get('/who'));
  }

  async login(visitor: Visitor, user: string): Promise<void> {
    const reply = await visitor.post('/login', { user });
    if (!this.accept(reply, { mayChangeCookie: true, mayBeLate: true })) return;
    this.account(reply, visitor).user = user;
  }

  async logout(visitor: Visitor, keepVisit: boolean): Promise<void> {
    const reply = await visitor.post('/logout', { keepVisit });
    if (!this.accept(reply, { mayChangeCookie: true, mayBeLate: true })) return;
    const account = reply.sent === null ? undefined : this.accounts.get(idOf(reply.sent));
    if (account && reply.given) Object.assign(account, { user: null, key: reply.given });
  }

  async renew(visitor: Visitor): Promise<void> {
    const reply = await visitor.post('/renew');
    if (this.accept(reply, { mayChangeCookie: true }) && reply.given) this.account(reply, visitor);
  }

  async endOther(visitor: Visitor, other: Visitor): Promise<void> {
    if (other === visitor || other.key === null) return;
    this.accept(await visitor.post('/end', { id: idOf(other.key) }));
  }

  async endAll(visitor: Visitor, user: string): Promise<void> {
    this.accept(await visitor.post('/end-all', { user }), { mayChangeCookie: true, mayBeLate: true });
  }

  /** Compares with the stored data. */
  async close({ visitors, rows, announced, addressOf }: Closing): Promise<void> {
    const stored = new Map(rows.map((row) => [row.id, row]));
    const isEnded = (id: string): boolean => stored.get(id)?.endedAt != null;

    for (const { reply, claim } of this.onlyIfEnded) {
      if (reply.sent !== null && !isEnded(idOf(reply.sent)))
        this.complain(`${claim}, though the visit it was sent with has not ended`, reply);
    }

    // Every visit is known to a client, and every end was reported once.
    for (const row of rows) {
      if (row.endedAt === null && !this.accounts.has(row.id))
        this.complaints.push(`visit ${row.id} lives and nobody knows it`);
      if (row.endedAt !== null && row.sessionData !== null)
        this.complaints.push(`visit ${row.id} has ended and keeps its data`);
    }
    const ended = rows.filter(({ endedAt }) => endedAt !== null).map(({ id }) => id);
    if (
      announced
        .map(({ id }) => id)
        .toSorted()
        .join() !== ended.toSorted().join()
    )
      this.complaints.push(`${ended.length} visits have ended, ${announced.length} ends were told`);
    for (const { id, reason } of announced) {
      if (stored.get(id)?.endReason !== reason)
        this.complaints.push(`visit ${id} ended as ${stored.get(id)?.endReason}, told was ${reason}`);
    }

    for (const [id, { sums }] of this.accounts) {
      const sorted = sums.toSorted((a, b) => a - b);
      const first = sorted.findIndex((sum, index) => sum !== index + 1);
      if (first >= 0) this.complaints.push(`visit ${id}: its increments came to ${sorted.join()}`);
      if (!stored.has(id)) this.complaints.push(`visit ${id} was given to a client and is not stored`);
    }
    for (const [token, id] of this.leftTokens) {
      const times = this.taken.get(token) ?? 0;
      const mayBeLost = isEnded(id) || this.accounts.get(id)!.data.has(token);
      if (times > 1 || (times === 0 && !mayBeLost))
        this.complaints.push(`${token} of visit ${id} was taken ${times} times`);
    }

    const live = [...this.accounts].filter(([id]) => !isEnded(id));
    for (const [id, account] of live) await this.compare(id, account, addressOf());
    for (const { key } of visitors) {
      if (key !== null && !isEnded(idOf(key)) && this.accounts.get(idOf(key))?.key !== key)
        this.complaints.push(`a visitor holds an old key of visit ${idOf(key)}`);
    }
    if (live.length === 0) this.complaints.push('no visit lives: nothing was compared');
  }

  /** The session as its client knows it, and as the application reads it now. */
  private async compare(id: string, { key, user, sums, data }: Account, address: string): Promise<void> {
    const { status, text, cookies } = await new Browser(address).get('/data', { cookie: `visit=${key}` });
    const expected = { ...Object.fromEntries(data), ...(sums.length > 0 ? { n: sums.length } : {}) };
    const found =
      status === 200 ? (JSON.parse(text) as { id: string; user: string | null; data: Record<string, unknown> }) : null;
    const isSame =
      found?.id === id &&
      found.user === user &&
      cookies.length === 0 &&
      JSON.stringify(sorted(found.data)) === JSON.stringify(sorted(expected));
    if (isSame) return;
    const should = `visit ${id} of ${user} with ${JSON.stringify(sorted(expected))} and key ${key}`;
    this.complaints.push(
      `${should} is ${status} ${text} ${cookies.join()}; before: ${this.history.get(id)?.join(' | ')}`,
    );
  }

  /** Whether the request was executed; complains about a response that can never be correct. */
  private accept(reply: Reply, { mayChangeCookie = false, mayBeLate = false } = {}): boolean {
    this.requests++;
    const { status, given, body, sent } = reply;
    this.note(reply);
    if (given !== undefined && !mayChangeCookie) this.onlyIfEnded.push({ reply, claim: 'it changed the cookie' });
    if (given) this.open(given, body);
    if (status === 200 || status === 201) return true;
    const code = String(body?.['code']);
    this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
    if (status !== 409 || sent === null) this.complain('it was answered', reply);
    else if (code === 'VISIT_ENDED' && !mayBeLate) this.onlyIfEnded.push({ reply, claim: 'it was refused' });
    else if (!['VISIT_ENDED', 'VISIT_KEY_RETIRED'].includes(code)) this.complain('it was answered', reply);
    return false;
  }

  private note({ path, sent, status, given, body }: Reply): void {
    for (const id of new Set([sent, given].filter((key) => key != null).map(idOf))) {
      const lines = this.history.get(id) ?? [];
      this.history.set(id, [
        ...lines.slice(-SHOWN),
        `${path} with …${sent?.slice(-5)}: ${status} ${String(body?.['code'] ?? body?.['user'])}, cookie ` +
          `…${given?.slice(-5)}`,
      ]);
    }
  }

  private open(key: string, body: Reply['body']): void {
    const id = idOf(key);
    const account = this.accounts.get(id);
    if (account) account.key = key;
    else this.accounts.set(id, { key, user: null, sums: [], data: new Map() });
    if (body?.['id'] !== undefined && body['id'] !== id)
      this.complaints.push(`visit ${JSON.stringify(body['id'])} was answered with a cookie for ${id}`);
  }

  /** The account of the visit of this response. */
  private account(reply: Reply, visitor: Visitor): Account {
    const id = reply.body!['id'] as string;
    const account = this.accounts.get(id);
    if (account) return account;
    this.complain(`it is about a visit that nobody was given (${visitor.key})`, reply);
    return { key: '', user: null, sums: [], data: new Map() };
  }

  private complain(claim: string, { path, sent, status, given, text }: Reply): void {
    this.complaints.push(`${path} of ${sent}: ${claim} (${status} ${text}; cookie ${given})`);
  }
}

const sorted = (data: Record<string, unknown>): [string, unknown][] =>
  Object.entries(data).toSorted(([one], [other]) => (one < other ? -1 : 1));
