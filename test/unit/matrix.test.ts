import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DIMENSIONS, IMPOSSIBLE, nameOf, rows, rowsWith, type MatrixRow } from '../matrix/rows.mjs';

const names = Object.keys(DIMENSIONS) as (keyof MatrixRow)[];

/** Each two values of two dimensions, by another way than the rows were found. */
const pairs = names.flatMap((one, index) =>
  names
    .slice(index + 1)
    .flatMap((other) =>
      DIMENSIONS[one].flatMap((value) =>
        DIMENSIONS[other].map((otherValue) => ({ [one]: value, [other]: otherValue })),
      ),
    ),
) as Partial<MatrixRow>[];

const has = (row: MatrixRow, values: Partial<MatrixRow>): boolean =>
  Object.entries(values).every(([name, value]) => row[name as keyof MatrixRow] === value);

describe('The rows of the matrix', () => {
  test('contain each possible pair of values, and no impossible one', () => {
    const impossible = (pair: Partial<MatrixRow>): boolean =>
      IMPOSSIBLE.some(({ values }) => has(pair as MatrixRow, values));
    expect(pairs.length).toBeGreaterThan(150);
    expect(pairs.filter((pair) => !impossible(pair) && !rows.some((row) => has(row, pair)))).toEqual([]);
    expect(pairs.filter((pair) => impossible(pair) && rows.some((row) => has(row, pair)))).toEqual([]);
  });

  test('are few, have different names, and are found by words of their names', () => {
    // Each version of Nest, and each bundler, meets each runtime: fewer than 15 cannot do it.
    expect(rows.length).toBeGreaterThanOrEqual(15);
    expect(rows.length).toBeLessThan(25);
    expect(new Set(rows.map(nameOf)).size).toBe(rows.length);
    expect(rowsWith(['nest 12', 'bun']).every(({ nest, runtime }) => nest === '12' && runtime === 'bun')).toBe(true);
    expect(rowsWith(['nest 12', 'bun']).length).toBeGreaterThan(0);
  });

  test('are those of docs/compatibility.md', () => {
    const page = readFileSync(new URL('../../docs/compatibility.md', import.meta.url), 'utf8');
    const lines = page.split('\n').filter((line) => /^\| 1[0-2] \|/.test(line));
    expect(lines.length).toBe(rows.length);
  });
});
