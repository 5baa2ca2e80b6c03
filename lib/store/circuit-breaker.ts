import { VisitError } from '../errors/visit.error.js';
import { Timeouts } from './timeouts.js';

/** How many calls in a row must time out, without an answer in between, before the store counts as unavailable. */
const MOST_TIMEOUTS = 3;

/**
 * A failure before this part of the timeout is an answer. A later one counts as a timeout, because the driver has
 * waited in vain.
 */
const AT_ONCE = 0.5;

/** `probing`: one call is allowed, and shows whether the store answers again. */
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
  /** Called when the store counts as unavailable. */
  readonly opened: () => void;
  /** Called when it has answered again. */
  readonly closed: () => void;
  /** Called when a call has succeeded. */
  readonly succeeded?: () => void;
  /** Called for any answer. */
  readonly answered?: () => void;
}

/**
 * Prevents requests from waiting for a store that does not answer. After `MOST_TIMEOUTS` it opens: all calls are
 * refused immediately, except for one at a time that tries again. Any answer closes it, even a late answer to a call
 * that has been given up.
 *
 * A caller uses `enter` once, and each call to the store that results from it is watched; calls may be grouped in
 * between.
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

  /** Runs the work, unless the store is unavailable and another call is already trying. */
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
   * Makes a call to the store. Its result counts, however late it is.
   *
   * @param isAnswer whether the result shows that the store has answered
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

  /** Called by any code that knows that the store has answered. */
  answered(): void {
    this.options.answered?.();
    if (this.state === CLOSED) return;
    const wasClosed = this.isClosed;
    this.state = CLOSED;
    if (!wasClosed) this.options.closed();
  }

  /** Resets the state. */
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

/** The error of a call that was not made. */
export function away(): Error {
  return new Error('the store has not answered for some time, so this request did not wait for it');
}

/** Converts an exception to a rejection. */
function begun<T>(makeCall: () => Promise<T>): Promise<T> {
  try {
    return makeCall();
  } catch (error) {
    return Promise.reject(error);
  }
}
