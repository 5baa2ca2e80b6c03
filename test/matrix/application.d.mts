import type { MatrixRow } from './rows.mjs';

export type MatrixOutcome =
  | { readonly outcome: 'works'; readonly remark?: string }
  | { readonly outcome: 'fails' | 'not run'; readonly step: string; readonly reason: string };

export function tryRow(
  row: MatrixRow,
  options: {
    readonly place: string;
    readonly folder: string;
    readonly tarball: string;
    readonly checksTypes?: boolean;
    readonly onStep?: (step: string) => void;
  },
): Promise<MatrixOutcome>;

/** The files of the README's first example, with their names. */
export function firstExample(): [name: string, text: string][];
