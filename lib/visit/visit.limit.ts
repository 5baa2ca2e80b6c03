import { Inject, Injectable } from '@nestjs/common';
import { VisitLimitError } from '../errors/visit.error.js';
import { MAX_ROWS } from '../options/max-rows.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import { StoreAccess } from '../store/store-access.js';
import type { ListPosition, UserList, VisitPage } from '../store/visit.facets.js';
import type { IdentityRecord, ListedVisit } from '../store/visit.store.js';
import { VisitWriter } from './visit.writer.js';

/**
 * Enforces the number of live visits per user (ASVS 7.1.2). Concurrent sign-ins, on any machines, never leave more:
 * each one checks after its own link is stored, so the last one sees all of them. All checks sort the visits in the
 * same order, so they agree on which ones are too many.
 */
@Injectable()
export class VisitLimit {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'identity' | 'clock'>,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
  ) {}

  /**
   * Called before a user is linked to a visit: refuses while nothing has changed yet.
   *
   * @throws VisitLimitError (409)
   */
  async admit(userId: string, visitId: string): Promise<void> {
    const { maxVisitsPerUser: most, onLimit } = this.options.identity;
    if (most === false || onLimit !== 'refuse') return;
    const others = (await this.visitsOf(userId)).filter(({ id }) => id !== visitId);
    if (others.length < most) return;
    await this.emit(userId);
    throw new VisitLimitError(most);
  }

  /**
   * Called after that, and after a re-authentication: ends the visits that are too many. Returns whether this includes
   * the current visit, which the caller must end.
   */
  async isSurplus(userId: string, visitId: string): Promise<boolean> {
    const { maxVisitsPerUser: most, onLimit } = this.options.identity;
    if (most === false) return false;
    const visits = await this.visitsOf(userId);
    const surplus = (
      onLimit === 'refuse' ? visits.toSorted(bySignIn).slice(most) : visits.toSorted(byLatestProof).slice(0, -most)
    ).map(({ id }) => id);
    const others = surplus.filter((id) => id !== visitId);
    // Many at once only where the limit is newer than they are.
    for (let first = 0; first < others.length; first += MAX_ROWS)
      await this.writer.end(others.slice(first, first + MAX_ROWS), 'limit');
    if (surplus.length > 0) await this.emit(userId);
    return surplus.length > others.length;
  }

  /** The error for a visit that is too many. */
  error(): VisitLimitError {
    return new VisitLimitError(Number(this.options.identity.maxVisitsPerUser));
  }

  private emit(userId: string): Promise<void> {
    const { maxVisitsPerUser, onLimit } = this.options.identity;
    return this.plugins.emit('onLimitReached', { userId, maxVisitsPerUser: Number(maxVisitsPerUser), onLimit });
  }

  private async visitsOf(userId: string): Promise<ListedVisit[]> {
    const users = this.store.facet('users', 'maxVisitsPerUser');
    const now = this.options.clock.now();
    const visits: ListedVisit[] = [];
    for (let after: ListPosition | null | undefined; after !== null;) {
      const list: UserList = { userId, now, limit: MAX_ROWS, after };
      const page: VisitPage<ListPosition> = await this.store.read(() => users.listForUser(list));
      visits.push(...page.visits);
      after = page.next;
    }
    return visits;
  }
}

type Order = (one: ListedVisit, other: ListedVisit) => number;

const inOrderOf =
  (instant: (identity: IdentityRecord) => number): Order =>
  (one, other) =>
    instant(one.identity!) - instant(other.identity!) || (one.id < other.id ? -1 : 1);

/** The oldest sign-in first; it stays if new ones are refused. */
const bySignIn = inOrderOf(({ created }) => created);

/** The oldest authentication first, which ends: never the visit that has just authenticated. */
const byLatestProof = inOrderOf(({ created, authenticatedAt }) => Math.max(created, authenticatedAt));
