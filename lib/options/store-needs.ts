import type { VisitStore, VisitStoreCapabilities } from '../store/visit.store.js';
import type { KeySource, ResolvedVisitOptions } from './visit-options.interface.js';

/** An optional facet of a store. */
export type Facet = 'users' | 'pages' | 'locks' | 'cleanup' | 'clients';
/** A feature that a store may lack. */
export type Feature = Facet | keyof VisitStoreCapabilities;

const CAPABILITIES: ReadonlySet<string> = new Set<keyof VisitStoreCapabilities>([
  'atomic',
  'revocable',
  'shared',
  'durable',
]);

/**
 * Whether the store has this feature. Capabilities that it does not declare are true, because a store for tests may
 * only have methods.
 */
export function supports(store: Partial<Pick<VisitStore, 'capabilities' | Facet>>, feature: Feature): boolean {
  return CAPABILITIES.has(feature)
    ? store.capabilities?.[feature as keyof VisitStoreCapabilities] !== false
    : store[feature as Facet] !== undefined;
}

/** The text of the error for a store without the feature. */
export function lackOf(store: VisitStore, feature: Feature): string {
  const name = store.constructor.name || 'the store';
  return CAPABILITIES.has(feature)
    ? `a store that is "${feature}", but ${name} is not`
    : `a store that has "${feature}", but ${name} does not`;
}

/** Whether a store that keeps visits in cookies can serve clients with keys from these sources. */
export const suitsClients = (sources: readonly KeySource[]): boolean =>
  sources.includes('cookie') && !sources.includes('header');

/** The options that the store does not support, one line for each. */
export function unsupportedByStore(
  options: Pick<ResolvedVisitOptions, 'identity' | 'onRetiredKey' | 'source'>,
  store: VisitStore,
): string[] {
  const { maxVisitsPerUser } = options.identity;
  const needs: { option: string; got: unknown; isOn: boolean; feature: Feature; why: string }[] = [
    {
      option: 'identity.maxVisitsPerUser',
      got: maxVisitsPerUser,
      isOn: maxVisitsPerUser !== false,
      feature: 'users',
      why: 'it counts and ends visits of a user',
    },
    {
      option: 'onRetiredKey',
      got: '"end"',
      isOn: options.onRetiredKey === 'end',
      feature: 'revocable',
      why: 'it ends visits without their client',
    },
  ];
  const isWrong = store.clients !== undefined && !suitsClients(options.source);
  const cookieNeeded =
    'option "source" must have "cookie" and no "header" with a store that keeps visits in cookies, ' +
    `got ${options.source.join(', ')}`;
  const lacking = needs
    .filter(({ isOn, feature }) => isOn && !supports(store, feature))
    .map(
      ({ option, got, feature, why }) =>
        `option "${option}" needs ${lackOf(store, feature)} (${why}), got ${String(got)}`,
    );
  return isWrong ? [...lacking, cookieNeeded] : lacking;
}
