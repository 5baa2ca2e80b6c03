import { reasonOf } from '../errors/failure.js';

/** The interval between lines, in milliseconds. */
const EVERY = 5000;

/**
 * Logs failures of a store: the first one immediately, then at most one line in five seconds, with the number of
 * failures. If there was none for this time, and the store has answered, it logs that, too. Otherwise an outage would
 * write a line for each batch of each request.
 */
export class FailureLog {
  private failures = 0;
  private latest: unknown;
  private hasAnswered = false;
  private timer: NodeJS.Timeout | undefined;
  private isClosed = false;

  constructor(private readonly logger: { error(text: string): void; log(text: string): void }) {}

  failed(error: unknown): void {
    if (this.isClosed) return;
    this.hasAnswered = false;
    if (this.timer) {
      this.failures++;
      this.latest = error;
      return;
    }
    this.logger.error(`The store failed: ${reasonOf(error)}`);
    this.timer = setTimeout(() => this.tell(), EVERY).unref();
  }

  /** Stops, because other code logs the state of the store from now on. */
  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.failures = 0;
  }

  /** Called at shutdown: logs what has not been logged yet, and nothing afterwards. */
  close(): void {
    this.isClosed = true;
    if (this.failures > 0) this.tellHowMany();
    this.stop();
  }

  answered(): void {
    this.hasAnswered = true;
  }

  private tell(): void {
    this.timer = undefined;
    if (this.failures > 0) {
      this.tellHowMany();
    } else if (this.hasAnswered) {
      this.logger.log('The store is available again');
      return;
    }
    this.timer = setTimeout(() => this.tell(), EVERY).unref();
  }
  private tellHowMany(): void {
    this.logger.error(
      `The store failed ${this.failures} times in ${EVERY / 1000} s, most recently: ${reasonOf(this.latest)}`,
    );
    this.failures = 0;
    this.latest = undefined;
  }
}
