import type { Ending, ListedVisit, Refusal, WriteGuard } from './visit.store.js';

// The optional features of stores.

/** Lists and ends the visits of users. For stores that are `revocable`. */
export interface UserVisits {
  /**
   * Returns at most `limit` visits of a user that are neither ended nor expired at `now`: the most recently used first,
   * and for equal instants the lowest id first. `after` is the `next` of the previous page. A visit that is used
   * between two pages moves to the front, so it may be missing or occur twice.
   */
  listForUser(list: UserList): Promise<VisitPage<ListPosition>>;

  /**
   * Returns the distinct User-Agent headers of the stored visits that were linked to the user before this instant,
   * including ended and expired ones.
   */
  userAgentsOf(userId: string, before: number): Promise<(string | null)[]>;

  /**
   * Ends all visits of a user except `except`, including expired ones. Each call ends one batch, until `next` is null.
   * The first batch stores the instant.
   *
   * The instant is stored before the store looks for visits: a sign-in that links the user later finds by `revokedAt`
   * that it began too early. A visit that has been linked to another user in the meantime is not ended. A visit that
   * was linked before the first batch must not be missed, even if its key is renewed meanwhile.
   */
  endAllForUser(batch: UserEndingBatch): Promise<EndedBatch>;

  /**
   * Ends all visits that have not ended. Each call ends one batch, until `next` is null. The first batch stores the
   * instant, as in `endAllForUser`. Visits that begin meanwhile may remain.
   */
  endAll(batch: EndingBatch): Promise<EndedBatch>;

  /**
   * Returns when `endAllForUser` or `endAll` last ended all visits of the user, whichever is later; null if never, or
   * if the instant has been expunged. The latest instant counts, in whatever order they were stored.
   */
  revokedAt(userId: string): Promise<number | null>;
}

/** The position in a list of visits by use: it continues behind this visit. */
export interface ListPosition {
  readonly accessed: number;
  readonly id: string;
}

/** Which visits of a user are listed. */
export interface UserList {
  readonly userId: string;
  readonly now: number;
  /** 1 or more. */
  readonly limit: number;
  /** If not set, the list begins at the start. */
  readonly after?: ListPosition | undefined;
}

/** The next batch of visits to end. */
export interface EndingBatch {
  readonly ending: Ending;
  /** About how many visits to end in one call. */
  readonly limit: number;
  /** The `next` of the previous batch. If not set, the first batch. */
  readonly after?: unknown;
}

/** The next batch of visits of a user to end. */
export interface UserEndingBatch extends EndingBatch {
  readonly userId: string;
  /** The id of a visit that must not end. */
  readonly except?: string | undefined;
}

/** The result of one batch. */
export interface EndedBatch {
  /** The ids that this call has ended. */
  readonly ended: string[];
  /** The start of the next batch, in any form that the store chooses. Null: done. */
  readonly next: unknown;
}

/** One page of a list of visits. */
export interface VisitPage<Position = string> {
  readonly visits: ListedVisit[];
  /** The start of the next page. Null: no more pages. */
  readonly next: Position | null;
}

/** Goes through all visits, page by page, to move them to another store. */
export interface VisitPages {
  /**
   * Returns about `limit` visits that are neither ended nor expired at `now`. `after` is '' for the first page, then
   * the `next` of the previous page; null: no more pages. A visit that is live during the whole iteration occurs at
   * least once.
   */
  liveVisits(page: { readonly after: string; readonly limit: number; readonly now: number }): Promise<VisitPage>;
}

export interface Lock extends WriteGuard {
  /** The owner of the lock: 32 random hexadecimal digits. */
  readonly owner: string;
  /** When the lock becomes free, whatever happens to its owner. */
  readonly until: number;
  /**
   * Whether to only extend the lease that this owner holds at `now`. An expired lease is lost even if no other owner
   * has had it since, because an owner that was suspended cannot know. It is then refused with `unlocked`. @default
   * false
   */
  readonly renews?: boolean;
}

/** The result of taking a lock. `held`: another owner has it. */
export type LockResult =
  | { readonly outcome: 'locked' | 'held' }
  | { readonly outcome: 'refused'; readonly reason: Refusal };

/** Gives exclusive access to visits. For stores that are `atomic`. */
export interface VisitLocks {
  /**
   * Takes the exclusive lock of a visit, even if this owner already holds it, or renews its lease. It is refused if the
   * visit has ended or the guard does not hold. A lock is free from `until` on.
   */
  lock(lock: Lock): Promise<LockResult>;

  /** Releases the lock. Does nothing if another owner holds it, or if the visit does not exist. */
  unlock(id: string, owner: string): Promise<void>;
}

/** How many rows were deleted, or would be deleted. */
export interface StaleCounts {
  readonly visits: number;
  readonly identities: number;
}

/** The next batch of a clean-up. */
export interface CleanUpBatch {
  readonly before: number;
  /** The maximum number of visits in one call. */
  readonly limit: number;
  /** The `next` of the previous batch. If not set, the first batch. */
  readonly after?: unknown;
  /** Whether to count only. The store may count in as many batches as it likes. @default false */
  readonly dryRun?: boolean;
}

/** Visits that clean-up has skipped. */
export interface KeptVisits {
  readonly visits: number;
  /** The names of the constraints, if the database provides them. */
  readonly constraints: readonly string[];
}

/** The result of one batch of `expunge`. */
export interface ExpungedBatch extends StaleCounts {
  /**
   * Visits that are kept because rows of other tables refer to them with a restricting foreign key. If not set: none.
   */
  readonly kept?: KeptVisits;
  /** The start of the next batch, in any form that the store chooses. Null: done. */
  readonly next: unknown;
}

/** The result of one batch of `wipe`. */
export interface WipedBatch {
  readonly visits: number;
  /** The start of the next batch, as in `ExpungedBatch`. */
  readonly next: unknown;
}

/** Deletes stale visits and wipes session data. A store without this facet does so by itself. */
export interface VisitCleanup {
  /**
   * Deletes at most `limit` visits that expired or ended before `before`, with their identities. At the end, it also
   * deletes instants of `endAll` and `endAllForUser` from before then. A visit that has been touched meanwhile is kept.
   */
  expunge(batch: CleanUpBatch): Promise<ExpungedBatch>;

  /** Wipes the session data of at most `limit` visits that expired before `before`, and increments their version. */
  wipe(batch: CleanUpBatch): Promise<WipedBatch>;
}

/** The copy of a visit for its client. */
export interface ClientCopy {
  readonly text: string;
  /**
   * The hash of the key at that time. The client that receives this copy must have this key, or still have it within
   * its grace period.
   */
  readonly keyHash: string;
}

/** The storage of one request and its response, for a store that keeps visits in clients. */
export interface ClientStorage {
  /**
   * Begins the use of these visits by the request: what the texts of its client contain of them is known to the store
   * until `close`, and so are visits that it creates. Texts that are damaged, foreign or belong to other visits are
   * ignored.
   *
   * @throws VisitEndedError if it has already been closed
   */
  load(ids: readonly string[], texts: readonly string[]): Promise<void>;
  /**
   * Called when the headers are sent. Returns the copy for the client, or undefined if nothing has changed or the guard
   * does not hold.
   */
  copyFor(guard: WriteGuard): ClientCopy | undefined;
  /** Called when the response is finished or the client has disconnected. */
  close(): void;
}

/** Visits that clients store, in a second cookie beside that of the key. */
export interface VisitClients {
  /**
   * Called when a request arrives that may have a visit. A write of such a store resolves when the copy for the client
   * exists, because headers cannot wait for it.
   *
   * @param maxLength the maximum length of the copy, in characters
   */
  openStorage(maxLength: number): ClientStorage;
}

/** The server behind a store. */
export interface VisitServer {
  /**
   * The number of concurrent calls that it supports. Writes leave some of them to reads, and wait. If not set: no
   * limit.
   */
  readonly connections?: number | undefined;

  /**
   * Whether visits are distributed over several servers that can fail independently. Then each call is about one visit,
   * because a group would fail as a whole. @default false
   */
  readonly isDivided?: boolean | undefined;

  /**
   * Returns the time of a clock that all processes share, such as the database's, in milliseconds since 1970, with a
   * precision of at least one second. It is only compared with the application's clock, before clean-up or the end of
   * many visits. Not set, or undefined: there is no such clock, or it cannot be read.
   */
  serverTime?(): Promise<number | undefined>;

  /**
   * Called once, before `check`, with the option `storeTimeout` in milliseconds: callers do not wait longer for a call.
   * A store that holds connections should close one that has not answered by then, because it may be broken.
   */
  setDeadline?(milliseconds: number): void;

  /**
   * Returns the columns that need an index and have none, such as `visit.expiry`. Used only by the command `doctor`. If
   * not set: unknown.
   */
  missingIndexes?(): Promise<string[]>;

  /**
   * Called before each call, in the asynchronous context of the caller. Throws if that context holds the only
   * connection, because the call would wait for itself.
   *
   * @throws VisitOpenTransactionError
   */
  requireConnection?(): void;
}
