import type { UserVisits, VisitCleanup, VisitClients, VisitLocks, VisitPages, VisitServer } from './visit.facets.js';

/** A visit as stores keep it. Instants are milliseconds since 1970 UTC, so that no time zone can change them. */
export interface VisitRecord {
  /** The public id and primary key: 32 random lower-case hexadecimal digits. It never changes. */
  readonly id: string;
  /** SHA-256 of the secret in the cookie, 64 lower-case hexadecimal digits. */
  readonly keyHash: string;
  /** The previous hash, or null. */
  readonly previousKeyHash: string | null;
  /**
   * Until when the previous hash is accepted like the current one; null: it has not been accepted since it was
   * replaced.
   */
  readonly previousKeyUntil: number | null;
  /** When the current key was created. */
  readonly keyChanged: number;
  readonly created: number;
  /** When the visit was last used, as far as this has been recorded. */
  readonly accessed: number;
  readonly expiry: number;
  /** The absolute expiry, which activity does not move, or null. */
  readonly absoluteExpiry: number | null;
  readonly endedAt: number | null;
  readonly endReason: string | null;
  readonly permanent: boolean;
  readonly remoteAddress: string | null;
  readonly userAgent: string | null;
  /** The encoded session, or null if it is empty. */
  readonly sessionData: Uint8Array | null;
  /** Incremented by every write of `sessionData`. Starts at 0. */
  readonly sessionVersion: number;
  readonly identity: IdentityRecord | null;
}

/** The user of a visit. */
export interface IdentityRecord {
  /** At most 255 characters; compared byte by byte. */
  readonly userId: string;
  /** When this user was linked to this visit. */
  readonly created: number;
  /** When the user last authenticated. */
  readonly authenticatedAt: number;
}

/** A visit in a list, without its session data. Lists never load session data. */
export type ListedVisit = Omit<VisitRecord, 'sessionData'>;

/** The condition for a write: the id of the visit, and the hash of the key that the request came with. */
export interface WriteGuard {
  readonly id: string;
  /** Must be the visit's current hash, or its previous one while `previousKeyUntil` is later than `now`. */
  readonly keyHash: string;
  readonly now: number;
}

/** Why a write was refused. Nothing was written. `unlocked`: the writer no longer holds the lock that it relies on. */
export type Refusal = 'unknown' | 'ended' | 'retired' | 'unlocked';

export interface SessionSave extends WriteGuard {
  /** The version that the new data is based on. */
  readonly version: number;
  readonly data: Uint8Array | null;
  /**
   * The owner who must hold the lock of the visit at `now`, with a lease that has not expired. If not set, locks are
   * ignored.
   */
  readonly lockOwner?: string;
}

/** The result of one save of a group. */
export type SaveResult =
  | { readonly outcome: 'saved'; readonly version: number }
  /** Another write has changed the version. This is what is stored now. */
  | { readonly outcome: 'conflict'; readonly version: number; readonly data: Uint8Array | null }
  | { readonly outcome: 'refused'; readonly reason: Refusal }
  /**
   * This save could not be written, for example because it is too large for the database. Other saves of the group are
   * not affected.
   */
  | { readonly outcome: 'failed'; readonly error: unknown };

/** A later expiry for a visit that was used. Instants are milliseconds since 1970 UTC. */
export interface Touch {
  readonly id: string;
  readonly accessed: number;
  readonly expiry: number;
  /**
   * The `keyChanged` that the request has seen. If the key was changed later, the visit is not touched, because a
   * change of rights may have given it a shorter lifetime. If not set, it is ignored.
   */
  readonly keyChanged?: number;
}

/**
 * A value of `previousKeyUntil`: the client has not used the current key yet. The response with it may be lost, so the
 * previous key is accepted until the client uses the new one. It is the latest instant of `Date`.
 */
export const UNSEEN = 8_640_000_000_000_000;

export interface Rekey extends WriteGuard {
  readonly newKeyHash: string;
  /**
   * For a renewal: until when the replaced key is accepted. Only the current key can be renewed; renewing a previous
   * key would cut its own grace period short. Null for a change of rights: the replaced key is rejected immediately,
   * whatever the clocks of other machines say.
   */
  readonly previousKeyUntil: number | null;
  /** The previous hash to store, if it is not the replaced one: see `UNSEEN`. */
  readonly previousKeyHash?: string;
  /** The new identity: a record links a user, null unlinks, undefined changes nothing. */
  readonly identity?: IdentityRecord | null;
  readonly permanent?: boolean;
  /**
   * The new expiry. A renewal only moves the stored expiry forward; a change of rights sets it, even to an earlier
   * instant.
   */
  readonly expiry?: number;
  /** The new absolute expiry; null: none. Undefined changes nothing. */
  readonly absoluteExpiry?: number | null;
}

/** The result of a change of the key. */
export type RekeyResult = { readonly outcome: 'done' } | { readonly outcome: 'refused'; readonly reason: Refusal };

/** The reason and the instant of an end. */
export interface Ending {
  /** A short word such as `logout`, at most 32 characters. */
  readonly reason: string;
  readonly at: number;
  /**
   * Whether the client ends its own visit. Then `previousKeyUntil` and `keyChanged` become `at`, so that a late request
   * with the key is recognized as such. False for a visit that is ended by others.
   */
  readonly retiresKey?: boolean;
}

/**
 * The guarantees that a store may lack. Its optional features are its facets (`users`, `pages`, `locks`, `cleanup`,
 * `clients`). If options or handlers need something that the store does not have, the application fails at startup.
 */
export interface VisitStoreCapabilities {
  /**
   * Versions, keys and locks are compared and written in one step, even when other processes write: of two saves based
   * on the same version, one conflicts. If false, this holds only for calls to the same store object, and there are no
   * `locks`.
   */
  readonly atomic: boolean;
  /**
   * After a visit has ended, it is refused everywhere. If false, only the client itself can end its visit
   * (`Ending.retiresKey`). Every other `end` is refused, and there are no `users`.
   */
  readonly revocable: boolean;
  /** Several processes see the same visits. If false, the module logs a warning in production. */
  readonly shared: boolean;
  /** Visits survive a restart. */
  readonly durable: boolean;
}

/**
 * Stores visits. This class is the contract for stores and its injection token.
 *
 * Rules for all methods:
 *
 * - Methods that take a list return one result for each element, in the same order. An empty list is not an error.
 * - "No" is a result: null for a visit that does not exist, a refusal or a conflict for a write that is not allowed. A
 *   method throws only if the store itself fails or lacks a capability. In this case, nothing of the call may have been
 *   acknowledged.
 * - After a call has returned, every later call sees what it has written.
 * - Every instant is a parameter. A store does not use its own clock and does not evaluate expiry: it returns what is
 *   stored, and the application decides.
 * - Callers and the store do not share bytes: each has its own copy.
 *
 * Rules for writes, including concurrent ones:
 *
 * - Only `create` inserts a visit. No other method may bring back a visit that has ended.
 * - A method writes only its own columns.
 * - `save`, `rekey` and `lock` compare and write in one step.
 * - `accessed` and `expiry` only move forward, except for a change of rights (`rekey`), which sets the expiry.
 *
 * `describeVisitStore` of `nest-visit/testing` tests all of this.
 */
export abstract class VisitStore {
  /** By default, all are true. */
  readonly capabilities: VisitStoreCapabilities = { atomic: true, revocable: true, shared: true, durable: true };

  // The optional features of the store. A facet is an object, which may be the store itself, or undefined.
  readonly users?: UserVisits | undefined;
  readonly pages?: VisitPages | undefined;
  readonly locks?: VisitLocks | undefined;
  readonly cleanup?: VisitCleanup | undefined;
  readonly clients?: VisitClients | undefined;
  readonly server?: VisitServer | undefined;

  /**
   * Resolves if the store can be used. Otherwise it throws an error that says what to do, such as which migration to
   * run.
   */
  abstract check(): Promise<void>;

  /**
   * Returns the visits with these ids, or null where there is none; each id occurs at most once. Ended and expired
   * visits are included. Ids are case-sensitive.
   */
  abstract find(ids: readonly string[]): Promise<(VisitRecord | null)[]>;

  /**
   * Inserts visits with their identities. None of them has ended, but a visit that moves in from another store already
   * has a previous key and a version. If an id exists, the call throws, and nothing is stored.
   */
  abstract create(visits: readonly VisitRecord[]): Promise<void>;

  /**
   * Writes session data, each as a compare-and-set on its version: `saved` increments the version, and null empties the
   * session. A save is refused if the visit has ended, if the guard does not hold, or if its lock is required and not
   * held. A refusal takes precedence over a conflict. If a list contains a visit twice, the second save conflicts.
   */
  abstract save(saves: readonly SessionSave[]): Promise<SaveResult[]>;

  /**
   * Moves `accessed` and `expiry` forward, independently of each other, never back. Ignores ended and unknown visits,
   * and those whose key has changed since (`Touch.keyChanged`).
   */
  abstract touch(touches: readonly Touch[]): Promise<void>;

  /**
   * Replaces keys and, in the same step, links or unlinks identities. It is refused if the visit has ended or the guard
   * does not hold; a renewal (`previousKeyUntil`) needs the current key. `keyChanged` becomes `now`.
   */
  abstract rekey(changes: readonly Rekey[]): Promise<RekeyResult[]>;

  /**
   * Ends visits and wipes their data, which increments the version. Identities remain, so that the row still shows the
   * user. Returns the ids that this call has ended: visits that had already ended keep their instant and reason. Expiry
   * does not matter. Requires a store that is `revocable`, unless `retiresKey` is set.
   */
  abstract end(ids: readonly string[], ending: Ending): Promise<string[]>;

  /** Closes what the store has opened itself. Called once, after the last request. */
  abstract close(): Promise<void>;
}
