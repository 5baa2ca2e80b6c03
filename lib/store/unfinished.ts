import { VisitStoreUnavailableError } from '../errors/visit.error.js';

/** More are not remembered. */
const MOST = 1000;
/** How often they are tried, in milliseconds. */
const EVERY = 250;

interface Work {
  readonly finish: () => Promise<unknown>;
  running?: Promise<void> | undefined;
}

/**
 * What has to be done to visits, and could not be while the store was away: a sign-in that failed is to be undone, for
 * example. It is tried until the store has answered, and before anybody in this process looks one of these visits up.
 */
export class Unfinished {
  private readonly works = new Map<string, Work>();
  private timer: NodeJS.Timeout | undefined;
  private isClosed = false;

  /**
   * @param finish may be done more than once, and late; rejects with VisitStoreUnavailableError while the store is away
   */
  add(id: string, finish: () => Promise<unknown>): void {
    if (this.isClosed || this.works.size >= MOST) return;
    this.works.set(id, { finish });
    this.schedule();
  }

  /** What waits for this visit. Rejects when it could not be done; undefined: there is nothing to wait for. */
  settle(id: string): Promise<void> | undefined {
    const work = this.works.size > 0 ? this.works.get(id) : undefined;
    return work && (work.running ??= this.run(id, work));
  }

  /** The application ends, and nothing can be done any more. */
  close(): void {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.works.clear();
  }

  private async run(id: string, work: Work): Promise<void> {
    try {
      await work.finish();
    } catch (error) {
      work.running = undefined;
      if (error instanceof VisitStoreUnavailableError) throw error;
    }
    if (this.works.get(id) === work) this.works.delete(id);
  }

  private schedule(): void {
    this.timer ??= setTimeout(() => void this.tryAll(), EVERY).unref();
  }

  private async tryAll(): Promise<void> {
    try {
      for (const id of this.works.keys()) await this.settle(id);
    } catch {
      // The store is away still.
    }
    this.timer = undefined;
    if (this.works.size > 0) this.schedule();
  }
}
