import { VisitStoreUnsupportedError } from '../errors/visit.error.js';

/** A visit as a store keeps it. Instants are milliseconds since 1970 UTC, so that no time zone can move them (R25). */
export interface VisitRecord {
  /** Public, random, 32 lower-case hexadecimal digits; the primary key; stays for the life of the visit. */
  readonly id: string;
  /** SHA-256 of the secret in the cookie, 64 lower-case hexadecimal digits. */
  readonly keyHash: string;
  /** The hash that was replaced last, or null. */
  readonly previousKeyHash: string | null;
  /** Until when the previous hash is as good as the current one; null: it has not been since it was replaced. */
  readonly previousKeyUntil: number | null;
  /** When the current key was made. */
  readonly keyChanged: number;
  readonly created: number;
  /** When the visit was last used, as far as it has been recorded. */
  readonly accessed: number;
  readonly expiry: number;
  /** The instant that no activity moves, or null. */
  readonly absoluteExpiry: number | null;
  readonly endedAt: number | null;
  readonly endReason: string | null;
  readonly permanent: boolean;
  readonly remoteAddress: string | null;
  readonly userAgent: string | null;
  /** The encoded session, or null when it is empty. */
  readonly sessionData: Uint8Array | null;
  /** Grows by one with every write of `sessionData`. Starts at 0. */
  readonly sessionVersion: number;
  readonly identity: IdentityRecord | null;
}

/** Whose a visit is. */
export interface IdentityRecord {
  /** At most 255 characters; compared byte by byte. */
  readonly userId: string;
  /** When this user was linked to this visit. */
  readonly created: number;
  /** When the user last proved who they are. */
  readonly authenticatedAt: number;
}

/** What a visit has only after some life. */
type Past = 'previousKeyHash' | 'previousKeyUntil' | 'keyChanged' | 'sessionVersion';

/**
 * A visit to insert, which has not ended. A new one has no previous key, `keyChanged` is `created`, and `sessionVersion` 0; one that moves
 * in from another store brings these along.
 */
export type NewVisitRecord = Omit<VisitRecord, Past | 'endedAt' | 'endReason'> & Partial<Pick<VisitRecord, Past>>;

/** Who writes: the visit, and the hash of the key that the request came with. */
export interface WriteGuard {
  readonly id: string;
  /** Must be the visit's current hash, or its previous one while `previousKeyUntil` lies after `now`. */
  readonly keyHash: string;
  readonly now: number;
}

/** Why a write was refused. Nothing was written. `unlocked`: the writer does not hold the lock any more that it relies on. */
export type Refusal = 'unknown' | 'ended' | 'retired' | 'unlocked';

export interface SessionSave extends WriteGuard {
  /** The version the new data was made from. */
  readonly version: number;
  readonly data: Uint8Array | null;
  /** Who must hold the lock of the visit at `now`, in a lease that has not run out; left out, locks do not matter. */
  readonly lockOwner?: string;
}

/** What became of one save of a group. */
export type SaveResult =
  | { readonly outcome: 'saved'; readonly version: number }
  /** The version has moved on; here is what is stored now. */
  | { readonly outcome: 'conflict'; readonly version: number; readonly data: Uint8Array | null }
  | { readonly outcome: 'refused'; readonly reason: Refusal }
  /** This one could not be written, for example because it is too large for the database; it says nothing of the others. */
  | { readonly outcome: 'failed'; readonly error: unknown };

/** A later expiry for a visit that was used. Instants are milliseconds since 1970. */
export interface Touch {
  readonly id: string;
  readonly accessed: number;
  readonly expiry: number;
  /**
   * `keyChanged` as the request knew it. A visit whose key was changed later is left alone: a change of rights may have given it a shorter
   * life than the one that this was made for. Left out, it does not matter.
   */
  readonly keyChanged?: number;
}

/**
 * As `previousKeyUntil`: the client has not been seen with the current key. The response that brought it may be lost, so the previous key
 * works until it has. The last instant of `Date`.
 */
export const UNSEEN = 8_640_000_000_000_000;

export interface Rekey extends WriteGuard {
  readonly newKeyHash: string;
  /**
   * A renewal: until when the replaced key still works. Only the current key can be renewed; a key in its grace would cut
   * that grace short, for others and for itself. Null, a change of rights: the replaced key is dead at once, whatever
   * the clocks of other machines say.
   */
  readonly previousKeyUntil: number | null;
  /** What is kept as the previous hash, where it is not the one that is replaced: see `UNSEEN`. */
  readonly previousKeyHash?: string;
  /** The identity from now on: a record links, null unlinks, undefined leaves it. */
  readonly identity?: IdentityRecord | null;
  readonly permanent?: boolean;
  /** A renewal only moves the stored expiry forward. A change of rights sets it, also to an earlier instant. */
  readonly expiry?: number;
  /** The instant that no activity moves, from now on; null: there is none. Undefined leaves it. */
  readonly absoluteExpiry?: number | null;
}

/** What became of a change of the key. */
export type RekeyResult = { readonly outcome: 'done' } | { readonly outcome: 'refused'; readonly reason: Refusal };

export interface Lock extends WriteGuard {
  /** Who wants the lock: 32 random hexadecimal digits. */
  readonly owner: string;
  /** The lock is free again at this instant, whatever became of its owner. */
  readonly until: number;
  /**
   * Only lengthens the lease that this owner holds at `now`. One that has run out is lost, also when nobody else has had it since: an owner
   * that stood still cannot tell. Then it is refused as `unlocked`. @default false
   */
  readonly renews?: boolean;
}

/** `held`: somebody else has it. */
export type LockResult = { readonly outcome: 'locked' | 'held' } | { readonly outcome: 'refused'; readonly reason: Refusal };

/** Why and when visits end. */
export interface Ending {
  /** A short word such as `logout`; at most 32 characters. */
  readonly reason: string;
  readonly at: number;
  /**
   * The client ends the visit itself and knows: `previousKeyUntil` and `keyChanged` become `at`, so that a request that still comes with
   * the key is known for a late one. False for a visit that is ended from elsewhere.
   */
  readonly retiresKey?: boolean;
}

/** One page of a list of visits. */
export interface VisitPage {
  readonly visits: VisitRecord[];
  /** Where the next page begins; null: there is none. */
  readonly next: string | null;
}

/** What a client is to keep of its visit. */
export interface ClientCopy {
  readonly text: string;
  /** The hash of the key that it was made with: whoever gets this copy must hold that key, or still have it in its grace. */
  readonly keyHash: string;
}

/** One request and its response, as a store sees them that keeps visits with their clients. */
export interface Attendance {
  /**
   * These visits are in use by the request: what is found of them in the texts that its client brought is known to the store until
   * `leave`, and so is what is created of them. Texts that are damaged, foreign or of other visits are passed over; that is no error.
   *
   * @throws VisitEndedError when the client has left already
   */
  hold(ids: readonly string[], texts: readonly string[]): Promise<void>;
  /** The headers leave now: what the client is to keep from here on. Undefined: nothing has changed, or the guard does not hold. */
  copyFor(guard: WriteGuard): ClientCopy | undefined;
  /** The response is finished, or the client went away. */
  leave(): void;
}

/** How many rows were deleted, or would be. */
export interface StaleCounts {
  visits: number;
  identities: number;
}

/**
 * What a store may be without. Where one of these is false, the store refuses what it cannot give with `VisitStoreUnsupportedError`, instead
 * of an answer that is half right; the module refuses options that need it while the application starts.
 */
export interface VisitStoreCapabilities {
  /**
   * Versions, keys and locks are compared and written in one step, whoever else writes: of two saves from the same version one
   * conflicts, whatever processes they come from. Without it this holds for the calls of one store object only, and `lock` is refused.
   */
  readonly atomic: boolean;
  /**
   * A visit that has ended is refused everywhere from then on. Without it, only the client that ends its own visit can end it
   * (`Ending.retiresKey`); every other `end` is refused, and so are `endAllForUser` and `endEverything`.
   */
  readonly revocable: boolean;
  /**
   * Visits can be looked through. Without it, `listForUser`, `userAgentsOf`, `liveVisits`, `endAllForUser` and `endEverything` are refused,
   * `endedAllAt` gives null, and the store lets go of stale visits by itself: `expunge`, `wipe` and what counts for them give 0.
   */
  readonly listable: boolean;
  /** Several processes see the same visits. Without it, the module warns in production. */
  readonly shared: boolean;
  /** Visits survive a restart. */
  readonly durable: boolean;
}

/**
 * Where visits are kept. The contract and its injection token.
 *
 * What holds for all methods:
 *
 * - Lists in, answers in the same order, one for each. An empty list is a question without an answer, not an error.
 * - "No" is an answer: null for a visit that is not there, a refusal or a conflict for a write that may not be. A method throws only when
 *   the store itself fails, or lacks a capability; nothing of that call may have been acknowledged then.
 * - Once a call is answered, every later call sees what it wrote.
 * - Every instant comes with the call. A store goes by no clock of its own, and does not judge expiry: it returns what it has, and the application
 *   decides.
 * - What a caller holds and what is stored share no bytes.
 *
 * The laws of writing, also when calls meet:
 *
 * - Only `create` brings a visit into being; no other method may make one live that has ended.
 * - A method writes its own columns and no others.
 * - `save`, `rekey` and `lock` compare and write in one step.
 * - `accessed` and `expiry` only move forward, but for a change of rights (`rekey`), which sets the expiry.
 *
 * `describeVisitStore` of `nest-visit/testing` holds a store to all of this.
 */
export abstract class VisitStore {
  /** What this store can give. By default all of it. */
  readonly capabilities: VisitStoreCapabilities = { atomic: true, revocable: true, listable: true, shared: true, durable: true };

  /** Resolves when the store can be used; throws an error that says what to do when it cannot (for example: which migration to run). */
  abstract check(): Promise<void>;

  /** The visits with these ids (each id at most once), or null where there is none; ended and expired ones too. Ids in another case are others. */
  abstract find(ids: readonly string[]): Promise<(VisitRecord | null)[]>;

  /** Inserts visits, with their identities. An id that exists already is an error, and nothing of that call is stored. */
  abstract create(visits: readonly NewVisitRecord[]): Promise<void>;

  /**
   * Writes session data, each as a compare-and-set on its version: `saved` raises it by one, and null empties the session. Only while the
   * visit is not ended, the guard holds, and the lock is held that the save relies on. A guard that does not hold is told before a
   * conflict. Of one visit twice in a list, the second is a conflict.
   */
  abstract save(saves: readonly SessionSave[]): Promise<SaveResult[]>;

  /**
   * Moves `accessed` and `expiry` forward, each by itself, never back; leaves ended and unknown visits alone, and those whose key was changed
   * since the touch was made (`Touch.keyChanged`).
   */
  abstract touch(touches: readonly Touch[]): Promise<void>;

  /**
   * Replaces keys and, in the same step, links or unlinks identities. Only while the visit is not ended and the guard holds, and for a
   * renewal (`previousKeyUntil`) only with the current key. `keyChanged` becomes `now`.
   */
  abstract rekey(changes: readonly Rekey[]): Promise<RekeyResult[]>;

  /**
   * Takes the exclusive lock of a visit, again where this owner holds it already, or renews its lease. Only while the visit is not ended
   * and the guard holds. A lock is free from `until` on. Needs a store that is `atomic`.
   */
  abstract lock(lock: Lock): Promise<LockResult>;

  /** Gives the lock back; nothing happens if somebody else holds it by now, or the visit is not there. */
  abstract unlock(id: string, owner: string): Promise<void>;

  /**
   * Ends visits, wipes their data, which raises the version, and unlinks nobody (the row still tells whose it was). The ids that this call
   * ended: a visit that has ended before keeps its instant and its reason, and one that is not there is none. Expiry does not matter.
   * Needs a store that is `revocable`, unless `retiresKey` is set.
   */
  abstract end(ids: readonly string[], ending: Ending): Promise<string[]>;

  /** The visits of a user that are neither ended nor expired at `now`, the most recently used first. Needs a store that is `listable`. */
  abstract listForUser(userId: string, now: number): Promise<VisitRecord[]>;

  /**
   * Some `limit` of the visits that are neither ended nor expired at `now`, for moving to another store. `after` is '' at first, and then
   * the `next` of the page before; null: there are no more. What is live all the while comes at least once. By default refused. Needs a
   * store that is `listable`.
   */
  async liveVisits(_page: { readonly after: string; readonly limit: number; readonly now: number }): Promise<VisitPage> {
    throw new VisitStoreUnsupportedError('liveVisits', 'listable');
  }

  /**
   * The User-Agent headers, each once, of the visits of a user that were linked to them before that instant: as many of those as are
   * still there, ended and expired ones too. Needs a store that is `listable`.
   */
  abstract userAgentsOf(userId: string, before: number): Promise<(string | null)[]>;

  /**
   * Ends all visits of a user but `except`, expired ones too, and remembers when. The ids that this call ended. Needs a store that is
   * `listable` and `revocable`.
   *
   * First it remembers, then it looks which visits there are: a sign-in that links the user afterwards finds by
   * `endedAllAt` that it began too early.
   */
  abstract endAllForUser(userId: string, ending: Ending & { readonly except?: string }): Promise<string[]>;

  /**
   * Ends every visit that has not ended, and remembers when, as `endAllForUser` does. What begins meanwhile may stay. How many. Needs a store
   * that is `listable` and `revocable`.
   */
  abstract endEverything(ending: Ending): Promise<number>;

  /**
   * When `endAllForUser` or `endEverything` last ended all visits of the user, whichever is later, or null if never, or so long ago that it
   * has been expunged. The latest instant counts, in whatever order they came.
   */
  abstract endedAllAt(userId: string): Promise<number | null>;

  /**
   * Deletes at most `limit` visits that expired or ended before `before`, with their identities, and what is remembered of ends before
   * then. How many; 0 visits: done. A visit that has been touched meanwhile stays.
   */
  abstract expunge(batch: { readonly before: number; readonly limit: number }): Promise<StaleCounts>;

  /** How many visits and identities `expunge` would delete. */
  abstract countStale(before: number): Promise<StaleCounts>;

  /** Empties the session data of at most `limit` visits that expired before `before`, and raises their version. How many; 0: done. */
  abstract wipe(batch: { readonly before: number; readonly limit: number }): Promise<number>;

  /** How many visits `wipe` would empty. */
  abstract countUnwiped(before: number): Promise<number>;

  /**
   * Only for a store that keeps visits with their clients, in a second cookie beside that of the key; all others leave it out. Called when
   * a request comes in that may have a visit. A write of such a store resolves when the copy for the client is made, since headers cannot
   * wait for it.
   *
   * @param room how many characters the copy may have
   */
  attend?(room: number): Attendance;

  /**
   * How many calls it can have under way at once. Where that is known, writes leave some of them to reads, and wait their turn; by default
   * undefined: any number.
   */
  get connections(): number | undefined {
    return undefined;
  }

  /**
   * Whether visits lie on several servers, of which one may be away. Then each call is about one visit, as a group would fail as a whole.
   * By default they do not.
   */
  get isDivided(): boolean {
    return false;
  }

  /**
   * Nobody waits longer for a call (option `storeTimeout`, in milliseconds). Said once, before `check`. A store that holds connections closes
   * one that has not answered by then, instead of using it again: it may lead nowhere. By default nothing happens.
   */
  setDeadline(_milliseconds: number): void {}

  /**
   * What time it is by the clock that all processes share, such as the database's, in milliseconds since 1970, to the second at least. Only
   * compared with the application's clock, before much is deleted or ended by it. Left out, or undefined: there is no such clock, or it
   * cannot be asked.
   */
  serverTime?(): Promise<number | undefined>;

  /** Closes what the store opened itself. Called once, after the last request. */
  abstract close(): Promise<void>;
}
