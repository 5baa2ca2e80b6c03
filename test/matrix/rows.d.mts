export interface MatrixRow {
  readonly nest: '10' | '11' | '12';
  readonly platform: 'express' | 'fastify';
  readonly typeorm: '0.3' | '1';
  readonly format: 'commonjs' | 'esm';
  readonly runtime: string;
  readonly tests: 'jest' | 'vitest';
  readonly bundle: 'none' | 'esbuild' | 'webpack';
  readonly packager: 'npm' | 'pnpm' | 'yarn pnp';
}
export const DIMENSIONS: { readonly [Name in keyof MatrixRow]: readonly MatrixRow[Name][] };
export const IMPOSSIBLE: readonly { readonly values: Partial<MatrixRow>; readonly reason: string }[];
export const rows: readonly MatrixRow[];
export function nameOf(row: MatrixRow): string;
export function rowsWith(words: readonly string[]): MatrixRow[];
