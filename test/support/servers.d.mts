/** A server that tests started and may kill. */
export interface TestServer {
  /** `MariaDB`, `MySQL`, `PostgreSQL`, `Redis` or `Valkey`. */
  readonly name: string;
  /** With user and database; stays the same through `kill` and `restart`. */
  readonly url: string;
  readonly port: number;
  /** Of the running server; another one after `restart`. */
  readonly pid: number;
  readonly folder: string;
  /** The last lines that the server printed. */
  log(): string;
  /** SIGKILL, without a warning; resolves when every process of the server is gone. The data stays. */
  kill(): Promise<void>;
  /** Starts it again after `kill`, or stops it in order and starts it. Resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it for good (SIGKILL) and removes its data. May be called twice. */
  stop(): Promise<void>;
}

/**
 * Starts a MariaDB (or MySQL) of its own. Throws when none is installed. `args` are further arguments of the server.
 */
export function startMariaDb(options?: { args?: string[] }): Promise<TestServer>;

/**
 * Starts a private PostgreSQL. Throws if none is installed. `args` are further arguments of the server. Its files cannot
 * exceed `largestFile` bytes, as on a full disk. With `standbyOf`, the URL of another server, it is a standby of that.
 */
export function startPostgres(options?: {
  args?: string[];
  largestFile?: number;
  standbyOf?: string;
}): Promise<TestServer>;

/**
 * Starts a Redis (or Valkey) of its own, in memory only. Throws when none is installed. `args` are further arguments of
 * the server.
 */
export function startMemcached(): Promise<TestServer>;
export function startRedis(options?: { args?: string[] }): Promise<TestServer>;

/** Starts PgBouncer in front of the PostgreSQL of that URL. Throws when it is not installed. */
export function startPgBouncer(server: string, mode: 'session' | 'transaction' | 'statement'): Promise<TestServer>;

/** Three servers of Redis (or Valkey) that are a cluster. */
export interface TestCluster {
  readonly name: string;
  /** Those of the nodes, with commas between. */
  readonly url: string;
  readonly nodes: readonly TestServer[];
  stop(): Promise<void>;
}

export function startRedisCluster(options?: { args?: string[] }): Promise<TestCluster>;

export function findMariaDb(): string | undefined;
export function findPostgres(): { postgres: string; initdb: string } | undefined;
export function findPgBouncer(): string | undefined;
export function findPgBaseBackup(): string | undefined;
export function findRedis(): string | undefined;
export function findGalera(): string | undefined;

/** A fresh folder, removed with this process at the latest. */
export function temporaryFolder(name: string): { readonly path: string; remove(): Promise<void> };
