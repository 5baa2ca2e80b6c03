import type { VisitStore, VisitStoreCapabilities } from '../store/visit.store.js';
import type { ResolvedVisitOptions } from './visit-options.interface.js';

/** What a store has or has not. */
export type Facet = 'users' | 'pages' | 'locks' | 'cleanup' | 'clients';
/** What a store may be without. */
export type Feature = Facet | keyof VisitStoreCapabilities;

const CAPABILITIES: ReadonlySet<string> = new Set<keyof VisitStoreCapabilities>(['atomic', 'revocable', 'shared', 'durable']);

/** Whether the store has this. What it does not say of `capabilities` holds: it may be made for tests, with nothing but methods. */
export function supports(store: Partial<Pick<VisitStore, 'capabilities' | Facet>>, feature: Feature): boolean {
  return CAPABILITIES.has(feature)
    ? store.capabilities?.[feature as keyof VisitStoreCapabilities] !== false
    : store[feature as Facet] !== undefined;
}

/** What is said of a store without it. */
export function lackOf(store: VisitStore, feature: Feature): string {
  const name = store.constructor.name || 'the store';
  return CAPABILITIES.has(feature)
    ? `a store that is "${feature}", and ${name} is not`
    : `a store that has "${feature}", and ${name} has not`;
}

/** What the options ask of the store that it cannot give, one line each. */
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
      why: 'the visits of a user are counted, and those that are too many are ended',
    },
    {
      option: 'onRetiredKey',
      got: '"end"',
      isOn: options.onRetiredKey === 'end',
      feature: 'revocable',
      why: 'the visit is ended from elsewhere',
    },
  ];
  const withoutCookie = store.clients !== undefined && !options.source.includes('cookie');
  const cookieNeeded = `option "source" must have "cookie" with a store that keeps visits in cookies, got ${options.source.join(', ')}`;
  const lacking = needs
    .filter(({ isOn, feature }) => isOn && !supports(store, feature))
    .map(({ option, got, feature, why }) => `option "${option}" needs ${lackOf(store, feature)} (${why}), got ${String(got)}`);
  return withoutCookie ? [...lacking, cookieNeeded] : lacking;
}
