import { createHash } from 'node:crypto';
import { VisitOptionError } from '../../errors/visit.error.js';
import { LONGEST_DURATION, parseDuration, type Duration } from '../../options/duration.js';
import type {
  CleanUpBatch,
  EndedBatch,
  EndingBatch,
  ExpungedBatch,
  ListPosition,
  Lock,
  LockResult,
  StaleCounts,
  UserEndingBatch,
  UserList,
  UserVisits,
  VisitCleanup,
  VisitLocks,
  VisitPage,
  VisitPages,
  VisitServer,
  WipedBatch,
} from '../visit.facets.js';
import {
  VisitStore,
  type Ending,
  type ListedVisit,
  type Refusal,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitRecord,
} from '../visit.store.js';
import { isLive, pageOf, rekeyGuard } from '../visit.record.js';
import {
  isReply,
  RedisConnection,
  type RedisVisitClient,
  type RedisVisitCluster,
  type RedisVisitConnection,
} from './redis.connection.js';
import * as scripts from './redis.scripts.js';
import { bytesOf, FIELDS, fieldsOf, LISTED_FIELDS, listedOf, recordOf, textOf } from './visit.hash.js';

/** Options of `RedisVisitStore`. Exactly one of `client` and `connection` is required. */
export interface RedisVisitStoreOptions {
  /**
   * A connected client of the application, created by `createClient()` or `createCluster()` of the package `redis`. It
   * is not closed with the store.
   */
  client?: RedisVisitClient | RedisVisitCluster;
  /**
   * Where to connect: a URL, or options of `createClient()` or `createCluster()`. Opened by `check()` or the first
   * call, and closed with the store.
   */
  connection?: RedisVisitConnection;
  /** The prefix of all keys. @default 'nest-visit:' */
  prefix?: string;
  /**
   * How long a visit is kept after it expired or ended, unless clean-up deletes it first; at least a day. @default '1d'
   */
  keepFor?: Duration;
  /** Whether to accept a server that deletes keys when its memory is full. @default false */
  allowEviction?: boolean;
}

const DAY = 86_400_000;
/** The latest time that Redis supports, beyond every `Date`. */
const LONGEST = 8_640_000_000_000_000;
/**
 * The ids of all visits are distributed over sixteen pairs of sets, by their first digit, so that the nodes of a
 * cluster share them.
 */
const SHELVES = Array.from({ length: 16 }, (_, digit) => digit.toString(16));
/** How many visits are read at once if there may be very many. */
const CHUNK = 500;
/** If a user has more entries than this, entries of deleted visits are removed. */
const MANY = 32;
const EVERYBODY = '*';

/**
 * The result of a script that may have changed the expiry or the user of a visit: its expiry, its remaining lifetime,
 * and its user.
 */
type Moved = readonly [Buffer, number, Buffer | null];

/** An id in a sorted set, with the score at the time of reading. */
interface Entry {
  readonly set: string;
  readonly id: string;
  readonly score: number;
}

/**
 * Stores visits in Redis or Valkey, on one server or a cluster: one hash for each visit, and every write of a visit is
 * one script.
 *
 * In addition, there are sorted sets of ids: one for each user, and two for each of sixteen groups, `current` and
 * `past` (ended, or expired and wiped). In a cluster, no step can write a hash and a set at once. So an id is entered
 * before its visit is created or linked, and an entry only says that it is worth looking: code that reads a set also
 * reads the visits, and ignores what does not match. A score is the instant before which there is nothing to look for.
 * After a visit is written, the call has succeeded, whatever happens to the sets: they may only miss a later score, or
 * the position of an ended visit.
 */
export class RedisVisitStore
  extends VisitStore
  implements UserVisits, VisitPages, VisitLocks, VisitCleanup, VisitServer
{
  override readonly users = this;
  override readonly pages = this;
  override readonly locks = this;
  override readonly cleanup = this;
  override readonly server = this;
  readonly #redis: RedisConnection;
  readonly #prefix: string;
  readonly #keepFor: number;
  readonly #allowEviction: boolean;

  /** @throws VisitOptionError */
  constructor({
    client,
    connection,
    prefix = 'nest-visit:',
    keepFor = '1d',
    allowEviction = false,
  }: RedisVisitStoreOptions) {
    super();
    if (!client === !connection)
      throw new VisitOptionError('RedisVisitStore needs either a "client" or a "connection"');
    // Braces say which part of a key decides on its slot.
    if (/[{}]/.test(prefix))
      throw new VisitOptionError(`"prefix" of RedisVisitStore must be without braces, got "${prefix}"`);
    const milliseconds = parseDuration(keepFor);
    if (milliseconds === null || milliseconds < DAY || milliseconds > LONGEST_DURATION)
      throw new VisitOptionError(
        '"keepFor" of RedisVisitStore must be a duration of at least "1d" and at most "36500d", got ' +
          JSON.stringify(keepFor),
      );
    this.#redis = new RedisConnection(client ? { client } : { connection: connection! });
    this.#prefix = prefix;
    this.#keepFor = milliseconds;
    this.#allowEviction = allowEviction;
  }

  get isDivided(): boolean {
    return this.#redis.isCluster;
  }

  setDeadline(milliseconds: number): void {
    this.#redis.deadline = milliseconds;
  }

  check(): Promise<void> {
    return this.#redis.check({ allowEviction: this.#allowEviction });
  }

  find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    return Promise.all(ids.map((id) => this.#read(id)));
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    if (new Set(visits.map(({ id }) => id)).size < visits.length) throw existsAlready();
    await Promise.all([
      this.#enter(visits),
      ...visits.flatMap((visit) => {
        const { id, expiry, accessed: now, identity } = visit;
        return identity ? [this.#enterForUser(identity.userId, { id, expiry, now, life: this.#lifeOf(visit) })] : [];
      }),
    ]);
    const results = await Promise.allSettled(
      visits.map((visit) => this.#onVisit(scripts.CREATE, visit.id, [textOf(this.#lifeOf(visit)), ...fieldsOf(visit)])),
    );
    const failure = results.find((result) => result.status === 'rejected');
    const isTaken = results.some((result) => result.status === 'fulfilled' && result.value === 0);
    if (!failure && !isTaken) return;
    // All or none, as far as Redis can still be reached. No client has a key of remaining visits, and they expire.
    const made = visits.filter(
      (_, index) => results[index]!.status === 'fulfilled' && (results[index] as { value: unknown }).value === 1,
    );
    await Promise.allSettled(
      made.map(({ id, keyHash, sessionVersion }) =>
        this.#onVisit(scripts.UNDO_CREATE, id, [keyHash, textOf(sessionVersion)]),
      ),
    );
    throw failure ? failure.reason : existsAlready();
  }

  save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return Promise.all(
      saves.map((save) => this.#save(save).catch((error: unknown): SaveResult => ({ outcome: 'failed', error }))),
    );
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    const moved = await Promise.all(
      touches.map(async (touch) => {
        const args = [
          textOf(touch.accessed),
          textOf(touch.expiry),
          textOf(this.#lifeOf(touch)),
          optional(touch.keyChanged),
        ];
        const reply = (await this.#onVisit(scripts.TOUCH, touch.id, args)) as Moved | null;
        return { id: touch.id, now: touch.accessed, reply };
      }),
    );
    await this.#follow(moved.flatMap(({ reply, ...one }) => (reply ? [{ ...one, reply }] : [])));
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    await Promise.all(
      changes.flatMap(({ id, now, identity, expiry = now }) =>
        identity
          ? [
              this.#enterForUser(identity.userId, {
                id,
                expiry: now,
                now,
                life: this.#lifeOf({ accessed: now, expiry }),
              }),
            ]
          : [],
      ),
    );
    const replies = await Promise.all(changes.map((change) => this.#rekey(change)));
    await this.#follow(
      replies.flatMap(([outcome, ...reply], index) => {
        const { id, now } = changes[index]!;
        return String(outcome) === 'done' ? [{ id, now, reply: reply as unknown as Moved }] : [];
      }),
    );
    // A change of rights may have moved the expiry back, so the visit must be checked earlier.
    await Promise.allSettled(
      changes.flatMap(({ id, previousKeyUntil, expiry }) =>
        previousKeyUntil === null && expiry !== undefined
          ? [this.#redis.run(scripts.LOWER, [this.#current(shelfOf(id))], [id, textOf(expiry)])]
          : [],
      ),
    );
    return replies.map(([outcome, reason]) => (String(outcome) === 'done' ? { outcome: 'done' } : refused(reason)));
  }

  async lock({ id, keyHash, now, owner, until, renews = false }: Lock): Promise<LockResult> {
    const args = [keyHash, textOf(now), owner, textOf(until), renews ? '1' : '0'];
    const [outcome, reason] = (await this.#onVisit(scripts.LOCK, id, args)) as [Buffer, Buffer?];
    return reason ? refused(reason) : { outcome: String(outcome) as 'locked' | 'held' };
  }

  async unlock(id: string, owner: string): Promise<void> {
    await this.#onVisit(scripts.UNLOCK, id, [owner]);
  }

  end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return this.#end(ids, ending);
  }

  async listForUser({ userId, now, ...page }: UserList): Promise<VisitPage<ListPosition>> {
    const entries = await this.#entriesOfUser(userId);
    const visits = await this.#list(entries.map(({ id }) => id));
    await this.#drop(
      entries.filter((_, index) => !visits[index]),
      now,
    );
    return pageOf(
      visits
        .filter((visit) => visit !== null)
        .filter((visit) => visit.identity?.userId === userId && isLive(visit, now)),
      page,
    );
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const visits = await this.#list((await this.#entriesOfUser(userId)).map(({ id }) => id));
    const earlier = visits.filter((visit) => visit?.identity?.userId === userId && visit.identity.created < before);
    return [...new Set(earlier.map((visit) => visit!.userAgent))];
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const { ids, next } = await this.#scanAll(after, limit);
    const found = await this.#list(ids);
    return {
      visits: found.filter((visit) => visit !== null).filter(({ endedAt, expiry }) => endedAt === null && expiry > now),
      next,
    };
  }

  async endAllForUser({ userId, except, ending, limit, after }: UserEndingBatch): Promise<EndedBatch> {
    if (after === undefined) await this.#remember(hashOf(userId), ending.at);
    const ids =
      (after as string[] | undefined) ??
      (await this.#entriesOfUser(userId)).map(({ id }) => id).filter((id) => id !== except);
    const rest = ids.slice(limit);
    return { ended: await this.#end(ids.slice(0, limit), ending, userId), next: rest.length > 0 ? rest : null };
  }

  async endAll({ ending, limit, after }: EndingBatch): Promise<EndedBatch> {
    if (after === undefined) await this.#remember(EVERYBODY, ending.at);
    const { ids, next } = await this.#scanAll((after as string | undefined) ?? '', Math.min(limit, CHUNK));
    return { ended: await this.#end(ids, ending), next };
  }

  async revokedAt(userId: string): Promise<number | null> {
    const set = this.#revoked();
    const scores = (await this.#redis.send(set, ['ZMSCORE', set, hashOf(userId), EVERYBODY])) as (
      | number
      | Buffer
      | null
    )[];
    const instants = scores.flatMap((score) => (score === null ? [] : [Number(String(score))]));
    return instants.length > 0 ? Math.max(...instants) : null;
  }

  async expunge({ before, limit, dryRun = false }: CleanUpBatch): Promise<ExpungedBatch> {
    if (dryRun) return { ...(await this.#countStale(before)), next: null };
    const counts = { visits: 0, identities: 0 };
    while (counts.visits < limit) {
      const entries = await this.#due([...this.#all()], before, limit - counts.visits);
      if (entries.length === 0) break;
      const seen = await Promise.all(entries.map((entry) => this.#expungeOne(entry, before)));
      await this.#settle(seen);
      for (const { deleted, identity } of seen) {
        if (deleted) counts.visits++;
        if (deleted && identity) counts.identities++;
      }
    }
    if (counts.visits >= limit) return { ...counts, next: 'more' };
    const set = this.#revoked();
    await this.#redis.send(set, ['ZREMRANGEBYSCORE', set, '-inf', `(${textOf(before)}`]);
    return { ...counts, next: null };
  }

  async #countStale(before: number): Promise<StaleCounts> {
    const counts = { visits: 0, identities: 0 };
    await this.#inspect([...this.#all()], before, ({ expiry, endedAt, hasIdentity }) => {
      if (expiry >= before && !(endedAt !== null && endedAt < before)) return;
      counts.visits++;
      if (hasIdentity) counts.identities++;
    });
    return counts;
  }

  async wipe({ before, limit, dryRun = false }: CleanUpBatch): Promise<WipedBatch> {
    if (dryRun) return { visits: await this.#countUnwiped(before), next: null };
    let wiped = 0;
    while (wiped < limit) {
      const entries = await this.#due(
        SHELVES.map((shelf) => this.#current(shelf)),
        before,
        limit - wiped,
      );
      if (entries.length === 0) break;
      // Its entry moves first, then it is wiped: a save in between finds the visit not yet wiped, and a later save adds
      // the entry again.
      await this.#retire(entries);
      const replies = await Promise.all(
        entries.map(async ({ id }) => (await this.#onVisit(scripts.WIPE, id, [textOf(before)])) as [Buffer, Buffer?]),
      );
      await this.#enter(
        replies.flatMap(([, expiry], index) =>
          expiry ? [{ id: entries[index]!.id, expiry: Number(String(expiry)) }] : [],
        ),
      );
      wiped += replies.filter(([kind]) => String(kind) === 'wiped').length;
    }
    return { visits: wiped, next: wiped >= limit ? 'more' : null };
  }

  async #countUnwiped(before: number): Promise<number> {
    let unwiped = 0;
    const sets = SHELVES.map((shelf) => this.#current(shelf));
    await this.#inspect(sets, before, ({ expiry, hasData }) => {
      if (expiry < before && hasData) unwiped++;
    });
    return unwiped;
  }

  async serverTime(): Promise<number> {
    const [seconds, microseconds] = (await this.#redis.send(this.#revoked(), ['TIME'])) as unknown[];
    return Number(String(seconds)) * 1000 + Math.floor(Number(String(microseconds)) / 1000);
  }

  close(): Promise<void> {
    return this.#redis.close();
  }

  // ---- One visit

  #read(id: string): Promise<VisitRecord | null> {
    return this.#fields(id, FIELDS, recordOf);
  }

  #list(ids: readonly string[]): Promise<(ListedVisit | null)[]> {
    return Promise.all(ids.map((id) => this.#fields(id, LISTED_FIELDS, listedOf)));
  }

  async #fields<V>(
    id: string,
    fields: readonly string[],
    read: (id: string, values: (Buffer | null)[]) => V | null,
  ): Promise<V | null> {
    const key = this.#visit(id);
    try {
      return read(id, (await this.#redis.send(key, ['HMGET', key, ...fields])) as (Buffer | null)[]);
    } catch (error) {
      // Its key contains something that is not a visit.
      if (isReply(error, 'WRONGTYPE')) return null;
      throw error;
    }
  }

  async #save({ id, keyHash, now, version, data, lockOwner = '' }: SessionSave): Promise<SaveResult> {
    const args = [keyHash, textOf(now), textOf(version), data ? '1' : '0', data ? bytesOf(data) : '', lockOwner];
    const [outcome, detail, more] = (await this.#onVisit(scripts.SAVE, id, args)) as [
      Buffer,
      Buffer | number,
      Buffer | null,
    ];
    switch (String(outcome)) {
      case 'saved':
        if (more) await this.#enter([{ id, expiry: Number(String(more)) }]).catch(() => {});
        return { outcome: 'saved', version: Number(detail) };
      case 'conflict':
        return { outcome: 'conflict', version: Number(detail), data: more };
      default:
        return refused(detail);
    }
  }

  async #rekey(change: Rekey): Promise<[unknown, ...unknown[]]> {
    const { id, keyHash, now, newKeyHash, previousKeyUntil, identity, permanent, expiry, absoluteExpiry } = change;
    const reply = await this.#onVisit(scripts.REKEY, id, [
      keyHash,
      textOf(rekeyGuard(change).now),
      newKeyHash,
      optional(previousKeyUntil),
      textOf(now),
      identity ? 'link' : identity === null ? 'unlink' : 'leave',
      identity?.userId ?? '',
      optional(identity?.created),
      optional(identity?.authenticatedAt),
      permanent === undefined ? '' : permanent ? '1' : '0',
      optional(expiry),
      absoluteExpiry === null ? 'none' : optional(absoluteExpiry),
      textOf(this.#lifeOf({ accessed: now, expiry: expiry ?? now })),
      change.previousKeyHash ?? '',
    ]);
    return reply as [unknown, ...unknown[]];
  }

  /** Ends visits, optionally only those of one user. Returns the ids that this call has ended. */
  async #end(ids: readonly string[], { at, reason, retiresKey = false }: Ending, userId?: string): Promise<string[]> {
    const args = [
      textOf(at),
      reason,
      retiresKey ? '1' : '0',
      textOf(this.#keepFor),
      userId === undefined ? '0' : '1',
      userId ?? '',
    ];
    const replies = (await Promise.all(ids.map((id) => this.#onVisit(scripts.END, id, args)))) as (
      | [Buffer, Buffer | null]
      | null
    )[];
    const ended = replies.flatMap((reply, index) => {
      const id = ids[index]!;
      if (!reply) return [];
      const [expiry, whose] = reply;
      return {
        set: this.#current(shelfOf(id)),
        id,
        score: Math.min(Number(String(expiry)), at),
        userId: whose && String(whose),
      };
    });
    await Promise.allSettled([
      this.#retire(ended),
      ...ended.flatMap((one) =>
        one.userId ? [this.#redis.run(scripts.LOWER, [this.#ofUser(one.userId)], [one.id, textOf(one.score)])] : [],
      ),
    ]);
    return ended.map(({ id }) => id);
  }

  async #expungeOne(entry: Entry, before: number) {
    const [kind, detail] = (await this.#onVisit(scripts.EXPUNGE, entry.id, [textOf(before)])) as [Buffer, Buffer?];
    const score = String(kind) === 'kept' ? Number(String(detail)) : null;
    return { entry, score, deleted: String(kind) === 'deleted', identity: Boolean(detail) };
  }

  // ---- Sets of ids

  /** Adds visits to the sets of all visits. */
  async #enter(visits: readonly { readonly id: string; readonly expiry: number }[]): Promise<void> {
    const shelves = grouped(visits, ({ id }) => this.#current(shelfOf(id)));
    await Promise.all([...shelves].map(([set, group]) => this.#enterInto(set, group, '')));
  }

  async #enterForUser(
    userId: string,
    { id, expiry, now, life }: { id: string; expiry: number; now: number; life: number },
  ): Promise<void> {
    const set = this.#ofUser(userId);
    if ((await this.#enterInto(set, [{ id, expiry }], textOf(life))) <= MANY) return;
    const entries = await this.#entriesBefore(set, now, 0, CHUNK);
    const there = await Promise.all(
      entries.map((entry) => this.#redis.send(this.#visit(entry.id), ['EXISTS', this.#visit(entry.id)])),
    );
    await this.#drop(
      entries.filter((_, index) => Number(there[index]) === 0),
      now,
    );
  }

  /** Adds ids to a set. Returns the new size of the set. */
  async #enterInto(
    set: string,
    visits: readonly { readonly id: string; readonly expiry: number }[],
    life: string,
  ): Promise<number> {
    const entries = visits.map(({ id, expiry }) => [id, textOf(expiry)]);
    const counts = await Promise.all(
      chunks(entries).map((chunk) => this.#redis.run(scripts.ENTER, [set], [life, ...chunk.flat()])),
    );
    return Math.max(0, ...counts.map(Number));
  }

  /** Removes entries whose visits do not exist, unless they may be about to be created: those have not expired. */
  #drop(entries: readonly Entry[], now: number): Promise<void> {
    return this.#settle(entries.filter(({ score }) => score < now).map((entry) => ({ entry, score: null })));
  }

  /**
   * Updates the sets after an expiry has moved or a user was linked, and extends their lifetime. This also restores a
   * lost entry.
   */
  async #follow(moved: readonly { readonly id: string; readonly now: number; readonly reply: Moved }[]): Promise<void> {
    const visits = moved.map(({ id, now, reply: [expiry, life, userId] }) => ({
      id,
      now,
      expiry: Number(String(expiry)),
      life,
      userId,
    }));
    await Promise.allSettled([
      this.#enter(visits),
      ...visits.flatMap((visit) => (visit.userId ? [this.#enterForUser(String(visit.userId), visit)] : [])),
    ]);
  }

  async #retire(entries: readonly Entry[]): Promise<void> {
    const shelves = grouped(entries, ({ id }) => shelfOf(id));
    await Promise.all(
      [...shelves].flatMap(([shelf, group]) =>
        chunks(group.map(({ id, score }) => [id, textOf(score)])).map((chunk) =>
          this.#redis.run(scripts.RETIRE, [this.#current(shelf), this.#past(shelf)], chunk.flat()),
        ),
      ),
    );
  }

  /** Changes the scores of entries, or removes them (null), if they are still as they were read. */
  async #settle(changes: readonly { readonly entry: Entry; readonly score: number | null }[]): Promise<void> {
    const sets = grouped(changes, ({ entry }) => entry.set);
    await Promise.all(
      [...sets].flatMap(([set, group]) =>
        chunks(group.map(({ entry, score }) => [entry.id, textOf(entry.score), optional(score)])).map((chunk) =>
          this.#redis.run(scripts.SETTLE, [set], chunk.flat()),
        ),
      ),
    );
  }

  /**
   * Returns some of the ids of a set, and the position to continue; '0' at the end. An id that is in the set the whole
   * time occurs at least once.
   */
  async #scan(set: string, cursor: string, count: number): Promise<[next: string, ids: string[]]> {
    const [next, members] = (await this.#redis.send(set, ['ZSCAN', set, cursor, 'COUNT', String(count)])) as [
      unknown,
      unknown[],
    ];
    // Depending on the version of the protocol, scores follow their ids or form pairs with them.
    return [String(next), members.flat().flatMap((member, index) => (index % 2 === 0 ? [String(member)] : []))];
  }

  /** Returns some of all ids, and the position to continue; '' is the start, null the end. */
  async #scanAll(after: string, count: number): Promise<{ ids: string[]; next: string | null }> {
    const sets = this.#everything();
    const [index = '', cursor = '0'] = after.split(':');
    const place = Number(index);
    const [next, ids] = await this.#scan(sets[place]!, cursor, count);
    if (next !== '0') return { ids, next: `${place}:${next}` };
    return { ids, next: place + 1 < sets.length ? `${place + 1}:0` : null };
  }

  async #entriesOfUser(userId: string): Promise<Entry[]> {
    const set = this.#ofUser(userId);
    return entriesOf(set, await this.#redis.run(scripts.ENTRIES, [set], []));
  }

  /** Returns at most `count` entries of these sets whose visits are worth looking at. */
  async #due(sets: readonly string[], before: number, limit: number): Promise<Entry[]> {
    const each = Math.min(CHUNK, Math.max(10, Math.ceil(limit / SHELVES.length)));
    const found = await Promise.all(sets.map((set) => this.#entriesBefore(set, before, 0, each)));
    return found.flat().slice(0, limit);
  }

  async #entriesBefore(set: string, before: number, offset: number, count: number): Promise<Entry[]> {
    const args = [textOf(before), String(offset), String(count)];
    return entriesOf(set, await this.#redis.run(scripts.ENTRIES_BEFORE, [set], args));
  }

  /** Passes each visit with a score before this instant to the callback, once, and changes nothing. */
  async #inspect(
    sets: readonly string[],
    before: number,
    show: (visit: { expiry: number; endedAt: number | null; hasIdentity: boolean; hasData: boolean }) => void,
  ): Promise<void> {
    const seen = new Set<string>();
    for (const set of sets) {
      for (let offset = 0; ; offset += CHUNK) {
        const entries = await this.#entriesBefore(set, before, offset, CHUNK);
        const fresh = entries.filter(({ id }) => !seen.has(id));
        for (const reply of await Promise.all(fresh.map(({ id }) => this.#onVisit(scripts.INSPECT, id, [])))) {
          if (!reply) continue;
          const [expiry, ended, hasIdentity, hasData] = reply as [Buffer, Buffer | null, number, number];
          const endedAt = ended === null ? null : Number(String(ended));
          show({ expiry: Number(String(expiry)), endedAt, hasIdentity: hasIdentity === 1, hasData: hasData === 1 });
        }
        for (const { id } of entries) seen.add(id);
        if (entries.length < CHUNK) break;
      }
    }
  }

  async #remember(whose: string, at: number): Promise<void> {
    const args = [whose, textOf(at), textOf(at - this.#keepFor), textOf(this.#keepFor)];
    await this.#redis.run(scripts.REMEMBER, [this.#revoked()], args);
  }

  // ---- Keys: the text between braces determines the slot

  #onVisit(script: scripts.Script, id: string, args: readonly (string | Buffer)[]): Promise<unknown> {
    return this.#redis.run(script, [this.#visit(id)], args);
  }

  #visit(id: string): string {
    return `${this.#prefix}visit:{${id}}`;
  }

  #ofUser(userId: string): string {
    return `${this.#prefix}user:{${hashOf(userId)}}`;
  }

  #current(shelf: string): string {
    return `${this.#prefix}current:{${shelf}}`;
  }

  #past(shelf: string): string {
    return `${this.#prefix}past:{${shelf}}`;
  }

  #revoked(): string {
    return `${this.#prefix}revoked`;
  }

  /**
   * An id moves from `current` to `past` in one step, and stays in `past` as long as its visit exists. In this order,
   * none is missed.
   */
  #everything(): string[] {
    return [...SHELVES.map((shelf) => this.#current(shelf)), ...SHELVES.map((shelf) => this.#past(shelf))];
  }

  *#all(): Iterable<string> {
    for (const shelf of SHELVES) yield* [this.#current(shelf), this.#past(shelf)];
  }

  /**
   * How long Redis keeps a visit, from now on: until it has expired, and for `keepFor` after that. Counted from its
   * last use, by the application's clock, so the server's clock does not matter.
   */
  #lifeOf({ accessed, expiry }: { readonly accessed: number; readonly expiry: number }): number {
    return Math.min(LONGEST, Math.max(0, expiry - accessed) + this.#keepFor);
  }
}

function shelfOf(id: string): string {
  return SHELVES.includes(id.charAt(0)) ? id.charAt(0) : SHELVES[0]!;
}

function entriesOf(set: string, reply: unknown): Entry[] {
  const flat = reply as unknown[];
  return Array.from({ length: flat.length / 2 }, (_, index) => ({
    set,
    id: String(flat[2 * index]),
    score: Number(String(flat[2 * index + 1])),
  }));
}

function hashOf(userId: string): string {
  return createHash('sha256').update(userId).digest('hex');
}

function optional(value: number | null | undefined): string {
  return value === null || value === undefined ? '' : textOf(value);
}

function refused(reason: unknown): { readonly outcome: 'refused'; readonly reason: Refusal } {
  return { outcome: 'refused', reason: String(reason) as Refusal };
}

function existsAlready(): Error {
  return new Error('[visit] a visit with this id already exists');
}

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

function chunks<T>(items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / CHUNK) }, (_, index) =>
    items.slice(index * CHUNK, (index + 1) * CHUNK),
  );
}
