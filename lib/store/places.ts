import { Timeouts } from './timeouts.js';

/**
 * A call that has waited for this part of the time is not made, because there is not enough time left for the answer.
 */
const TOO_LONG = 0.9;

interface Waiting {
  readonly began: number;
  readonly go: () => void;
  readonly refuse: (error: Error) => void;
}

/**
 * Limits the number of concurrent calls. Others wait, and are not made at all if they have waited too long. A call that
 * takes longer than its caller waits gives its place back.
 */
export class Places {
  private free: number;
  private readonly underWay: Timeouts<{ readonly began: number }>;
  private readonly waiting = new Set<Waiting>();
  private readonly timeouts: Timeouts<Waiting>;

  constructor(
    most: number,
    private readonly timeout: number,
  ) {
    this.free = most;
    this.underWay = new Timeouts(timeout, () => this.next());
    this.timeouts = new Timeouts<Waiting>(timeout, (one) => this.refuse(one));
  }

  /** @param call never throws, but rejects */
  use<T>(call: () => Promise<T>): Promise<T> {
    if (this.free > 0) {
      this.free--;
      return this.make(call);
    }
    return new Promise((resolve, reject) => {
      const one: Waiting = {
        began: performance.now(),
        go: () => void this.make(call).then(resolve, reject),
        refuse: reject,
      };
      this.waiting.add(one);
      this.timeouts.add(one);
    });
  }

  private make<T>(call: () => Promise<T>): Promise<T> {
    const place = { began: performance.now() };
    this.underWay.add(place);
    const leave = (): void => {
      if (this.underWay.delete(place)) this.next();
    };
    const result = call();
    result.then(leave, leave);
    return result;
  }

  private next(): void {
    const now = performance.now();
    for (const one of this.waiting) {
      this.timeouts.delete(one);
      if (now - one.began > this.timeout * TOO_LONG) {
        this.refuse(one);
        continue;
      }
      this.waiting.delete(one);
      one.go();
      return;
    }
    this.free++;
  }

  private refuse(one: Waiting): void {
    this.waiting.delete(one);
    one.refuse(new Error('no connection became free in time, because the calls that use them do not complete'));
  }
}
