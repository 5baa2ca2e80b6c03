import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import { installGate, type Gatekeeper, type Replacement } from '../../lib/request/response.gate.js';

/** The outcome of a response: `bare` has no gate at all. */
export type Outcome = 'bare' | 'nothing unsaved' | 'saved' | 'failed';

/** A keeper whose save is settled by the test. */
export class Keeper implements Gatekeeper {
  readonly log: string[] = [];
  private asked!: () => void;
  readonly wasAsked = new Promise<void>((resolve) => (this.asked = resolve));
  resolve!: () => void;
  reject!: (error: unknown) => void;

  constructor(
    readonly response: ServerResponse,
    readonly outcome: Outcome,
  ) {}

  beforeLeaving(): Promise<void> | undefined {
    this.log.push('asked');
    if (this.outcome === 'nothing unsaved') return undefined;
    return new Promise((resolve, reject) => {
      Object.assign(this, { resolve, reject });
      this.asked();
    });
  }

  headersLeave(): void {
    this.log.push('headers leave');
    const others = this.response.getHeader('set-cookie') ?? [];
    this.response.setHeader('Set-Cookie', [...[others].flat().map(String), 'visit=key']);
  }

  replacementFor(error: unknown): Replacement {
    const body = JSON.stringify({ message: (error as Error).message });
    return { status: 503, headers: { 'Content-Type': 'application/json', 'Retry-After': '5' }, body };
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  /** The beginning of the body. */
  readonly body: string;
  /** A hash of the whole body, because comparing large buffers takes seconds. */
  readonly digest: string;
}

export type Listener = (req: IncomingMessage, res: ServerResponse) => void;

/** A server on which one request at a time is observed. */
export interface Host {
  readonly name: string;
  readonly port: number;
  /** Called at the position of the gate among the middleware of this host. */
  install: Listener;
  /** Called last, in place of handlers of the host. */
  handle: Listener;
  ask(method: string, path?: string, headers?: Record<string, string>): Promise<Answer>;
  close(): Promise<void>;
}

async function readAnswer(
  status: number,
  headers: Record<string, unknown>,
  stream: AsyncIterable<Buffer>,
): Promise<Answer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  const body = Buffer.concat(parts);
  const digest = createHash('sha256').update(body).digest('hex');
  return { status, headers, body: body.subarray(0, 500).toString('latin1'), digest };
}

/** Sends requests to a server on 127.0.0.1, with connections that are kept open. */
export function http1Client(port: number): Pick<Host, 'ask' | 'close'> {
  const agent = new http.Agent({ keepAlive: true });
  return {
    async ask(method, path = '/', headers = {}) {
      const request = http.request({ host: '127.0.0.1', port, method, path, headers, agent }).end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      return readAnswer(response.statusCode!, response.headers, response);
    },
    close: async () => agent.destroy(),
  };
}

/** @param build adds `install` and `handle` to this host */
export async function http1Host(
  name: string,
  build: (install: Listener, handle: Listener) => Listener,
): Promise<Host & { server: http.Server }> {
  const server = http.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = http1Client(port);
  const host = {
    name,
    port,
    server,
    install: () => undefined,
    handle: () => undefined,
    ask: client.ask,
    close: async () => {
      void client.close();
      server.close();
      server.closeAllConnections();
    },
  } as Host & { server: http.Server };
  server.on(
    'request',
    build(
      (req, res) => host.install(req, res),
      (req, res) => host.handle(req, res),
    ),
  );
  return host;
}

export async function http2Host(name: string): Promise<Host> {
  const server = http2.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = http2.connect(`http://127.0.0.1:${port}`);
  const host: Host = {
    name,
    port,
    install: () => undefined,
    handle: () => undefined,
    async ask(method, path = '/', headers = {}) {
      const request = client.request({ ':method': method, ':path': path, ...headers });
      request.end();
      const [answered] = (await once(request, 'response')) as [
        http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader,
      ];
      const { ':status': status, ...rest } = answered;
      return readAnswer(status!, rest, request);
    },
    close: async () => {
      client.close();
      server.close();
    },
  };
  server.on('request', (req, res) => {
    host.install(req as never, res as never);
    host.handle(req as never, res as never);
  });
  return host;
}

export const EVENTS = ['prefinish', 'finish', 'close'];

interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string>;
  /** Receives the events of the response. */
  readonly notes?: string[];
}

const IDLE: Gatekeeper = {
  beforeLeaving: () => undefined,
  headersLeave: () => undefined,
  replacementFor: () => {
    throw new Error('this one has not failed');
  },
};

/** Sends one request, and settles its save after the first attempt to send something; nothing may arrive earlier. */
export async function exchange(
  host: Host,
  outcome: Outcome,
  { method = 'GET', path = '/', headers, notes = [] }: Asked,
): Promise<{ answer: Answer; notes: string[] }> {
  let keeper: Keeper | undefined;
  const installed = new Promise<void>((resolve) => {
    host.install = (_req, res) => {
      if (outcome !== 'bare') {
        keeper = new Keeper(res, outcome);
        installGate(res, keeper);
        // The gate of an outer application, which has nothing to save.
        installGate(res, IDLE);
      }
      for (const event of EVENTS) res.on(event, () => notes.push(event));
      resolve();
    };
  });
  let arrived = false;
  const answering = host.ask(method, path, headers).then((answer) => ((arrived = true), answer));
  await installed;
  if (outcome === 'saved' || outcome === 'failed') {
    await keeper!.wasAsked;
    await turns();
    if (arrived) throw new Error('The response left before its save was settled');
    if (keeper!.log.join() !== 'asked') throw new Error(`Expected one question, got ${keeper!.log.join()}`);
    if (outcome === 'saved') keeper!.resolve();
    else keeper!.reject(new Error('not stored'));
  }
  const answer = await answering;
  await turns();
  if (keeper && keeper.log.join() !== 'asked,headers leave')
    throw new Error(`Headers did not leave once: ${keeper.log.join()}`);
  return { answer, notes };
}

/** Waits for a few turns of the event loop, in which errors would show. */
export async function turns(): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise(setImmediate);
}
