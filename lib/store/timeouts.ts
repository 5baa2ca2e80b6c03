/** Tells of what takes too long. One timer for all, looked after as often as it runs out: nearly none ever needs it. */
export class Timeouts<T extends { /** By `performance.now()`. */ readonly began: number }> {
  /** The oldest first. */
  private readonly underWay = new Set<T>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly milliseconds: number,
    private readonly late: (one: T) => void,
  ) {}

  /** What begins now. */
  add(one: T): void {
    this.underWay.add(one);
    if (!this.timer) this.schedule(this.milliseconds);
  }

  /** It has ended. Whether that was in time. */
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
