import { VisitStoreUnsupportedError } from '../../errors/visit.error.js';
import { deviceOf } from '../../visit/device.js';
import type { ListPosition, VisitPage } from '../../store/visit.facets.js';
import type { ListedVisit, VisitStore } from '../../store/visit.store.js';
import type { Wishes } from '../arguments.js';
import { many, plain, table, type Report } from '../terminal.js';

const HEAD = ['ID', 'LAST USED', 'SIGNED IN', 'EXPIRES', 'ADDRESS', 'DEVICE'];

/** Lists the live visits of a user, the most recently used first, without session data and keys. */
export async function listVisits(store: VisitStore, { userId, limit }: Wishes['list'], report: Report): Promise<void> {
  const { users } = store;
  if (!users) throw new VisitStoreUnsupportedError('list', 'users');
  const now = Date.now();
  const found: ListedVisit[] = [];
  let after: ListPosition | null | undefined;
  while (after !== null && found.length < limit) {
    const page: VisitPage<ListPosition> = await users.listForUser({ userId, now, limit: limit - found.length, after });
    found.push(...page.visits);
    after = page.next;
    report.progress(`found ${many(found.length, 'visit')}`);
  }
  const isAll = after === null;
  const rows = found.map((visit) => [
    visit.id,
    instant(visit.accessed),
    instant(visit.identity?.authenticatedAt),
    instant(visit.expiry),
    plain(visit.remoteAddress ?? '-'),
    plain(deviceOf(visit.userAgent) ?? '-'),
  ]);
  const more = isAll ? '' : ', and there are more: use --limit to list them';
  const summary = `${many(found.length, 'visit')}${more}`;
  report.result(rows.length > 0 ? `${table([HEAD, ...rows])}\n${summary}` : summary, {
    visits: found.map(described),
    isAll,
  });
}

function described(visit: ListedVisit): object {
  const { id, permanent, remoteAddress, userAgent } = visit;
  const [created, accessed, expiry, absoluteExpiry, authenticatedAt] = [
    visit.created,
    visit.accessed,
    visit.expiry,
    visit.absoluteExpiry,
    visit.identity?.authenticatedAt,
  ].map((one) => (one === null || one === undefined ? null : new Date(one).toISOString()));
  const device = deviceOf(userAgent);
  return {
    id,
    created,
    accessed,
    expiry,
    absoluteExpiry,
    authenticatedAt,
    permanent,
    remoteAddress,
    userAgent,
    device,
  };
}

function instant(milliseconds: number | undefined): string {
  return milliseconds === undefined ? '-' : new Date(milliseconds).toISOString().replace(/\.\d+/, '');
}
