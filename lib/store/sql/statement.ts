/** A statement with `?` for its parameters, whatever the dialect. No value is part of its text. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
  /**
   * Sent all the time: worth being prepared where the dialect can, under this name. Its texts differ in their number of
   * rows only.
   */
  readonly name?: string;
  /** In a transaction: how many rows it must change. If it changes others, all of the transaction is undone. */
  readonly mustChange?: number;
  /** Nobody waits for it: it may take longer than `storeTimeout`. */
  readonly isSlow?: boolean;
  /** Done twice, it has done the same: it is sent again when its answer is lost. What only reads is so anyway. */
  readonly isIdempotent?: boolean;
}

/** What has come of a statement. */
export interface Result {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** How many rows a write has changed. Not known for a statement that returns rows. */
  readonly affected: number;
}

/** A statement of a transaction, or how to make it from the results so far. */
export type Step = Statement | ((results: readonly Result[]) => Statement);

/** The statement of a step. */
export function statementOf(step: Step, results: readonly Result[]): Statement {
  return typeof step === 'function' ? step(results) : step;
}

/** Whether a statement changed another number of rows than it must. */
export function isShort({ mustChange }: Statement, { affected }: Result): boolean {
  return mustChange !== undefined && affected !== mustChange;
}

/**
 * Runs the statements of a transaction that has begun.
 *
 * @returns null if one did not change what it must: then the transaction is to be undone
 */
export async function runSteps(
  steps: readonly Step[],
  run: (statement: Statement) => Promise<Result>,
): Promise<Result[] | null> {
  const results: Result[] = [];
  for (const step of steps) {
    const statement = statementOf(step, results);
    const result = await run(statement);
    if (isShort(statement, result)) return null;
    results.push(result);
  }
  return results;
}
