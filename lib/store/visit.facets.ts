import type { Ending, ListedVisit, Refusal, WriteGuard } from './visit.store.js';

// What a store has or has not, beside what each store can.

/** Visits by user, in a store that is `revocable`. */
export interface UserVisits {
  /**
   * At most `limit` of the visits of a user that are neither ended nor expired at `now`: the most recently used first,
   * and of those that were used at the same instant the one with the lowest id. `after` is the `next` of the page
   * before. One that is used between two pages moves to the front, and so may be missing, or come twice.
   */
  listForUser(list: UserList): Promise<VisitPage<ListPosition>>;

  /**
   * The User-Agent headers, each once, of the visits of a user that were linked to them before that instant: as many of
   * those as are still there, ended and expired ones too.
   */
  userAgentsOf(userId: string, before: number): Promise<(string | null)[]>;

  /**
   * Ends visits of a user, expired ones too: all but `except`, one batch a call, until `next` is null. The first batch
   * remembers when.
   *
   * First it remembers, then it looks which visits there are: a sign-in that links the user afterwards finds by
   * `revokedAt` that it began too early. What is linked to somebody else when its turn comes stays; what was linked
   * before the first batch is not missed, though its key may be renewed meanwhile.
   */
  endAllForUser(batch: UserEndingBatch): Promise<EndedBatch>;

  /**
   * Ends every visit that has not ended, one batch a call, until `next` is null. The first batch remembers when, as
   * that of `endAllForUser` does. What begins meanwhile may stay.
   */
  endAll(batch: EndingBatch): Promise<EndedBatch>;

  /**
   * When `endAllForUser` or `endAll` last ended all visits of the user, whichever is later, or null if never, or so
   * long ago that it has been expunged. The latest instant counts, in whatever order they came.
   */
  revokedAt(userId: string): Promise<number | null>;
}

/** Where a list of visits by use goes on: behind this one. */
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
  /** Left out: from the beginning. */
  readonly after?: ListPosition | undefined;
}

/** Which visits are to end next. */
export interface EndingBatch {
  readonly ending: Ending;
  /** About so many in one call. */
  readonly limit: number;
  /** Where the batch before ended, as it was given as `next`; left out, from the beginning. */
  readonly after?: unknown;
}

/** As `EndingBatch`, of one user. */
export interface UserEndingBatch extends EndingBatch {
  readonly userId: string;
  /** The id of a visit that stays. */
  readonly except?: string | undefined;
}

/** What one batch has ended. */
export interface EndedBatch {
  /** The ids of those that this call ended. */
  readonly ended: string[];
  /** Where the next batch begins: whatever the store makes of it. Null: there is nothing left. */
  readonly next: unknown;
}

/** One page of a list of visits. */
export interface VisitPage<Position = string> {
  readonly visits: ListedVisit[];
  /** Where the next page begins; null: there is none. */
  readonly next: Position | null;
}

/** All visits, page by page: to move them to another store. */
export interface VisitPages {
  /**
   * Some `limit` of the visits that are neither ended nor expired at `now`. `after` is '' at first, and then the `next`
   * of the page before; null: there are no more. What is live all the while comes at least once.
   */
  liveVisits(page: { readonly after: string; readonly limit: number; readonly now: number }): Promise<VisitPage>;
}

export interface Lock extends WriteGuard {
  /** Who wants the lock: 32 random hexadecimal digits. */
  readonly owner: string;
  /** The lock is free again at this instant, whatever became of its owner. */
  readonly until: number;
  /**
   * Only lengthens the lease that this owner holds at `now`. One that has run out is lost, also when nobody else has
   * had it since: an owner that stood still cannot tell. Then it is refused as `unlocked`. @default false
   */
  readonly renews?: boolean;
}

/** `held`: somebody else has it. */
export type LockResult =
  | { readonly outcome: 'locked' | 'held' }
  | { readonly outcome: 'refused'; readonly reason: Refusal };

/** Exclusive access to visits, in a store that is `atomic`. */
export interface VisitLocks {
  /**
   * Takes the exclusive lock of a visit, again where this owner holds it already, or renews its lease. Only while the
   * visit is not ended and the guard holds. A lock is free from `until` on.
   */
  lock(lock: Lock): Promise<LockResult>;

  /** Gives the lock back; nothing happens if somebody else holds it by now, or the visit is not there. */
  unlock(id: string, owner: string): Promise<void>;
}

/** How many rows were deleted, or would be. */
export interface StaleCounts {
  readonly visits: number;
  readonly identities: number;
}

/** What clean-up is to do next. */
export interface CleanUpBatch {
  readonly before: number;
  /** At most so many visits in one call. */
  readonly limit: number;
  /** Where the batch before ended, as it was given as `next`; left out, from the beginning. */
  readonly after?: unknown;
  /** Only counts: what is to come, in as many batches as the store likes. @default false */
  readonly dryRun?: boolean;
}

/** Visits that clean-up has passed over. */
export interface KeptVisits {
  readonly visits: number;
  /** The names of the constraints, as far as the database gives them. */
  readonly constraints: readonly string[];
}

/** What one batch has done. */
export interface ExpungedBatch extends StaleCounts {
  /** Visits that stay, because rows of other tables refer to them, by foreign keys that restrict. Left out: none. */
  readonly kept?: KeptVisits;
  /** Where the next batch begins: whatever the store makes of it. Null: there is nothing left. */
  readonly next: unknown;
}

/** What one batch has emptied. */
export interface WipedBatch {
  readonly visits: number;
  /** As `ExpungedBatch.next`. */
  readonly next: unknown;
}

/** Removes what has outlived its use. A store without this lets go of it by itself. */
export interface VisitCleanup {
  /**
   * Deletes at most `limit` visits that expired or ended before `before`, with their identities; at the end, what is
   * remembered of ends before then. A visit that has been touched meanwhile stays.
   */
  expunge(batch: CleanUpBatch): Promise<ExpungedBatch>;

  /** Empties the session data of at most `limit` visits that expired before `before`, and raises their version. */
  wipe(batch: CleanUpBatch): Promise<WipedBatch>;
}

/** What a client is to keep of its visit. */
export interface ClientCopy {
  readonly text: string;
  /**
   * The hash of the key that it was made with: whoever gets this copy must hold that key, or still have it in its
   * grace.
   */
  readonly keyHash: string;
}

/** One request and its response, as a store sees them that keeps visits with their clients. */
export interface ClientStorage {
  /**
   * These visits are in use by the request: what is found of them in the texts that its client brought is known to the
   * store until `close`, and so is what is created of them. Texts that are damaged, foreign or of other visits are
   * passed over; that is no error.
   *
   * @throws VisitEndedError when it has been closed already
   */
  load(ids: readonly string[], texts: readonly string[]): Promise<void>;
  /**
   * The headers leave now: what the client is to keep from here on. Undefined: nothing has changed, or the guard does
   * not hold.
   */
  copyFor(guard: WriteGuard): ClientCopy | undefined;
  /** The response is finished, or the client went away. */
  close(): void;
}

/** Visits that their clients keep, in a second cookie beside that of the key. */
export interface VisitClients {
  /**
   * Called when a request comes in that may have a visit. A write of such a store resolves when the copy for the client
   * is made, since headers cannot wait for it.
   *
   * @param maxLength how many characters the copy may have
   */
  openStorage(maxLength: number): ClientStorage;
}

/** The server behind a store. */
export interface VisitServer {
  /**
   * How many calls it can have under way at once: writes leave some of them to reads, and wait their turn. Left out:
   * any number.
   */
  readonly connections?: number | undefined;

  /**
   * Whether visits lie on several servers, of which one may be away. Then each call is about one visit, as a group
   * would fail as a whole.
   * @default false
   */
  readonly isDivided?: boolean | undefined;

  /**
   * What time it is by the clock that all processes share, such as the database's, in milliseconds since 1970, to the
   * second at least. Only compared with the application's clock, before much is deleted or ended by it. Left out, or
   * undefined: there is no such clock, or it cannot be asked.
   */
  serverTime?(): Promise<number | undefined>;

  /**
   * Nobody waits longer for a call (option `storeTimeout`, in milliseconds). Said once, before `check`. A store that
   * holds connections closes one that has not answered by then, instead of using it again: it may lead nowhere.
   */
  setDeadline?(milliseconds: number): void;

  /**
   * The columns that rows are looked for by, and that no index begins with, such as `visit.expiry`. Asked by the
   * command `doctor` alone. Left out: it cannot be told.
   */
  missingIndexes?(): Promise<string[]>;

  /**
   * Called before each call, in the asynchronous context of whoever waits for it. Throws where that holds the only
   * connection there is, so that the call would wait for itself.
   *
   * @throws VisitOpenTransactionError
   */
  requireConnection?(): void;
}
