import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { DataSourceOptions } from 'typeorm';

interface Environment {
  readonly platform: 'express' | 'fastify';
  readonly port: number;
  readonly database: { readonly options: DataSourceOptions; readonly name: string };
}

function readEnvironment({ PLATFORM, PORT, DATABASE_URL }: NodeJS.ProcessEnv): Environment {
  const platform = PLATFORM || 'express';
  if (platform !== 'express' && platform !== 'fastify')
    throw new Error(`PLATFORM must be express or fastify, got "${platform}"`);

  const port = Number(PORT || 3000);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new Error(`PORT must be a number from 0 (any free port) to 65535, got "${PORT}"`);

  return { platform, port, database: readDatabase(DATABASE_URL || './nest-visit-sample.sqlite') };
}

function readDatabase(address: string): Environment['database'] {
  // One letter before the colon is a drive of Windows.
  const scheme = /^([a-z][a-z\d+.-]+):/i.exec(address)?.[1]?.toLowerCase();
  switch (scheme) {
    case 'mysql':
    case 'mariadb':
      return { options: { type: scheme, url: address }, name: withoutPassword(address) };
    case 'postgres':
    case 'postgresql':
      return { options: { type: 'postgres', url: address }, name: withoutPassword(address) };
    case undefined:
      return sqlite(address);
    case 'file':
      return sqlite(address.startsWith('file://') ? fileURLToPath(address) : address.slice('file:'.length));
    default:
      // The rest of the address is not shown: it may hold a password.
      throw new Error(`DATABASE_URL must be mysql://…, postgres://… or the path of a SQLite file, got ${scheme}:…`);
  }
}

/**
 * TypeORM's type for an embedded SQLite file takes any driver that is made like better-sqlite3; libsql comes prebuilt.
 */
function sqlite(database: string): Environment['database'] {
  const driver: unknown = createRequire(import.meta.url)('libsql');
  return { options: { type: 'better-sqlite3', driver, database, enableWAL: true }, name: `SQLite file ${database}` };
}

function withoutPassword(address: string): string {
  if (!URL.canParse(address))
    throw new Error('DATABASE_URL is not a valid address such as mysql://user:password@127.0.0.1:3306/visit');
  const { protocol, username, host, pathname } = new URL(address);
  return `${protocol}//${username && `${username}@`}${host}${pathname}`;
}

function exitWith(line: string): never {
  console.error(line);
  process.exit(1);
}

function readOrExit(): Environment {
  try {
    return readEnvironment(process.env);
  } catch (error) {
    return exitWith((error as Error).message);
  }
}

/** PLATFORM, PORT and DATABASE_URL, checked. */
export const environment = readOrExit();
