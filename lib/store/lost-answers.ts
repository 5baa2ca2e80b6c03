import { VisitStoreUnavailableError } from '../errors/visit.error.js';

/** A write whose answer may get lost, though it was done. */
export interface Uncertain<Result> {
  readonly write: () => Promise<Result>;
  /** What it has come to, as what is stored tells; undefined: it has not been done. Rejects when that cannot be known. */
  readonly look: () => Promise<Result | undefined>;
  /** Whether a result says that nothing was done, as it also would if the write stood in its own way. */
  readonly isVain: (result: Result) => boolean;
  /** What fails so many milliseconds after it began is not tried again: nobody waits so long. */
  readonly patience: number;
}

/**
 * Writes, and looks what has become of it before it is given up: a connection may end after the database has done what it was asked, and
 * before it can say so (B81). What was not done is tried once more. The first try may still come late, and be what the second one runs into;
 * so then, too, what is stored decides.
 */
export async function settle<Result>({ write, look, isVain, patience }: Uncertain<Result>): Promise<Result> {
  const began = performance.now();
  let lost: VisitStoreUnavailableError;
  try {
    return await write();
  } catch (error) {
    if (!(error instanceof VisitStoreUnavailableError)) throw error;
    lost = error;
  }
  const known = async (): Promise<Result | undefined> => {
    try {
      return await look();
    } catch {
      throw lost;
    }
  };
  const first = await known();
  if (first !== undefined) return first;
  if (performance.now() - began > patience) throw lost;
  try {
    const second = await write();
    return isVain(second) ? ((await known()) ?? second) : second;
  } catch (error) {
    const late = error instanceof VisitStoreUnavailableError ? await known() : undefined;
    if (late === undefined) throw error;
    return late;
  }
}
