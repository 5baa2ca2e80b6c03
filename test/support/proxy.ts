import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { mysqlRequests } from './statements.js';

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  isSilent: boolean;
}

export type Moment = 'asked' | 'answered' | 'amid';

/** A proxy between an application and its database, which simulates failures of networks. */
export interface Proxy {
  /** The URL of the database through the proxy. */
  readonly url: string;
  /** The number of open connections, including silent ones. */
  readonly open: number;
  /** The number of these that the application has not closed. */
  readonly inUse: number;
  /** Silently drops everything on open and new connections. */
  goSilent(): void;
  /** Connects new connections to another server. */
  lead(target: string): void;
  /** Changes the following responses of the database. */
  rewrite(change: (answer: Buffer) => Buffer): void;
  /** Lets new connections work. Silent ones stay silent. */
  comeBack(): void;
  /**
   * Closes the next connection on which the application sends something: `asked` before the database receives it,
   * `answered` after it has answered, but before the application receives the answer.
   *
   * @param which selects by the content, for a prepared statement of MySQL by what it executes; by default anything
   */
  cut(moment: 'asked' | 'answered', which?: (text: string) => boolean): Promise<void>;
  /**
   * Anything that the application sends may close its connection, at the moment that this returns. `amid`: in the
   * middle of the answer.
   */
  cutAtTimes(choose: () => Moment | undefined): void;
  close(): Promise<void>;
}

export async function startProxy(target: string): Promise<Proxy> {
  const url = new URL(target);
  let { hostname, port } = url;
  const isMysql = /^(mysql|mariadb):/.test(url.protocol);
  const links = new Set<Link>();
  let isSilent = false;
  let change = (answer: Buffer): Buffer => answer;
  let choose: () => Moment | undefined = () => undefined;
  let cut:
    | { readonly moment: Moment; readonly which: (text: string) => boolean; readonly done: () => void }
    | undefined;
  // A silent connection does not answer a close either.
  const listener = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    const link: Link = { client, server, isSilent };
    links.add(link);
    const requestIn = isMysql ? mysqlRequests() : (data: Buffer): string => data.toString('latin1');
    let cutAtAnswer: ((answer: Buffer) => void) | undefined;
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    const cutAt = (moment: Moment, done?: () => void): void => {
      if (moment === 'asked') end();
      cutAtAnswer = (answer) => {
        server.destroy();
        if (moment === 'amid') client.end(answer.subarray(0, answer.length >> 1), () => client.destroy());
        else client.destroy();
        done?.();
      };
      if (moment === 'asked') done?.();
    };
    client.on('data', (data) => {
      if (link.isSilent || client.destroyed) return;
      const request = requestIn(data);
      if (cut?.which(request)) {
        const { moment, done } = cut;
        cut = undefined;
        cutAt(moment, done);
      } else if (!cutAtAnswer) {
        const moment = choose();
        if (moment) cutAt(moment);
      }
      if (!server.destroyed) server.write(data);
    });
    server.on('data', (data) => {
      if (cutAtAnswer) cutAtAnswer(data);
      else if (!link.isSilent) client.write(change(data));
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on('error', () => {});
      one.on('end', () => link.isSilent || other.end());
      one.on('close', () => {
        if (one === client) links.delete(link);
        if (!link.isSilent || one === client) other.destroy();
      });
    }
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  url.port = String((listener.address() as AddressInfo).port);
  return {
    url: url.href,
    get open() {
      return links.size;
    },
    get inUse() {
      return [...links].filter(({ client }) => !client.readableEnded).length;
    },
    goSilent() {
      isSilent = true;
      for (const link of links) link.isSilent = true;
    },
    lead: (other) => void ({ hostname, port } = new URL(other)),
    rewrite: (next) => void (change = next),
    comeBack() {
      isSilent = false;
    },
    cut: (moment, which = () => true) => new Promise((done) => (cut = { moment, which, done })),
    cutAtTimes: (how) => void (choose = how),
    async close() {
      listener.close();
      for (const { client, server } of links) {
        client.destroy();
        server.destroy();
      }
      await once(listener, 'close');
    },
  };
}
