import { setTimeout as sleep } from 'node:timers/promises';
import { VisitStoreUnavailableError } from '../errors/visit.error.js';
import { isNoConnection } from './no-connection.js';

/**
 * The first pause between two look-ups while there is no connection, in milliseconds; each pause is twice as long as
 * the previous one.
 */
const FIRST_PAUSE = 25;
const LONGEST_PAUSE = 400;
/** The maximum number of attempts if each one meets a connection that closes. */
const MOST_TRIES = 5;
const USUAL_TRIES = 2;
/** How long to wait for a connection to find out whether a write was executed, in milliseconds. */
const LONGEST_WAIT = 5000;

/** A write whose answer may be lost although it was executed. */
export interface Uncertain<Result> {
  readonly write: () => Promise<Result>;
  /** Its result according to the stored state; undefined: it was not executed. Rejects if this cannot be determined. */
  readonly look: () => Promise<Result | undefined>;
  /**
   * Whether a result means that nothing was changed, which is also the case if an earlier attempt of the same write was
   * executed.
   */
  readonly isVain: (result: Result) => boolean;
  /** Whether an earlier call may have executed it. @default false */
  readonly isAgain?: boolean;
  /** A failure later than this, in milliseconds, is not retried, because the caller no longer waits. */
  readonly patience: number;
}

/**
 * Writes, and after a lost answer reads what has happened: a connection may close after the database has executed the
 * statement. It waits for a server that restarts or is replaced. A write that was not executed is retried once, or more
 * often if connections close. An earlier attempt may still arrive late and conflict with a later one: then, too, the
 * stored state decides.
 */
export async function settle<Result>({
  write,
  look,
  isVain,
  isAgain = false,
  patience,
}: Uncertain<Result>): Promise<Result> {
  const began = performance.now();
  const known = async (lost?: VisitStoreUnavailableError): Promise<Result | undefined> => {
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        return await look();
      } catch (error) {
        const isOverSoon = isNoConnection((error as Error | null)?.cause);
        if (!isOverSoon || performance.now() - began > Math.min(patience, LONGEST_WAIT)) throw lost ?? error;
        await sleep(pause);
      }
    }
  };
  let lost: VisitStoreUnavailableError | undefined;
  let most = MOST_TRIES;
  for (let tries = 1; ; tries++) {
    try {
      const result = await write();
      return ((lost || isAgain) && isVain(result) && (await known(lost))) || result;
    } catch (error) {
      if (!(error instanceof VisitStoreUnavailableError)) throw error;
      lost ??= error;
      if (!isNoConnection(error.cause)) most = USUAL_TRIES;
    }
    const done = await known(lost);
    if (done !== undefined) return done;
    if (tries >= most || performance.now() - began > patience) throw lost;
  }
}
