import { setTimeout as sleep } from 'node:timers/promises';
import { VisitStoreUnavailableError } from '../errors/visit.error.js';
import { isNoConnection } from './no-connection.js';

/** Between two looks while there is no connection, in milliseconds; each is twice as long as the one before. */
const FIRST_PAUSE = 25;
const LONGEST_PAUSE = 400;
/** Where each meets a connection that ends. */
const MOST_TRIES = 5;
const USUAL_TRIES = 2;
/** How long a connection is waited for, to know what has become of a write. */
const LONGEST_WAIT = 5000;

/** A write whose answer may get lost, though it was done. */
export interface Uncertain<Result> {
  readonly write: () => Promise<Result>;
  /**
   * What it has come to, as what is stored tells; undefined: it has not been done. Rejects when that cannot be known.
   */
  readonly look: () => Promise<Result | undefined>;
  /** Whether a result says that nothing was done, as it also would if the write stood in its own way. */
  readonly isVain: (result: Result) => boolean;
  /** It may have been done before. @default false */
  readonly isAgain?: boolean;
  /** What fails so many milliseconds after it began is not tried again: nobody waits so long. */
  readonly patience: number;
}

/**
 * Writes, and looks what has become of it before it is given up: a connection may end after the database has done what
 * it was asked, and before it can say so. A server that restarts, or whose place another one takes, is waited for. What
 * was not done is tried once more, and oftener where connections end. An earlier try may still come late, and be what a
 * later one runs into: then, too, what is stored decides.
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
