import type { UserVisits, VisitCleanup, VisitClients, VisitLocks, VisitPages, VisitServer } from './visit.facets.js';

/** A visit as a store keeps it. Instants are milliseconds since 1970 UTC, so that no time zone can move them. */
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

/** A visit in a list: without its session data, which a list never loads. */
export type ListedVisit = Omit<VisitRecord, 'sessionData'>;

/** Who writes: the visit, and the hash of the key that the request came with. */
export interface WriteGuard {
  readonly id: string;
  /** Must be the visit's current hash, or its previous one while `previousKeyUntil` lies after `now`. */
  readonly keyHash: string;
  readonly now: number;
}

/**
 * Why a write was refused. Nothing was written. `unlocked`: the writer does not hold the lock any more that it relies
 * on.
 */
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
  /**
   * This one could not be written, for example because it is too large for the database; it says nothing of the others.
   */
  | { readonly outcome: 'failed'; readonly error: unknown };

/** A later expiry for a visit that was used. Instants are milliseconds since 1970. */
export interface Touch {
  readonly id: string;
  readonly accessed: number;
  readonly expiry: number;
  /**
   * `keyChanged` as the request knew it. A visit whose key was changed later is left alone: a change of rights may have
   * given it a shorter life than the one that this was made for. Left out, it does not matter.
   */
  readonly keyChanged?: number;
}

/**
 * As `previousKeyUntil`: the client has not been seen with the current key. The response that brought it may be lost,
 * so the previous key works until it has. The last instant of `Date`.
 */
export const UNSEEN = 8_640_000_000_000_000;

export interface Rekey extends WriteGuard {
  readonly newKeyHash: string;
  /**
   * A renewal: until when the replaced key still works. Only the current key can be renewed; a key in its grace would
   * cut that grace short, for others and for itself. Null, a change of rights: the replaced key is dead at once,
   * whatever the clocks of other machines say.
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

/** Why and when visits end. */
export interface Ending {
  /** A short word such as `logout`; at most 32 characters. */
  readonly reason: string;
  readonly at: number;
  /**
   * The client ends the visit itself and knows: `previousKeyUntil` and `keyChanged` become `at`, so that a request that
   * still comes with the key is known for a late one. False for a visit that is ended from elsewhere.
   */
  readonly retiresKey?: boolean;
}

/**
 * What may not hold for a store. What a store can do besides is told by its facets (`users`, `pages`, `locks`,
 * `cleanup`, `clients`). Options and handlers that need what a store is without are refused while the application
 * starts.
 */
export interface VisitStoreCapabilities {
  /**
   * Versions, keys and locks are compared and written in one step, whoever else writes: of two saves from the same
   * version one conflicts, whatever processes they come from. Without it this holds for the calls of one store object
   * only, and there are no `locks`.
   */
  readonly atomic: boolean;
  /**
   * A visit that has ended is refused everywhere from then on. Without it, only the client that ends its own visit can
   * end it (`Ending.retiresKey`); every other `end` is refused, and there are no `users`.
   */
  readonly revocable: boolean;
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
 * - "No" is an answer: null for a visit that is not there, a refusal or a conflict for a write that may not be. A
 *   method throws only when the store itself fails, or lacks a capability; nothing of that call may have been
 *   acknowledged then.
 * - Once a call is answered, every later call sees what it wrote.
 * - Every instant comes with the call. A store goes by no clock of its own, and does not judge expiry: it returns what
 *   it has, and the application decides.
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
  /** By default all of it holds. */
  readonly capabilities: VisitStoreCapabilities = { atomic: true, revocable: true, shared: true, durable: true };

  // What a store has or has not: an object, which may be the store itself, or undefined.
  readonly users?: UserVisits | undefined;
  readonly pages?: VisitPages | undefined;
  readonly locks?: VisitLocks | undefined;
  readonly cleanup?: VisitCleanup | undefined;
  readonly clients?: VisitClients | undefined;
  readonly server?: VisitServer | undefined;

  /**
   * Resolves when the store can be used; throws an error that says what to do when it cannot (for example: which
   * migration to run).
   */
  abstract check(): Promise<void>;

  /**
   * The visits with these ids (each id at most once), or null where there is none; ended and expired ones too. Ids in
   * another case are others.
   */
  abstract find(ids: readonly string[]): Promise<(VisitRecord | null)[]>;

  /**
   * Inserts visits as they are, with their identities. None of them has ended; one that moves in from another store has
   * a past: a previous key, and a version. An id that exists already is an error, and nothing of that call is stored.
   */
  abstract create(visits: readonly VisitRecord[]): Promise<void>;

  /**
   * Writes session data, each as a compare-and-set on its version: `saved` raises it by one, and null empties the
   * session. Only while the visit is not ended, the guard holds, and the lock is held that the save relies on. A guard
   * that does not hold is told before a conflict. Of one visit twice in a list, the second is a conflict.
   */
  abstract save(saves: readonly SessionSave[]): Promise<SaveResult[]>;

  /**
   * Moves `accessed` and `expiry` forward, each by itself, never back; leaves ended and unknown visits alone, and those
   * whose key was changed since the touch was made (`Touch.keyChanged`).
   */
  abstract touch(touches: readonly Touch[]): Promise<void>;

  /**
   * Replaces keys and, in the same step, links or unlinks identities. Only while the visit is not ended and the guard
   * holds, and for a renewal (`previousKeyUntil`) only with the current key. `keyChanged` becomes `now`.
   */
  abstract rekey(changes: readonly Rekey[]): Promise<RekeyResult[]>;

  /**
   * Ends visits, wipes their data, which raises the version, and unlinks nobody (the row still tells whose it was). The
   * ids that this call ended: a visit that has ended before keeps its instant and its reason, and one that is not there
   * is none. Expiry does not matter. Needs a store that is `revocable`, unless `retiresKey` is set.
   */
  abstract end(ids: readonly string[], ending: Ending): Promise<string[]>;

  /** Closes what the store opened itself. Called once, after the last request. */
  abstract close(): Promise<void>;
}
