import type { Exchange } from '../platform/exchange.js';
import type { KeySource, ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { StoreAccess } from '../store/store-access.js';
import type { ClientStorage } from '../store/visit.facets.js';
import { UNSEEN, type VisitRecord } from '../store/visit.store.js';
import type { VisitCookie } from './visit-cookie.js';
import { VisitKey } from './visit-key.js';

/**
 * How long a request may take to arrive while its key is replaced, in milliseconds. Within this time it counts as late.
 * A client that uses the old key after that has missed the new one, and gets a new visit.
 */
export const LATE_REQUEST_WINDOW = 10_000;

export const NO_KEY = { outcome: 'none', presented: 'nothing', refused: [] } as const;

export type Resolution =
  /** The request has no well-formed key, so the store is not asked. */
  | typeof NO_KEY
  | { readonly outcome: 'found'; readonly record: VisitRecord; readonly key: VisitKey }
  /** The key has just been replaced or ended by its own client. */
  | { readonly outcome: 'late'; readonly key: VisitKey; readonly hasEnded: boolean }
  /** Cookies belong to visits of different users, so the user is unknown. */
  | { readonly outcome: 'conflicting'; readonly refused: readonly RefusedKey[] }
  /** The verdict on the keys, see `Verdict`. An expired key says most about its client. */
  | {
      readonly outcome: 'none';
      readonly presented: 'expired' | 'retired' | 'forged';
      readonly refused: readonly RefusedKey[];
    };

/** A refused key to report, whichever other keys the request has. */
export interface RefusedKey {
  readonly reason: 'retired' | 'forged' | 'conflicting';
  readonly key: VisitKey;
}

/**
 * `late`: just replaced or ended by its own client. `expired`: the visit was not used in time. `retired`: replaced, or
 * its visit ended, some time ago. `forged`: as far as is known, there never was such a key.
 */
type Verdict = 'live' | 'late' | 'expired' | 'retired' | 'forged';

/** Which of several verdicts counts, in this order. */
const COUNTING = ['expired', 'retired', 'forged'] as const;

/** Finds the visit of a request: sources in order, malformed keys ignored, and one look-up for the others. */
export class VisitResolver {
  constructor(
    private readonly options: Pick<ResolvedVisitOptions, 'paramName' | 'clock'>,
    private readonly cookie: VisitCookie,
    private readonly store: Pick<StoreAccess, 'find'>,
    private readonly limits: { applyTo(record: VisitRecord): VisitRecord; endOf(record: VisitRecord): number },
  ) {}

  /**
   * Looks up these keys. It only reads.
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
    // Look-ups in one turn of the event loop are sent together.
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
   * Removes the key's parameter from query and body, if such a source is enabled.
   *
   * @returns whether the URL had it
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

  /** The well-formed keys of the request, each once, in the order of the sources. This needs no query. */
  keysIn(exchange: Exchange, sources: readonly KeySource[]): VisitKey[] {
    const keys: VisitKey[] = [];
    for (const source of sources) {
      for (const text of this.textsIn(exchange, source)) {
        const key = VisitKey.parse(text);
        // Each key counts once: for one look-up and one report.
        if (key && !keys.some((one) => one.equals(key))) keys.push(key);
      }
    }
    return keys;
  }

  /**
   * Whether the client stores its key itself, like a native app. It receives a new key in a header, and its cookies are
   * not changed.
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

  /** Whether a key comes in the header and none in a cookie, which browsers send automatically. */
  isByHeaderAlone(exchange: Exchange, sources: readonly KeySource[]): boolean {
    return sources.includes('header') && !this.hasCookie(exchange) && VisitKey.parse(exchange.bearer) !== null;
  }

  /** Whether the request has a cookie with our name, with any value. */
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
      // Ended by its own client, which already knows. A client whose visit was ended by others learns it from this
      // response.
      const isRetired = record.keyChanged === record.endedAt && record.previousKeyUntil === record.endedAt;
      return isRetired && now < record.endedAt + LATE_REQUEST_WINDOW ? 'late' : 'retired';
    }
    if (now >= this.limits.endOf(record)) return current || previous ? 'expired' : 'forged';
    if (current || (previous && now < (record.previousKeyUntil ?? 0))) return 'live';
    // Also for an unknown secret: two changes may have followed each other while the request was in flight.
    const graceUntil = record.previousKeyUntil === UNSEEN ? 0 : (record.previousKeyUntil ?? 0);
    const retiredAt = Math.max(record.keyChanged, graceUntil);
    if (record.previousKeyHash !== null && now < retiredAt + LATE_REQUEST_WINDOW) return 'late';
    return previous ? 'retired' : 'forged';
  }
}
