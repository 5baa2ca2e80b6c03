import { AsyncResource } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { MAX_ROWS } from '../options/max-rows.js';
import { StoreAccess } from '../store/store-access.js';
import type { EndedBatch, EndingBatch } from '../store/visit.facets.js';
import type { Ending } from '../store/visit.store.js';

/** How often a batch is retried after its caller has stopped waiting. */
const MOST_TRIES = 8;
/** The pause before the first retry, in milliseconds; each pause is twice as long as the previous one. */
const FIRST_PAUSE = 100;

/** The end of many visits. */
export interface EndOfMany {
  readonly ending: Ending;
  /** Ends one batch. */
  readonly end: (batch: EndingBatch) => Promise<EndedBatch>;
  /** Called for each batch that has ended. Its errors stop nothing. */
  readonly announce: (ids: readonly string[]) => Promise<void>;
}

/** The progress. */
interface Progress {
  after: unknown;
  count: number;
  /** The first error of `announce`. */
  failure: { readonly error: unknown } | undefined;
}

/**
 * Ends many visits in batches, each within `storeTimeout`, so their number does not matter. After the first batch has
 * reached the store, the rest follows, even if the caller has received an error meanwhile: a change of password must
 * not leave half of the visits alive, and plugins must not be called for only half of them.
 */
@Injectable()
export class EndInBatches {
  private readonly logger = new Logger('Visit');
  /** Work without a caller runs outside of all request contexts. */
  private readonly scope = new AsyncResource('VisitEndInBatches');

  constructor(@Inject(StoreAccess) private readonly store: StoreAccess) {}

  /**
   * Ends the visits. Returns how many this call has ended.
   *
   * @throws VisitStoreUnavailableError if a batch fails or takes too long; errors of `announce`, after all have ended
   */
  async run(many: EndOfMany): Promise<number> {
    const progress: Progress = { after: undefined, count: 0, failure: undefined };
    while (progress.after !== null) {
      let underWay: Promise<EndedBatch> | undefined;
      try {
        await note(many, progress, await this.store.call(() => (underWay = end(many, progress))));
      } catch (error) {
        this.scope.runInAsyncScope(() => void this.goOn(many, progress, underWay));
        throw error;
      }
    }
    if (progress.failure) throw progress.failure.error;
    return progress.count;
  }

  /** @param underWay the batch that took too long or has failed */
  private async goOn(many: EndOfMany, progress: Progress, underWay: Promise<EndedBatch> | undefined): Promise<void> {
    let batch = underWay;
    for (let tries = 0; progress.after !== null;) {
      try {
        await note(many, progress, await (batch ?? end(many, progress)));
        tries = 0;
      } catch (error) {
        // Whoever asked has been told that nothing may have happened: so it has.
        if (progress.after === undefined) return;
        if (++tries > MOST_TRIES) {
          this.logger.error(
            `Ending visits (reason "${many.ending.reason}") failed; some may still be live: ${reasonOf(error)}`,
          );
          return;
        }
        await sleep(FIRST_PAUSE * 2 ** (tries - 1), undefined, { ref: false });
      }
      batch = undefined;
    }
  }
}

function end({ end: endBatch, ending }: EndOfMany, { after }: Progress): Promise<EndedBatch> {
  return endBatch({ ending, limit: MAX_ROWS, after });
}

async function note({ announce }: EndOfMany, progress: Progress, { ended, next }: EndedBatch): Promise<void> {
  progress.after = next;
  progress.count += ended.length;
  try {
    await announce(ended);
  } catch (error) {
    progress.failure ??= { error };
  }
}
