import type { Exchange } from '../platform/exchange.js';
import type { KeySource, ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { StoreAccess } from '../store/store-access.js';
import type { ClientStorage } from '../store/visit.facets.js';
import { UNSEEN, type VisitRecord } from '../store/visit.store.js';
import type { VisitCookie } from './visit-cookie.js';
import { VisitKey } from './visit-key.js';

/**
 * How long a request may take to arrive while its key is replaced, in milliseconds. Within this time it is taken for a
 * late one; a client that still comes with the old key afterwards has missed the new one, and gets a fresh visit.
 */
export const LATE_REQUEST_WINDOW = 10_000;

export const NO_KEY = { outcome: 'none', presented: 'nothing', refused: [] } as const;

export type Resolution =
  /** No well-formed key came with the request: the store is not asked. */
  | typeof NO_KEY
  | { readonly outcome: 'found'; readonly record: VisitRecord; readonly key: VisitKey }
  /** The key has just been replaced or ended by its own client. */
  | { readonly outcome: 'late'; readonly key: VisitKey; readonly hasEnded: boolean }
  /** Cookies of visits of different users: who this is cannot be told. */
  | { readonly outcome: 'conflicting'; readonly refused: readonly RefusedKey[] }
  /** What has become of the keys: see `Verdict`. One that has only expired says most of its client. */
  | {
      readonly outcome: 'none';
      readonly presented: 'expired' | 'retired' | 'forged';
      readonly refused: readonly RefusedKey[];
    };

/** A key to be told of, whatever else came with it. */
export interface RefusedKey {
  readonly reason: 'retired' | 'forged' | 'conflicting';
  readonly key: VisitKey;
}

/**
 * `late`: just replaced or ended by its own client. `expired`: the visit was not used in time. `retired`: replaced, or
 * its visit ended, some time ago. `forged`: there never was such a key, as far as we know.
 */
type Verdict = 'live' | 'late' | 'expired' | 'retired' | 'forged';

/** What counts of several refused keys, in this order. */
const COUNTING = ['expired', 'retired', 'forged'] as const;

/** From a request to the visit it belongs to: sources in order, malformed keys dropped, one look-up for the rest. */
export class VisitResolver {
  constructor(
    private readonly options: Pick<ResolvedVisitOptions, 'paramName' | 'clock'>,
    private readonly cookie: VisitCookie,
    private readonly store: Pick<StoreAccess, 'find'>,
    private readonly limits: { applyTo(record: VisitRecord): VisitRecord; endOf(record: VisitRecord): number },
  ) {}

  /**
   * What becomes of these keys. Reads only.
   *
   * @throws VisitStoreUnavailableError: a failed look-up is never "no visit"
   */
  resolve(exchange: Exchange, keys: readonly VisitKey[], storage?: ClientStorage): Promise<Resolution> {
    const [key] = keys;
    if (key && keys.length === 1 && !storage)
      return this.store.find(key.id).then((record) => this.judgeAll(exchange, keys, [record]));
    return this.resolveAll(exchange, keys, storage);
  }

  private async resolveAll(
    exchange: Exchange,
    keys: readonly VisitKey[],
    storage?: ClientStorage,
  ): Promise<Resolution> {
    const ids = keys.map(({ id }) => id);
    if (storage) await storage.load(ids, this.cookie.readCopies(exchange.cookieHeader));
    // Asked for in one turn of the event loop, they go out together.
    return this.judgeAll(exchange, keys, await Promise.all(ids.map((id) => this.store.find(id))));
  }

  private judgeAll(
    exchange: Exchange,
    keys: readonly VisitKey[],
    records: readonly (VisitRecord | null)[],
  ): Resolution {
    const now = this.options.clock.now();
    const verdicts = new Map<Verdict, { readonly key: VisitKey; readonly record: VisitRecord | null }>();
    const refused: RefusedKey[] = [];
    const live: { readonly record: VisitRecord; readonly key: VisitKey }[] = [];
    for (const [index, key] of keys.entries()) {
      const found = records[index];
      const record = found ? this.limits.applyTo(found) : null;
      const verdict = record ? this.judge(record, key, now) : 'forged';
      if (verdict === 'live') live.push({ record: record!, key });
      if (!verdicts.has(verdict)) verdicts.set(verdict, { key, record });
      if (verdict === 'retired' || verdict === 'forged') refused.push({ reason: verdict, key });
    }
    const [first] = live;
    if (first) {
      if (live.length === 1) return { outcome: 'found', ...first };
      // Of cookies of one name a neighbor may have brought some, and which cannot be told (A5). Sources have an order.
      const inCookies = live.filter(({ key, record }) => record.identity && exchange.cookieHeader?.includes(key.text));
      const users = new Set(inCookies.map(({ record }) => record.identity!.userId));
      if (users.size <= 1) return { outcome: 'found', ...first };
      return { outcome: 'conflicting', refused: inCookies.map(({ key }) => ({ reason: 'conflicting', key })) };
    }
    const late = verdicts.get('late');
    if (late) return { outcome: 'late', key: late.key, hasEnded: late.record?.endedAt != null };
    return { outcome: 'none', presented: COUNTING.find((verdict) => verdicts.has(verdict))!, refused };
  }

  /**
   * Takes the key's parameter out of query and body, wherever such a source is switched on.
   *
   * @returns whether the address had it
   */
  strip(exchange: Exchange, sources: readonly KeySource[]): boolean {
    let isInAddress = false;
    for (const source of sources) {
      if (source === 'cookie' || source === 'header') continue;
      for (const name of this.options.paramName)
        if (exchange.strip(source, name) && source === 'query') isInAddress = true;
    }
    return isInAddress;
  }

  /**
   * The well-formed keys that the request brought, each once, in the order of the sources. No query is needed to know.
   */
  keysIn(exchange: Exchange, sources: readonly KeySource[]): VisitKey[] {
    const keys: VisitKey[] = [];
    for (const source of sources) {
      for (const text of this.textsIn(exchange, source)) {
        const key = VisitKey.parse(text);
        // Each counts once, however often it came: for one look-up, and one report.
        if (key && !keys.some((one) => one.equals(key))) keys.push(key);
      }
    }
    return keys;
  }

  /**
   * Whether the client keeps its key by itself, as one does that is no browser. It hears of a new key in a header, and
   * its cookies are left alone.
   *
   * @param found the key by which its visit was found
   */
  isKeptByClient(exchange: Exchange, sources: readonly KeySource[], found: VisitKey | undefined): boolean {
    if (!sources.includes('header')) return false;
    if (!sources.includes('cookie')) return true;
    const { bearer } = exchange;
    if (!found) return this.isByHeaderAlone(exchange, sources);
    return found.text === bearer && !this.cookie.read(exchange.cookieHeader).includes(bearer);
  }

  /** Whether a key comes in the header, and none in a cookie, which browsers send by themselves. */
  isByHeaderAlone(exchange: Exchange, sources: readonly KeySource[]): boolean {
    return sources.includes('header') && !this.hasCookie(exchange) && VisitKey.parse(exchange.bearer) !== null;
  }

  /** Whether the request brings a cookie of our name, whatever is in it. */
  hasCookie({ cookieHeader }: Exchange): boolean {
    return cookieHeader !== undefined && this.cookie.read(cookieHeader).length > 0;
  }

  private textsIn(exchange: Exchange, source: KeySource): readonly (string | undefined)[] {
    if (source === 'cookie') return this.cookie.read(exchange.cookieHeader);
    if (source === 'header') return [exchange.bearer];
    return this.options.paramName.map((name) => exchange.parameter(source, name));
  }

  private judge(record: VisitRecord, key: VisitKey, now: number): Verdict {
    const current = key.matches(record.keyHash);
    const previous = key.matches(record.previousKeyHash);
    if (record.endedAt !== null) {
      if (!current && !previous) return 'forged';
      // Ended by its own client, which has been told; one that others ended comes to know it by this answer.
      const isRetired = record.keyChanged === record.endedAt && record.previousKeyUntil === record.endedAt;
      return isRetired && now < record.endedAt + LATE_REQUEST_WINDOW ? 'late' : 'retired';
    }
    if (now >= this.limits.endOf(record)) return current || previous ? 'expired' : 'forged';
    if (current || (previous && now < (record.previousKeyUntil ?? 0))) return 'live';
    // Also a secret that we no longer know: two changes may have followed each other while the request was on its way.
    const graceUntil = record.previousKeyUntil === UNSEEN ? 0 : (record.previousKeyUntil ?? 0);
    const retiredAt = Math.max(record.keyChanged, graceUntil);
    if (record.previousKeyHash !== null && now < retiredAt + LATE_REQUEST_WINDOW) return 'late';
    return previous ? 'retired' : 'forged';
  }
}
