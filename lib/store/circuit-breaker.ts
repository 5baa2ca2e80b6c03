import { VisitError } from '../errors/visit.error.js';
import { Timeouts } from './timeouts.js';

/** So many calls in a row, without an answer between them, that took too long: then the store is taken for away. */
const MOST_TIMEOUTS = 3;

/**
 * What fails sooner than this share of the timeout is an answer; what fails later is a driver that has waited in vain,
 * too.
 */
const AT_ONCE = 0.5;

/** `probing`: one call has been let through, and tells whether the store is back. */
type State =
  | { readonly is: 'closed'; readonly timeouts: number }
  | { readonly is: 'open' }
  | { readonly is: 'probing' };

const CLOSED: State = { is: 'closed', timeouts: 0 };
const OPEN: State = { is: 'open' };

interface Call {
  readonly began: number;
}

export interface CircuitBreakerOptions {
  /** How long a call may take, in milliseconds. */
  readonly timeout: number;
  /** The store is taken for away. */
  readonly opened: () => void;
  /** It has answered again. */
  readonly closed: () => void;
  /** A call has succeeded. */
  readonly succeeded?: () => void;
  /** Any answer. */
  readonly answered?: () => void;
}

/**
 * Keeps requests from waiting for a store that does not answer. After `MOST_TIMEOUTS` it opens: all are refused at once
 * but one at a time, which tries. Any answer closes it, also a late one of a call that nobody waits for any more.
 *
 * Who asks passes by `enter`, once, and each call to the store that comes of it is watched; questions may be gathered
 * in between.
 */
export class CircuitBreaker {
  private state: State = CLOSED;
  private readonly calls: Timeouts<Call>;

  constructor(private readonly options: CircuitBreakerOptions) {
    this.calls = new Timeouts(options.timeout, () => this.timedOut());
  }

  get isClosed(): boolean {
    return this.state.is === 'closed';
  }

  /** Does the work, unless the store is away and another one tries already. */
  async enter<T>(work: () => Promise<T>): Promise<T> {
    if (this.state.is === 'closed') return work();
    if (this.state.is === 'probing') throw away();
    const probing: State = { is: 'probing' };
    this.state = probing;
    try {
      return await work();
    } finally {
      // Without an answer. It may not even have been sent.
      if (this.state === probing) this.state = OPEN;
    }
  }

  /**
   * Makes a call to the store, whose result comes however late it is.
   *
   * @param isAnswer whether the store has answered by that
   */
  watch<T>(makeCall: () => Promise<T>, isAnswer?: (result: T) => boolean): Promise<T> {
    const call: Call = { began: performance.now() };
    this.calls.add(call);
    return begun(makeCall).then(
      (result) => {
        const isLate = !this.calls.delete(call);
        if (!isAnswer || isAnswer(result)) {
          this.options.succeeded?.();
          this.answered();
        } else if (!isLate) this.failed(call);
        return result;
      },
      (error: unknown) => {
        const isLate = !this.calls.delete(call);
        // Our own say what must not be asked: the store has not been.
        if (!isLate && !(error instanceof VisitError)) this.failed(call);
        throw error;
      },
    );
  }

  private failed({ began }: Call): void {
    if (performance.now() - began < this.options.timeout * AT_ONCE) this.answered();
    else this.timedOut();
  }

  /** Whoever heard of it: the store has answered. */
  answered(): void {
    this.options.answered?.();
    if (this.state === CLOSED) return;
    const wasClosed = this.isClosed;
    this.state = CLOSED;
    if (!wasClosed) this.options.closed();
  }

  /** What is known does not count any more. */
  reset(): void {
    this.state = CLOSED;
  }

  private timedOut(): void {
    if (this.state.is !== 'closed') return;
    const timeouts = this.state.timeouts + 1;
    this.state = timeouts < MOST_TIMEOUTS ? { is: 'closed', timeouts } : OPEN;
    if (this.state === OPEN) this.options.opened();
  }
}

/** The store has not answered for some time, and was not asked. */
export function away(): Error {
  return new Error('the store has not answered for some time, so this request did not wait for it');
}

/** Also where it fails before there is a promise. */
function begun<T>(makeCall: () => Promise<T>): Promise<T> {
  try {
    return makeCall();
  } catch (error) {
    return Promise.reject(error);
  }
}
