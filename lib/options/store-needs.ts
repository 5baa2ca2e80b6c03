import type { VisitStore, VisitStoreCapabilities } from '../store/visit.store.js';
import type { ResolvedVisitOptions } from './visit-options.interface.js';

type Capability = keyof VisitStoreCapabilities;

/** Whether the store can give this. One that does not say can: it may be made for tests, with nothing but methods. */
export function canGive(store: Partial<Pick<VisitStore, 'capabilities'>>, capability: Capability): boolean {
  return store.capabilities?.[capability] !== false;
}

/** What the options ask of the store that it cannot give, one line each. */
export function unsupportedByStore(
  options: Pick<ResolvedVisitOptions, 'identity' | 'onRetiredKey' | 'source'>,
  store: VisitStore,
): string[] {
  const { maxVisitsPerUser } = options.identity;
  const needs: { option: string; got: unknown; isOn: boolean; capability: Capability; why: string }[] = [
    {
      option: 'identity.maxVisitsPerUser',
      got: maxVisitsPerUser,
      isOn: maxVisitsPerUser !== false,
      capability: 'listable',
      why: 'the visits of a user are counted',
    },
    {
      option: 'identity.maxVisitsPerUser',
      got: maxVisitsPerUser,
      isOn: maxVisitsPerUser !== false,
      capability: 'revocable',
      why: 'visits that are too many are ended',
    },
    {
      option: 'onRetiredKey',
      got: '"end"',
      isOn: options.onRetiredKey === 'end',
      capability: 'revocable',
      why: 'the visit is ended from elsewhere',
    },
  ];
  const withoutCookie = store.attend !== undefined && !options.source.includes('cookie');
  const cookieNeeded = `option "source" must have "cookie" with a store that keeps visits in cookies, got ${options.source.join(', ')}`;
  const lacking = needs
    .filter(({ isOn, capability }) => isOn && !canGive(store, capability))
    .map(({ option, got, capability, why }) => {
      const name = store.constructor.name || 'the store';
      return `option "${option}" needs a store that is "${capability}", because ${why}, and ${name} is not, got ${String(got)}`;
    });
  return withoutCookie ? [...lacking, cookieNeeded] : lacking;
}
