import { Logger } from '@nestjs/common';
import { CircuitBreaker } from '../circuit-breaker.js';
import { Timeouts } from '../timeouts.js';
import type { RedisVisitCluster } from './redis.connection.js';

/**
 * Shorter than the deadline of callers: for them, an unavailable node must be an answer, not a sign that the whole
 * store is unavailable.
 */
const SHARE = 0.45;
const SLOTS = 16_384;

/** The part of a node of `createCluster()` that is used here. */
interface Node {
  readonly address: string;
  /** Undefined until it is first used. */
  client?: NodeClient | undefined;
}

interface NodeClient {
  readonly isReady: boolean;
  readonly isOpen?: boolean;
  destroy?(): void;
}

interface Call {
  readonly began: number;
  readonly fail: (error: Error) => void;
}

/**
 * The nodes of a cluster. An unavailable node must not block calls for keys of other nodes, so each has its own circuit
 * breaker.
 *
 * If the store has opened the cluster client, the connection to a node is replaced if it did not answer in time, or
 * could not be established for as long, because a network may have lost it in silence.
 */
export class ClusterNodes {
  private readonly logger = new Logger('Visit');
  private readonly breakers = new Map<string, CircuitBreaker>();
  /** In terms of `performance.now()`. */
  private readonly awaySince = new WeakMap<NodeClient, number>();
  private readonly calls: Timeouts<Call>;
  private readonly timeout: number;

  /** @param deadline the longest time that callers wait for an answer, in milliseconds */
  constructor(
    private readonly cluster: RedisVisitCluster,
    deadline: number,
    private readonly isOwn: boolean,
  ) {
    this.timeout = deadline * SHARE;
    this.calls = new Timeouts<Call>(this.timeout, ({ fail }) =>
      fail(new Error(`a node of the Redis cluster did not answer within ${this.timeout} ms`)),
    );
  }

  /** Makes a call for one key, unless its node is unavailable. */
  async ask(key: string, makeCall: () => Promise<unknown>): Promise<unknown> {
    const slots = this.cluster.slots as readonly ({ readonly master: Node } | undefined)[] | undefined;
    const node = slots?.[slotOf(key)]?.master;
    if (!node) return makeCall();
    // The client would queue the command and send it when the node has recovered, long after the response was sent.
    if (node.client && this.isAway(node, node.client))
      throw new Error(`there is no connection to the node ${node.address} of the Redis cluster`);
    const breaker = this.breakerOf(node);
    return breaker.enter(() => this.inTime(node, breaker, makeCall));
  }

  private inTime(node: Node, breaker: CircuitBreaker, makeCall: () => Promise<unknown>): Promise<unknown> {
    const { client } = node;
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        reject(error);
        if (client) this.replace(node, client);
      };
      const call = { began: performance.now(), fail };
      this.calls.add(call);
      breaker.watch(makeCall).then(
        (answer) => {
          this.calls.delete(call);
          resolve(answer);
        },
        (error: unknown) => {
          this.calls.delete(call);
          reject(error);
        },
      );
    });
  }

  /**
   * It reconnects by itself, but not for longer than callers wait, because it may be waiting for an answer to its
   * greeting.
   */
  private isAway(node: Node, client: NodeClient): boolean {
    if (client.isReady) {
      this.awaySince.delete(client);
      return false;
    }
    const now = performance.now();
    const since = this.awaySince.get(client) ?? now;
    this.awaySince.set(client, since);
    if (now - since >= this.timeout) this.replace(node, client);
    return true;
  }

  /** The next call opens another connection; running calls of this one fail. */
  private replace(node: Node, client: NodeClient): void {
    if (!this.isOwn || node.client !== client || !client.isOpen) return;
    node.client = undefined;
    client.destroy?.();
  }

  private breakerOf({ address }: Node): CircuitBreaker {
    let breaker = this.breakers.get(address);
    if (!breaker) {
      breaker = new CircuitBreaker({
        timeout: this.timeout,
        opened: () =>
          this.logger.error(
            `The node ${address} of the Redis cluster does not answer: requests for its visits are refused ` +
              'immediately',
          ),
        closed: () => this.logger.log(`The node ${address} of the Redis cluster answers again`),
      });
      this.breakers.set(address, breaker);
    }
    return breaker;
  }
}

/**
 * The slot of a key: CRC-16 (XMODEM) of the text between its first braces, or of the whole key (Redis cluster
 * specification).
 */
export function slotOf(key: string): number {
  const begin = key.indexOf('{');
  const end = begin < 0 ? -1 : key.indexOf('}', begin);
  let crc = 0;
  for (const byte of Buffer.from(end > begin + 1 ? key.slice(begin + 1, end) : key)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc % SLOTS;
}
