import * as redis from 'redis';
import { VisitOptionError } from '../../errors/visit.error.js';
import type { Script } from './redis.scripts.js';

type Argument = string | Buffer;

/** What the store needs of a client made by `createClient()`. */
export interface RedisVisitClient {
  readonly isReady: boolean;
  sendCommand(args: readonly Argument[], options?: object): Promise<unknown>;
}

/** What the store needs of a client made by `createCluster()`. */
export interface RedisVisitCluster {
  readonly isOpen: boolean;
  readonly masters: readonly unknown[];
  nodeClient(node: never): unknown;
  sendCommand(
    firstKey: Argument | undefined,
    isReadonly: boolean | undefined,
    args: readonly Argument[],
    options?: object,
  ): Promise<unknown>;
}

/** How to reach a server or a cluster: a URL such as `redis://localhost:6379`, or what `createClient()` or `createCluster()` take. */
export type RedisVisitConnection = string | redis.RedisClientOptions | redis.RedisClusterOptions;

type Client = RedisVisitClient | RedisVisitCluster;
type OwnClient = ReturnType<typeof redis.createClient> | ReturnType<typeof redis.createCluster>;

/** Session data is bytes; everything else is made text where it is read. Whatever the application's client does otherwise. */
const OPTIONS = { typeMapping: { [redis.RESP_TYPES?.BLOB_STRING]: Buffer } };

/** In milliseconds. */
const LONGEST_CLOSE = 3000;

/** The oldest server that knows all commands. */
const OLDEST = [6, 2] as const;

/** The way to Redis: a client that the application lends, or one that is opened here. */
export class RedisConnection {
  #opening: Promise<Client> | undefined;
  #own: OwnClient | undefined;
  #closed = false;

  constructor(private readonly target: { readonly client: Client } | { readonly connection: RedisVisitConnection }) {
    // Version 4, which other packages may ask for, cannot give bytes by this option.
    if (!(redis as Partial<typeof redis>).RESP_TYPES)
      throw new VisitOptionError('RedisVisitStore needs the package redis in version 5.12 or later');
  }

  /** @throws VisitOptionError if the server cannot keep visits */
  async check({ allowEviction }: { readonly allowEviction: boolean }): Promise<void> {
    const client = await this.#client();
    if (!isReady(client)) throw new VisitOptionError('the Redis client is not connected: `await client.connect()` first');
    const nodes = isCluster(client) ? await Promise.all(client.masters.map((node) => client.nodeClient(node as never))) : [client];
    for (const node of nodes as RedisVisitClient[]) {
      await node.sendCommand(['PING']);
      // Where an application may not ask, its administrator knows.
      const info = await node.sendCommand(['INFO']).then(String, () => '');
      checkServer(info, allowEviction);
    }
  }

  /** Sends a command that is about one key. Commands of one turn of the event loop go out together. */
  async send(key: string, args: readonly Argument[]): Promise<unknown> {
    const client = await this.#client();
    // A client that lost its connection would keep the command and send it when it is back, long after the request was answered.
    if (!isReady(client)) throw new Error('there is no connection to Redis');
    // Never by a replica, which may lag behind.
    return isCluster(client) ? client.sendCommand(key, false, args, OPTIONS) : client.sendCommand(args, OPTIONS);
  }

  /** Runs a script; a server that does not know it yet, or has been restarted, is given it. */
  async run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...args];
    try {
      return await this.send(keys[0]!, ['EVALSHA', script.sha, ...rest]);
    } catch (error) {
      if (!isReply(error, 'NOSCRIPT')) throw error;
      return this.send(keys[0]!, ['EVAL', script.source, ...rest]);
    }
  }

  /** Closes what was opened here. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => {});
    const own = this.#own;
    this.#own = undefined;
    if (!own?.isOpen) return;
    // Waits for the answers that are still to come, but not for a server that hangs; without a connection there are none.
    const isClosed = isReady(own) && (await inTime(own.close()));
    if (!isClosed) own.destroy();
  }

  get #lent(): Client | undefined {
    return 'client' in this.target ? this.target.client : undefined;
  }

  #client(): Promise<Client> {
    if (this.#lent) return Promise.resolve(this.#lent);
    if (this.#closed) return Promise.reject(new Error('the store is closed'));
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  async #open(): Promise<Client> {
    const { connection } = this.target as { connection: RedisVisitConnection };
    const own = createOwn(connection);
    // Each call fails by itself while there is no connection; without a listener the first error would end the process.
    own.on('error', () => {});
    try {
      await new Promise<unknown>((resolve, reject) => {
        // By itself the client tries again for ever.
        own.once('error', reject);
        own.connect().then(resolve, reject);
      });
    } catch (error) {
      own.destroy();
      throw error;
    }
    this.#own = own;
    return own;
  }
}

/** Whether Redis has answered with an error of this kind. */
export function isReply(error: unknown, kind: 'NOSCRIPT' | 'WRONGTYPE'): boolean {
  return error instanceof Error && error.message.startsWith(kind);
}

function isCluster(client: Client): client is RedisVisitCluster {
  return 'masters' in client;
}

/** A cluster may lack some of its nodes; that shows when they are asked. */
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

function createOwn(connection: RedisVisitConnection): OwnClient {
  // Rather an error at once than an answer when the connection is back.
  const defaults = { disableOfflineQueue: true };
  if (typeof connection === 'string') return redis.createClient({ ...defaults, url: connection });
  if ('rootNodes' in connection)
    return redis.createCluster({ ...connection, defaults: { ...defaults, ...connection.defaults } }) as OwnClient;
  return redis.createClient({ ...defaults, ...connection }) as OwnClient;
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
      `the Redis server deletes live visits when its memory is full (maxmemory-policy ${policy}): set it to noeviction, ` +
        'or give the store `allowEviction: true` if visits may get lost',
    );
  }
}
