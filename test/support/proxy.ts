import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  isSilent: boolean;
}

/** Stands between an application and its database, as a network that fails in the ways of networks. */
export interface Proxy {
  /** The URL of the database, through this. */
  readonly url: string;
  /** How many connections are open, those that are silent too. */
  readonly open: number;
  /** No connection that is open, or is opened from now on, leads anywhere. Neither side is told. */
  goSilent(): void;
  /** What is opened from now on leads to another server. */
  lead(target: string): void;
  /** Changes what the database answers from now on. */
  rewrite(change: (answer: Buffer) => Buffer): void;
  /** What is opened from now on works. What was silent stays so. */
  comeBack(): void;
  /**
   * The next connection on which the application sends something ends: `asked` before the database gets it, `answered` when it has answered,
   * but before the application gets that.
   *
   * @param which by what is sent; by default anything
   */
  cut(moment: 'asked' | 'answered', which?: (text: string) => boolean): Promise<void>;
  close(): Promise<void>;
}

export async function startProxy(target: string): Promise<Proxy> {
  const url = new URL(target);
  let { hostname, port } = url;
  const links = new Set<Link>();
  let isSilent = false;
  let change = (answer: Buffer): Buffer => answer;
  let cut: { readonly moment: 'asked' | 'answered'; readonly which: (text: string) => boolean; readonly done: () => void } | undefined;
  // What has gone silent answers no farewell either.
  const listener = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    const link: Link = { client, server, isSilent };
    links.add(link);
    let cutAtAnswer: (() => void) | undefined;
    const end = (done: () => void): void => {
      client.destroy();
      server.destroy();
      done();
    };
    client.on('data', (data) => {
      if (link.isSilent) return;
      if (cut?.which(data.toString('latin1'))) {
        const { moment, done } = cut;
        cut = undefined;
        if (moment === 'asked') {
          end(done);
          return;
        }
        cutAtAnswer = done;
      }
      server.write(data);
    });
    server.on('data', (data) => {
      if (cutAtAnswer) end(cutAtAnswer);
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
