import {
  MemoryVisitStore,
  type UserVisits,
  type VisitCleanup,
  type VisitClients,
  type VisitLocks,
  type VisitPages,
  type VisitStore,
} from 'nest-visit';

/** A method of the store, or of one of its facets. */
export type Method =
  | keyof VisitStore
  | keyof UserVisits
  | keyof VisitPages
  | keyof VisitLocks
  | keyof VisitCleanup
  | keyof VisitClients;

/** A waiting call of a method of the store. */
export interface StoreCall {
  readonly method: Method;
  readonly args: readonly unknown[];
}

/** A store whose calls a test can observe, hold, refuse or fail. */
export class WatchedStore {
  /** The methods called so far. */
  readonly calls: string[] = [];
  /** Called for each call; `go` executes it. */
  around: (call: StoreCall, go: () => Promise<unknown>) => Promise<unknown> = (_, go) => go();
  /** For the option `store`. */
  readonly store: VisitStore;

  constructor(readonly inner: VisitStore = new MemoryVisitStore()) {
    this.store = new Proxy(inner, {
      get: (target, method: Method, proxy) => {
        const value: unknown = Reflect.get(target, method, target);
        // The facets are the store itself.
        if (value === target) return proxy as unknown;
        if (typeof value !== 'function' || method === 'openStorage')
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        return (...args: unknown[]) => {
          this.calls.push(method);
          return this.around({ method, args }, async () => Reflect.apply(value, target, args) as unknown);
        };
      },
    });
  }

  /** Holds each call of these methods until `release` is called. `held` resolves when the first one waits. */
  hold(...methods: Method[]): { readonly held: Promise<void>; readonly release: () => void } {
    let arrive!: () => void;
    let settle!: () => void;
    const held = new Promise<void>((resolve) => (arrive = resolve));
    const released = new Promise<void>((resolve) => (settle = resolve));
    this.around = async ({ method }, go) => {
      if (!methods.includes(method)) return go();
      arrive();
      await released;
      return go();
    };
    const release = (): void => {
      this.pass();
      settle();
    };
    return { held, release };
  }

  /** Makes calls of these methods fail; without arguments, all methods that requests call. */
  away(...methods: Method[]): void {
    this.around = async ({ method }, go) => {
      if (methods.length === 0 || methods.includes(method)) throw new Error('the store is away');
      return go();
    };
  }

  /** Lets all calls succeed again. */
  pass(): void {
    this.around = (_, go) => go();
  }
}
