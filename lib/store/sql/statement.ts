/** A statement with `?` for each parameter, for every dialect. Its text contains no values. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
  /**
   * For frequent statements: the name under which the dialect may prepare it. Its texts differ only in the number of
   * rows.
   */
  readonly name?: string;
  /** In a transaction: how many rows it must change. Otherwise the whole transaction is rolled back. */
  readonly mustChange?: number;
  /** Whether it may take longer than `storeTimeout`, because no request waits for it. */
  readonly isSlow?: boolean;
  /**
   * Whether executing it twice has the same effect as once: then it is sent again if its answer is lost. Always the
   * case for statements that only read.
   */
  readonly isIdempotent?: boolean;
}

/** The result of a statement. */
export interface Result {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** How many rows a write has changed. Unknown for a statement that returns rows. */
  readonly affected: number;
}

/** A statement of a transaction, or a function that creates it from the results so far. */
export type Step = Statement | ((results: readonly Result[]) => Statement);

/** The statement of a step. */
export function statementOf(step: Step, results: readonly Result[]): Statement {
  return typeof step === 'function' ? step(results) : step;
}

/** Whether a statement has not changed the required number of rows. */
export function isShort({ mustChange }: Statement, { affected }: Result): boolean {
  return mustChange !== undefined && affected !== mustChange;
}

/**
 * Runs the statements of a transaction that has begun.
 *
 * @returns null if a statement has not changed the required number of rows: then roll the transaction back
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
