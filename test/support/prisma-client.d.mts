import type { PrismaVisitClient } from 'nest-visit/prisma';

/** The part of a generated client that tests use themselves. */
export interface TestPrisma extends PrismaVisitClient {
  $executeRawUnsafe(sql: string): Promise<number>;
  $queryRawUnsafe<T>(sql: string): Promise<T>;
  $on(event: 'query', listener: (event: { query: string }) => void): void;
  $extends(extension: object): TestPrisma;
  $disconnect(): Promise<void>;
}

/** The blocks of the documentation: what it tells users to write is what the tests use. */
export function documentedPrisma(): Promise<{ schema: string; module: string }>;

/**
 * The module of the client for the documentation's models, as JavaScript beside its TypeScript; made where it is not
 * there yet.
 */
export function prismaClientFile(provider: 'mysql' | 'postgresql'): Promise<string>;

/** A client for that database, with further options of its adapter and its own. Whoever opens it disconnects it. */
export function openPrisma(
  kind: 'mariadb' | 'postgres',
  url: string,
  options?: { adapter?: object; log?: unknown },
): Promise<TestPrisma>;

/** The tables as `prisma migrate` makes them of the documented models. */
export function createPrismaTables(kind: 'mariadb' | 'postgres', prisma: TestPrisma): Promise<void>;
