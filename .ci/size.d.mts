interface Budget {
  readonly bytes: number;
  readonly files: number;
}
export const BUDGET: Budget;
export function verdict(
  packed: { size: number; entryCount: number },
  budget?: Budget,
): { isWithin: boolean; message: string };
