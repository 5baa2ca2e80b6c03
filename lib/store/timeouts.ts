/** Reports operations that take too long. One timer serves all of them, because almost none ever needs it. */
export class Timeouts<T extends { /** By `performance.now()`. */ readonly began: number }> {
  /** Running operations, the oldest first. */
  private readonly underWay = new Set<T>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly milliseconds: number,
    private readonly late: (one: T) => void,
  ) {}

  /** Adds an operation that begins now. */
  add(one: T): void {
    this.underWay.add(one);
    if (!this.timer) this.schedule(this.milliseconds);
  }

  /** Removes an operation that has ended. Returns whether it was in time. */
  delete(one: T): boolean {
    return this.underWay.delete(one);
  }

  private schedule(milliseconds: number): void {
    this.timer = setTimeout(() => {
      this.timer = undefined;
      const now = performance.now();
      for (const one of this.underWay) {
        const left = one.began + this.milliseconds - now;
        if (left > 0) {
          this.schedule(Math.ceil(left));
          return;
        }
        this.underWay.delete(one);
        this.late(one);
      }
    }, milliseconds).unref();
  }
}
