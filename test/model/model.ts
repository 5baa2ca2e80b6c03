import { TIMEOUT, TOUCH_RESOLUTION } from '../interleaving/process.js';

/** Short, so that histories get to the end of them. */
export const PERMANENT_TIMEOUT = 1.5 * TIMEOUT;
export const ABSOLUTE_TIMEOUT = 1.75 * TIMEOUT;
/** As docs/identity.md says. */
export const RENEWAL_GRACE = 30_000;
export const LATE_WINDOW = 10_000;

export type User = 'Ann' | 'Bob';
export type EndReason = 'ended' | 'logout' | 'replaced' | 'revoked';

/** What a client was given, as soon as it was: a key that was replaced within its own request nobody ever saw. */
export interface Key {
  text?: string;
}

/** A visit as the documents describe it. */
export interface Visit {
  /** Known from the first answer that shows it. */
  id?: string;
  readonly created: number;
  absoluteExpiry: number;
  current: Key;
  previous?: Key;
  /** When a key was last replaced. */
  changed?: number;
  /** Until when the previous key is as good as the current one. */
  graceUntil?: number;
  /** Nobody has been seen with the current key, which a renewal has made: the previous one is as good until then. */
  isUnseen?: boolean;
  user: User | null;
  authenticatedAt: number | null;
  permanent: boolean;
  data: Map<string, unknown>;
  lastUse: number;
  /** Small steps of the expiry are not written, so it is known to within `touch.resolution`. */
  expiresFrom: number;
  expiresUntil: number;
  ended?: { readonly at: number; readonly reason: EndReason; readonly byItsClient: boolean };
  isExpunged: boolean;
}

/** What a key is good for at the moment. */
export type Bearer =
  | { readonly standing: 'found'; readonly visit: Visit; readonly hasCurrentKey: boolean }
  | { readonly standing: 'late'; readonly hasEnded: boolean }
  | { readonly standing: 'stranger' };

export interface Event {
  readonly event: 'new' | 'ended';
  readonly visit: Visit;
}

/** An answer that is an error. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super(code);
  }
}

export class Model {
  readonly visits: Visit[] = [];
  /** Every key that anybody was ever given. */
  readonly keys: string[] = [];
  /** Those that were replaced, or whose visits ended, in this order. */
  readonly formerKeys: string[] = [];
  /** What each browser sends. */
  readonly cookies: (string | undefined)[] = [];

  constructor(public now: number) {}

  get known(): Visit[] {
    return this.visits.filter(({ isExpunged }) => !isExpunged);
  }

  judge(key: string | undefined): Bearer {
    const visit = this.known.find(({ id }) => id !== undefined && key?.startsWith(id));
    if (key === undefined || !visit) return { standing: 'stranger' };
    const hasCurrentKey = visit.current.text === key;
    const hasPreviousKey = visit.previous?.text === key;
    if (visit.ended) {
      const { at, byItsClient } = visit.ended;
      const isLate = (hasCurrentKey || hasPreviousKey) && byItsClient && this.now < at + LATE_WINDOW;
      return isLate ? { standing: 'late', hasEnded: true } : { standing: 'stranger' };
    }
    if (this.isExpired(visit)) return { standing: 'stranger' };
    if (hasCurrentKey || (hasPreviousKey && (visit.isUnseen || this.now < (visit.graceUntil ?? 0))))
      return { standing: 'found', visit, hasCurrentKey };
    const isLate =
      visit.changed !== undefined && this.now < Math.max(visit.changed, visit.graceUntil ?? 0) + LATE_WINDOW;
    return isLate ? { standing: 'late', hasEnded: false } : { standing: 'stranger' };
  }

  isExpired({ expiresUntil }: Visit): boolean {
    return this.now >= expiresUntil;
  }

  isLive(visit: Visit): boolean {
    return !visit.isExpunged && !visit.ended && !this.isExpired(visit);
  }

  liveOf(user: User): Visit[] {
    return this.visits.filter((visit) => visit.user === user && this.isLive(visit));
  }

  /** Whether the model cannot tell by itself if the visit has expired. */
  isUncertain({ ended, isExpunged, expiresFrom, expiresUntil }: Visit): boolean {
    return !ended && !isExpunged && expiresFrom <= this.now && expiresFrom < expiresUntil;
  }

  begin(user: User | null, permanent: boolean): Visit {
    const absoluteExpiry = this.now + ABSOLUTE_TIMEOUT;
    const visit: Visit = {
      created: this.now,
      absoluteExpiry,
      current: {},
      user,
      authenticatedAt: user && this.now,
      permanent,
      data: new Map(),
      lastUse: this.now,
      expiresFrom: 0,
      expiresUntil: 0,
      isExpunged: false,
    };
    this.extend(visit);
    this.visits.push(visit);
    return visit;
  }

  /** `slack`: by how much the expiry that is written may stay behind. */
  extend(visit: Visit, slack = 0): void {
    const expiry = Math.min(this.now + (visit.permanent ? PERMANENT_TIMEOUT : TIMEOUT), visit.absoluteExpiry);
    visit.expiresFrom = Math.max(visit.expiresFrom, expiry - slack);
    visit.expiresUntil = Math.max(visit.expiresUntil, expiry);
  }

  giveUp({ text }: Key): void {
    if (text !== undefined) this.formerKeys.push(text);
  }

  /** Whether this call ended it. */
  end(visit: Visit, reason: EndReason, byItsClient: boolean): boolean {
    if (visit.ended || visit.isExpunged) return false;
    this.giveUp(visit.current);
    visit.ended = { at: this.now, reason, byItsClient };
    visit.data = new Map();
    return true;
  }

  /** What is deleted. */
  expunge(): Visit[] {
    const stale = this.known.filter(
      ({ ended, expiresUntil }) => expiresUntil < this.now || (ended && ended.at < this.now),
    );
    for (const visit of stale) visit.isExpunged = true;
    return stale;
  }

  /** How many held data. */
  wipe(before: number): number {
    const expired = this.known.filter(({ data, expiresUntil }) => expiresUntil < before && data.size > 0);
    for (const visit of expired) visit.data = new Map();
    return expired.length;
  }
}

/** What one request does, or somebody outside of all requests. */
export class Turn {
  visit: Visit | undefined;
  session = new Map<string, unknown>();
  readonly isNew: boolean;
  readonly events: Event[] = [];
  /** `key`: the visit's current one. */
  cookie: 'none' | 'cleared' | 'key' = 'none';
  /** Whether the cookie of a permanent visit is sent again though nothing has changed. */
  repeatsKey: 'never' | 'maybe' | 'surely' = 'never';
  private isLate: boolean;
  private hasCurrentKey = false;
  /** It is late because its client has ended the visit. */
  private readonly hasEnded: boolean;
  /** Outside of all requests, where there is no user whose visits alone could be ended. */
  private readonly isElsewhere: boolean;

  constructor(
    private readonly model: Model,
    given: Bearer | 'elsewhere',
    isPassive = false,
  ) {
    this.isElsewhere = given === 'elsewhere';
    const bearer: Bearer = given === 'elsewhere' ? { standing: 'stranger' } : given;
    this.isLate = bearer.standing === 'late';
    this.hasEnded = bearer.standing === 'late' && bearer.hasEnded;
    this.isNew = bearer.standing !== 'found';
    if (bearer.standing !== 'found') return;
    const { visit } = bearer;
    this.visit = visit;
    this.session = new Map(visit.data);
    this.hasCurrentKey = bearer.hasCurrentKey;
    if (visit.isUnseen && this.hasCurrentKey) {
      visit.isUnseen = false;
      visit.changed = model.now;
      visit.graceUntil = model.now + RENEWAL_GRACE;
    }
    if (isPassive) return;
    const half = (at: number): number => Math.floor((at - visit.created) / (PERMANENT_TIMEOUT / 10));
    if (visit.permanent && bearer.hasCurrentKey && half(model.now) > 0) {
      this.repeatsKey = half(visit.lastUse) < half(model.now) ? 'surely' : 'maybe';
    }
    visit.lastUse = model.now;
    model.extend(visit, TOUCH_RESOLUTION);
    // What was lost on its way is given again.
    if (visit.isUnseen && !this.hasCurrentKey) this.renew();
  }

  get userId(): User | null {
    return this.visit?.user ?? null;
  }

  update(name: string, change: (value: unknown) => unknown): unknown {
    this.requireNotLate();
    if (!this.visit) this.begin(null);
    const value = change(this.session.get(name));
    this.session.set(name, value);
    return value;
  }

  take(name: string): unknown {
    this.requireNotLate();
    const value = this.session.get(name);
    this.session.delete(name);
    return value;
  }

  login(user: User, permanent: boolean | undefined): void {
    if (this.visit?.user && this.visit.user !== user) this.endOwn('replaced');
    if (this.visit) {
      this.visit.user = user;
      this.visit.authenticatedAt = this.model.now;
      this.visit.permanent = permanent ?? false;
      this.prove(this.visit);
      return;
    }
    this.isLate = false;
    this.begin(user, permanent);
  }

  logout(keepVisit: boolean): void {
    if (!keepVisit) {
      this.endOwn('logout');
    } else if (this.isLate && !this.hasEnded) {
      throw new Refusal(409, 'VISIT_KEY_RETIRED');
    } else if (this.visit?.user) {
      this.visit.user = this.visit.authenticatedAt = null;
      this.rekey();
    }
  }

  renew(): void {
    const { visit } = this;
    if (!visit) return;
    const { previous } = visit;
    const settled = visit.isUnseen ? visit.changed! + RENEWAL_GRACE : (visit.graceUntil ?? 0);
    if (settled > this.model.now) return;
    const isAgain = visit.isUnseen && !this.hasCurrentKey;
    this.rekey(true);
    if (isAgain) visit.previous = previous!;
    this.hasCurrentKey = true;
  }

  reauthenticate(): void {
    if (!this.visit?.user) throw new Refusal(401, 'VISIT_IDENTITY_REQUIRED');
    this.visit.authenticatedAt = this.model.now;
    this.prove(this.visit);
  }

  endOwn(reason: EndReason): boolean {
    const { visit } = this;
    if (visit) this.end(visit, reason, true);
    if (this.isLate && !this.hasEnded) throw new Refusal(409, 'VISIT_KEY_RETIRED');
    if (this.isLate) return false;
    this.visit = undefined;
    this.session = new Map();
    this.cookie = 'cleared';
    return visit !== undefined;
  }

  endOne(visit: Visit): boolean {
    if (visit === this.visit) return this.endOwn('revoked');
    const isOfSameUser = this.userId !== null && visit.user === this.userId;
    return (isOfSameUser || this.isElsewhere) && this.end(visit, 'revoked');
  }

  endOthers(): number {
    return this.userId === null ? 0 : this.endAllOf(this.userId);
  }

  endAllForUser(user: User): number {
    const isOwn = this.userId === user;
    return this.endAllOf(user) + Number(isOwn && this.endOwn('revoked'));
  }

  endAll(): number {
    const own = Number(this.visit !== undefined && this.endOwn('revoked'));
    // So many may be meant that nobody is told of each.
    return own + this.model.known.filter((visit) => this.model.end(visit, 'revoked', false)).length;
  }

  /** The request is over: what has changed is saved. */
  close(): void {
    if (this.session.size > 0) this.requireNotLate();
    if (!this.visit && this.session.size > 0) this.begin(null);
    if (this.visit) this.visit.data = this.session;
  }

  private requireNotLate(): void {
    if (this.isLate) throw new Refusal(409, 'VISIT_KEY_RETIRED');
  }

  private begin(user: User | null, permanent = false): void {
    this.visit = this.model.begin(user, permanent);
    this.cookie = 'key';
    this.events.push({ event: 'new', visit: this.visit });
  }

  /** Who proves who they are gets the whole time again, and no more of what they had before. */
  private prove(visit: Visit): void {
    visit.absoluteExpiry = this.model.now + ABSOLUTE_TIMEOUT;
    this.rekey();
  }

  private rekey(isRenewal = false): void {
    const visit = this.visit!;
    this.model.giveUp(visit.current);
    visit.previous = visit.current;
    visit.current = {};
    visit.changed = this.model.now;
    delete visit.graceUntil;
    visit.isUnseen = isRenewal;
    if (!isRenewal) visit.expiresFrom = visit.expiresUntil = 0;
    this.model.extend(visit);
    this.cookie = 'key';
  }

  private end(visit: Visit, reason: EndReason, byItsClient = false): boolean {
    const isEnded = this.model.end(visit, reason, byItsClient);
    if (isEnded) this.events.push({ event: 'ended', visit });
    return isEnded;
  }

  private endAllOf(user: User): number {
    return this.model.known.filter((visit) => visit.user === user && visit !== this.visit && this.end(visit, 'revoked'))
      .length;
  }
}
