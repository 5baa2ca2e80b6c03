import type { EndedBatch, ExpungedBatch } from '../store/visit.facets.js';
import type { Ending, SaveResult, VisitStore } from '../store/visit.store.js';
import { STORE_CALLS, type ObservedCall, type VisitTelemetry } from './visit-telemetry.js';

const FACETS = ['users', 'pages', 'locks', 'cleanup'];

/** The store, whose calls are told to `telemetry`. Everything else of it is as it was. */
export function observedStore(store: VisitStore, telemetry: VisitTelemetry): VisitStore {
  return observed(store, telemetry);
}

function observed<T extends object>(target: T, telemetry: VisitTelemetry): T {
  const known = new Map<PropertyKey, unknown>();
  return new Proxy(target, {
    get(_, name) {
      if (known.has(name)) return known.get(name);
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value === 'object' && value !== null && FACETS.includes(name as string))
        return remember(name, observed(value, telemetry));
      if (typeof value !== 'function' || name === 'constructor') return value;
      // The store's own fields may be private, which a proxy cannot read.
      const call = (...args: unknown[]): unknown => Reflect.apply(value, target, args);
      return remember(name, isCall(name) ? watched(name, call, telemetry) : call);
    },
  });

  function remember<V>(name: PropertyKey, value: V): V {
    known.set(name, value);
    return value;
  }
}

function isCall(name: PropertyKey): name is ObservedCall['name'] {
  return (STORE_CALLS as readonly PropertyKey[]).includes(name);
}

function watched(name: ObservedCall['name'], call: (...args: unknown[]) => unknown, telemetry: VisitTelemetry) {
  return async (...args: unknown[]): Promise<unknown> => {
    const lookedUp = name === 'find' ? (args[0] as readonly string[]) : [];
    const result = await telemetry.storeCall({ name, lookedUp }, async () => call(...args));
    countIn(telemetry, name, args, result);
    return result;
  };
}

/** What of the answer is worth counting. */
function countIn(
  telemetry: VisitTelemetry,
  name: ObservedCall['name'],
  args: readonly unknown[],
  result: unknown,
): void {
  const count = (visits: number, is: 'created' | 'expunged'): void => {
    if (visits > 0) telemetry.count({ is, visits });
  };
  const countEnded = ({ reason }: Ending, visits: number): void => {
    if (visits > 0) telemetry.count({ is: 'ended', visits, reason });
  };
  switch (name) {
    case 'create':
      return count((args[0] as readonly unknown[]).length, 'created');
    case 'end':
      return countEnded(args[1] as Ending, (result as string[]).length);
    case 'endAll':
    case 'endAllForUser':
      return countEnded((args[0] as { ending: Ending }).ending, (result as EndedBatch).ended.length);
    case 'expunge':
      return (args[0] as { dryRun?: boolean }).dryRun ? undefined : count((result as ExpungedBatch).visits, 'expunged');
    case 'save': {
      const saves = (result as readonly SaveResult[]).filter(({ outcome }) => outcome === 'conflict').length;
      if (saves > 0) telemetry.count({ is: 'conflict', saves });
      return undefined;
    }
    default:
      return undefined;
  }
}
