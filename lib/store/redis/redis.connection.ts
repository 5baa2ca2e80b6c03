import type * as redis from 'redis';
import { VisitOptionError } from '../../errors/visit.error.js';
import { USUAL_DEADLINE, withDeadline } from '../deadline.js';
import { loadOptional } from '../optional-package.js';
import { Timeouts } from '../timeouts.js';
import { ClusterNodes } from './cluster.nodes.js';
import type { Script } from './redis.scripts.js';

type Argument = string | Buffer;

/** The part of a client of `createClient()` that the store uses. */
export interface RedisVisitClient {
  readonly isReady: boolean;
  /** Sends one command and returns its reply. */
  sendCommand(args: readonly Argument[], options?: object): Promise<unknown>;
}

/** The part of a client of `createCluster()` that the store uses. */
export interface RedisVisitCluster {
  readonly isOpen: boolean;
  readonly masters: readonly unknown[];
  readonly slots?: readonly unknown[];
  /** The client of one node. */
  nodeClient(node: never): unknown;
  /** Sends one command to the node of its first key and returns the reply. */
  sendCommand(
    firstKey: Argument | undefined,
    isReadonly: boolean | undefined,
    args: readonly Argument[],
    options?: object,
  ): Promise<unknown>;
}

/**
 * How to reach a server or a cluster: a URL such as `redis://localhost:6379`, or options of `createClient()` or
 * `createCluster()`.
 */
export type RedisVisitConnection = string | redis.RedisClientOptions | redis.RedisClusterOptions;

type Client = RedisVisitClient | RedisVisitCluster;

/**
 * The part of a client opened here that the connection uses. The types of the package itself have so many parameters
 * that the compiler takes longer to compare two of them than for all else.
 */
type OwnClient = Client & {
  readonly isOpen: boolean;
  on(event: 'error', listener: (error: Error) => void): unknown;
  once(event: 'error', listener: (error: Error) => void): unknown;
  connect(): Promise<unknown>;
  close(): Promise<unknown>;
  destroy(): void;
};

/**
 * Session data is returned as bytes, and everything else is converted to text where it is read, whatever the options of
 * the application's client.
 */
const optionsOf = (library: typeof redis) => ({ typeMapping: { [library.RESP_TYPES.BLOB_STRING]: Buffer } });

/** In milliseconds. */
const LONGEST_CLOSE = 3000;

/** The oldest server that supports all commands. */
const OLDEST = [6, 2] as const;

interface Call {
  readonly client: Client;
  readonly began: number;
}

/**
 * The connection to Redis: a client of the application, or one that is opened here.
 *
 * A client that was opened here is replaced if it is broken: if a command had no answer within the deadline of callers,
 * if there was no connection for as long, or if the server has become a replica. A network may lose a connection in
 * silence; the kernel then retransmits for a quarter of an hour, which the client takes for a sign of life. In a
 * cluster, only one node may be unavailable: there, the connection to that node is replaced (`ClusterNodes`).
 */
export class RedisConnection {
  #library: Promise<typeof redis> | undefined;
  #options: object = {};
  #lending: Promise<Client> | undefined;
  #opening: Promise<Client> | undefined;
  #own: OwnClient | undefined;
  #closed = false;
  #deadline = USUAL_DEADLINE;
  #calls: Timeouts<Call> | undefined;
  #nodes: ClusterNodes | undefined;
  /** When the store's own client lost its connection, in terms of `performance.now()`. */
  #awaySince: number | undefined;

  constructor(private readonly target: { readonly client: Client } | { readonly connection: RedisVisitConnection }) {}

  /** Whether keys are distributed over several servers. */
  get isCluster(): boolean {
    if ('client' in this.target) return isCluster(this.target.client);
    return typeof this.target.connection === 'object' && 'rootNodes' in this.target.connection;
  }

  /** How long callers wait for an answer, in milliseconds. */
  set deadline(milliseconds: number) {
    this.#deadline = milliseconds;
  }

  /** @throws VisitOptionError if the package is missing or too old, or the server cannot keep visits */
  async check(wanted: { readonly allowEviction: boolean }): Promise<void> {
    const client = await this.#client();
    if (!isReady(client))
      throw new VisitOptionError('the Redis client is not connected: `await client.connect()` first');
    await withDeadline(this.#ask(client, wanted), this.#deadline);
  }

  async #ask(client: Client, { allowEviction }: { readonly allowEviction: boolean }): Promise<void> {
    const nodes = isCluster(client)
      ? await Promise.all(client.masters.map((node) => client.nodeClient(node as never)))
      : [client];
    for (const node of nodes as RedisVisitClient[]) {
      await node.sendCommand(['PING']);
      // If the application has no permission to check this, its administrator is responsible.
      const info = await node.sendCommand(['INFO']).then(String, () => '');
      checkServer(info, allowEviction);
    }
  }

  /** Sends a command for one key. Commands of one turn of the event loop are sent together. */
  async send(key: string, args: readonly Argument[], isAgain = false): Promise<unknown> {
    const client = await this.#client();
    // A client without a connection would queue the command and send it later, long after the response was sent.
    if (!isReady(client)) throw new Error('there is no connection to Redis');
    // Never from a replica, which may lag behind.
    if (isCluster(client)) {
      this.#nodes ??= new ClusterNodes(client, this.#deadline, client === this.#own);
      return this.#nodes.ask(key, () => client.sendCommand(key, false, args, this.#options));
    }
    if (client !== this.#own) return client.sendCommand(args, this.#options);
    const calls = (this.#calls ??= new Timeouts(this.#deadline, (late) => this.#replace(late.client)));
    const call = { client, began: performance.now() };
    calls.add(call);
    try {
      return await client.sendCommand(args, this.#options);
    } catch (error) {
      // A replica has written nothing. The same address may point to the primary now.
      if (isAgain || !isReadOnly(error)) throw error;
      this.#replace(client);
    } finally {
      calls.delete(call);
    }
    return this.send(key, args, true);
  }

  /** Replaces the client: the next call opens another one, and running calls of this one fail. */
  #replace(client: Client): void {
    if (client !== this.#own) return;
    this.#own = undefined;
    this.#opening = undefined;
    this.#awaySince = undefined;
    (client as OwnClient).destroy();
  }

  /** Runs a script, and loads it first if the server does not know it yet or was restarted. */
  async run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...args];
    try {
      return await this.send(keys[0]!, ['EVALSHA', script.sha, ...rest]);
    } catch (error) {
      if (!isReply(error, 'NOSCRIPT')) throw error;
      return this.send(keys[0]!, ['EVAL', script.source, ...rest]);
    }
  }

  /** Closes the client if the store has opened it. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => {});
    const own = this.#own;
    this.#own = undefined;
    if (!own?.isOpen) return;
    // Waits for pending answers, but not for a server that hangs; without a connection, there are none.
    const isClosed = isReady(own) && (await inTime(own.close()));
    if (!isClosed) own.destroy();
  }

  get #lent(): Client | undefined {
    return 'client' in this.target ? this.target.client : undefined;
  }

  /** The package, loaded by the first call: importing the store does not need it. */
  async #load(): Promise<typeof redis> {
    const library = await loadOptional('RedisVisitStore', 'redis', () => import('redis'));
    // Version 4, which other packages may require, cannot return bytes with this option.
    if (!(library as Partial<typeof redis>).RESP_TYPES)
      throw new VisitOptionError(
        'RedisVisitStore needs the package redis in version 5.12 or later: npm install redis@latest',
      );
    this.#options = optionsOf(library);
    return library;
  }

  #client(): Promise<Client> {
    const lent = this.#lent;
    if (lent) return (this.#lending ??= (this.#library ??= this.#load()).then(() => lent));
    if (this.#closed) return Promise.reject(new Error('the store is closed'));
    if (this.#own && !isCluster(this.#own)) this.#replaceIfAway(this.#own);
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  /**
   * It reconnects by itself, but not for longer than callers wait, because it may be waiting for an answer to its
   * greeting.
   */
  #replaceIfAway(own: OwnClient & RedisVisitClient): void {
    if (own.isReady) {
      this.#awaySince = undefined;
      return;
    }
    const now = performance.now();
    this.#awaySince ??= now;
    if (now - this.#awaySince >= this.#deadline) this.#replace(own);
  }

  async #open(): Promise<Client> {
    const { connection } = this.target as { connection: RedisVisitConnection };
    const own = createOwn(await (this.#library ??= this.#load()), connection);
    // Each call fails by itself while there is no connection; without a listener the first error would end the process.
    own.on('error', () => {});
    const connected = new Promise<unknown>((resolve, reject) => {
      // By default, the client would retry forever.
      own.once('error', reject);
      own.connect().then(resolve, reject);
    });
    try {
      // A server that hangs accepts connections, and does not answer the greeting.
      await withDeadline(
        connected.then(() => requirePrimary(own)),
        this.#deadline,
      );
    } catch (error) {
      connected.catch(() => {});
      own.destroy();
      throw new Error(`cannot connect to Redis${placeOf(connection)}: ${messageOf(error)}`, { cause: error });
    }
    this.#own = own;
    return own;
  }
}

/** Whether Redis has answered with an error of this kind. */
export function isReply(error: unknown, kind: 'NOSCRIPT' | 'WRONGTYPE'): boolean {
  return error instanceof Error && error.message.startsWith(kind);
}

/** Whether the server refuses writes. Before version 7, the error of a script contains this in the middle. */
function isReadOnly(error: unknown): boolean {
  return error instanceof Error && /^READONLY |-READONLY /.test(error.message);
}

function isCluster(client: Client): client is RedisVisitCluster {
  return 'masters' in client;
}

/** A cluster may have unavailable nodes; this shows when they are used. */
function isReady(client: Client): boolean {
  return isCluster(client) ? client.isOpen : client.isReady;
}

/** Whether this was done within `LONGEST_CLOSE`. */
async function inTime(closing: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, LONGEST_CLOSE, false)));
  const done = closing.then(
    () => true,
    () => false,
  );
  return Promise.race([done, late]).finally(() => clearTimeout(timer));
}

/** The address of the server, without secrets. */
function placeOf(connection: RedisVisitConnection): string {
  const { url, socket } = (
    typeof connection === 'string' ? { url: connection } : connection
  ) as redis.RedisClientOptions;
  const { host, port, path } = (socket ?? {}) as { host?: string; port?: number; path?: string };
  if (url !== undefined) return URL.canParse(url) ? ` at ${new URL(url).host}` : '';
  return path ? ` at ${path}` : host ? ` at ${host}:${port ?? 6379}` : '';
}

/** A refused connection to a name with several addresses is an AggregateError, whose own message is empty. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError && !error.message) return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message : String(error);
}

/** Only of a single server; the nodes of a cluster report where their keys are. */
async function requirePrimary(client: Client): Promise<void> {
  if (isCluster(client)) return;
  // If the application has no permission to check this, its first write shows it.
  const [role] = (await client.sendCommand(['ROLE']).catch(() => [])) as unknown[];
  if (String(role) === 'slave') throw new Error('the server is a read-only replica');
}

function createOwn(library: typeof redis, connection: RedisVisitConnection): OwnClient {
  // An immediate error is better than an answer after reconnecting.
  const defaults = { disableOfflineQueue: true };
  if (typeof connection === 'string') return library.createClient({ ...defaults, url: connection });
  if ('rootNodes' in connection)
    return library.createCluster({ ...connection, defaults: { ...defaults, ...connection.defaults } });
  return library.createClient({ ...defaults, ...connection });
}

function checkServer(info: string, allowEviction: boolean): void {
  const fact = (name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const version = fact('redis_version');
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
  if (version && (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))) {
    throw new VisitOptionError(`Redis ${OLDEST.join('.')} or later is needed, or Valkey; the server is ${version}`);
  }
  const policy = fact('maxmemory_policy');
  if (!allowEviction && policy && policy !== 'noeviction' && fact('maxmemory') !== '0') {
    throw new VisitOptionError(
      `the Redis server deletes live visits when its memory is full (maxmemory-policy ${policy}): set ` +
        'maxmemory-policy to noeviction, or set `allowEviction: true` on the store if visits may be lost',
    );
  }
}
