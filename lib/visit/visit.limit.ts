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
 * How many live visits a user may have (ASVS 7.1.2). Two sign-ins at the same moment, on whatever machines, leave no
 * more than that: each looks after its own link is stored, so the last one sees all; and whoever looks puts them in the
 * same order, so that they agree on which are too many.
 */
@Injectable()
export class VisitLimit {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'identity' | 'clock'>,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
  ) {}

  /** Before a user is linked to a visit: refuses while nothing has changed yet. @throws VisitLimitError (409) */
  async admit(userId: string, visitId: string): Promise<void> {
    const { maxVisitsPerUser: most, onLimit } = this.options.identity;
    if (most === false || onLimit !== 'refuse') return;
    const others = (await this.visitsOf(userId)).filter(({ id }) => id !== visitId);
    if (others.length < most) return;
    await this.emit(userId);
    throw new VisitLimitError(most);
  }

  /**
   * After it, and when the user has proved again who they are: ends what is too many. Whether that includes this visit,
   * which is left to the caller to end.
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

  /** What is thrown for a visit that is too many. */
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

/** Who has been signed in for longest comes first, and stays where others are refused. */
const bySignIn = inOrderOf(({ created }) => created);

/**
 * Whose user proved longest ago who they are comes first, and ends: never the visit that has just signed in, again or
 * for the first time.
 */
const byLatestProof = inOrderOf(({ created, authenticatedAt }) => Math.max(created, authenticatedAt));
