import { VisitStoreUnavailableError } from '../errors/visit.error.js';

/** The maximum number of entries. */
const MOST = 1000;
/** The interval between attempts, in milliseconds. */
const EVERY = 250;

interface Work {
  readonly finish: () => Promise<unknown>;
  running?: Promise<void> | undefined;
}

/**
 * Writes to visits that failed because the store was unavailable, such as undoing a failed sign-in. They are retried
 * until the store has answered, and before this process looks up one of these visits.
 */
export class Unfinished {
  private readonly works = new Map<string, Work>();
  private timer: NodeJS.Timeout | undefined;
  private isClosed = false;

  /**
   * @param finish may run more than once, and late; it rejects with VisitStoreUnavailableError while the store is
   * unavailable
   */
  add(id: string, finish: () => Promise<unknown>): void {
    if (this.isClosed || this.works.size >= MOST) return;
    this.works.set(id, { finish });
    this.schedule();
  }

  /** Completes the pending write of this visit. Rejects if this failed; undefined: there is none. */
  settle(id: string): Promise<void> | undefined {
    const work = this.works.size > 0 ? this.works.get(id) : undefined;
    return work && (work.running ??= this.run(id, work));
  }

  /** Called at shutdown: nothing is retried any more. */
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
      // The store is still unavailable.
    }
    this.timer = undefined;
    if (this.works.size > 0) this.schedule();
  }
}
