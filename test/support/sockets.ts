import { once } from 'node:events';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import type { Browser } from './browser.js';

export interface SocketAnswer {
  readonly event: string;
  readonly data: any;
}

/** A client of a gateway, with the same interface for both transports. */
export interface SocketClient {
  /** The next response, or the error instead of it. The connection may close first. */
  ask(event: string, data?: unknown): Promise<SocketAnswer>;
  send(event: string, data?: unknown): void;
  /** Messages that do not answer a call of `ask`. */
  readonly heard: SocketAnswer[];
  /** The code with which the connection was closed; undefined: without one. */
  readonly closed: Promise<number | undefined>;
  hasClosed(): boolean;
  leave(): void;
}

export type Transport = 'ws' | 'socket.io';

const headersOf = (browser: Browser | undefined, more: Record<string, string>): Record<string, string> => {
  const cookie = [...(browser?.jar ?? [])].map(([name, value]) => `${name}=${value}`).join('; ');
  return { ...(cookie && { cookie }), ...more };
};

/**
 * Opens a connection with the cookies of this browser. Resolves when it is open; rejects with the status if it is
 * refused.
 */
export async function connect(
  transport: Transport,
  address: string,
  browser?: Browser,
  headers: Record<string, string> = {},
): Promise<SocketClient> {
  const waiting: ((answer: SocketAnswer) => void)[] = [];
  const heard: SocketAnswer[] = [];
  const hear = (answer: SocketAnswer): void => {
    const next = waiting.shift();
    if (next) next(answer);
    else heard.push(answer);
  };
  let close!: (code: number | undefined) => void;
  let isClosed = false;
  const closed = new Promise<number | undefined>((resolve) => (close = resolve));
  const settle = (code?: number): void => {
    isClosed = true;
    close(code);
    for (const next of waiting.splice(0)) next({ event: 'closed', data: code });
  };
  const sent = headersOf(browser, headers);
  const { send, leave } = transport === 'ws' ? await openWs() : await openIo();
  return {
    ask(event, data) {
      const answer = new Promise<SocketAnswer>((resolve) => waiting.push(resolve));
      send(event, data);
      return answer;
    },
    send,
    heard,
    closed,
    hasClosed: () => isClosed,
    leave,
  };

  async function openWs() {
    const socket = new WebSocket(address.replace('http', 'ws'), { headers: sent });
    socket.on('message', (text: Buffer) => hear(JSON.parse(text.toString()) as SocketAnswer));
    socket.on('close', (code) => settle(code));
    await once(socket, 'open');
    return {
      send: (event: string, data?: unknown) => socket.send(JSON.stringify({ event, data })),
      leave: () => socket.terminate(),
    };
  }

  async function openIo() {
    const socket = io(address, { transports: ['websocket'], extraHeaders: sent, reconnection: false, forceNew: true });
    let code: number | undefined;
    socket.on('visit:closed', (told: { code: number }) => (code = told.code));
    socket.onAny((event: string, data: unknown) => event !== 'visit:closed' && hear({ event, data }));
    socket.on('disconnect', () => settle(code));
    await new Promise<void>((resolve, reject) => {
      socket.on('connect', resolve);
      // The reason is set by the transport.
      socket.on('connect_error', (error: Error & { description?: Error }) =>
        reject(new Error((error.description ?? error).message)),
      );
    });
    return {
      send: (event: string, data?: unknown) => {
        // As sent by clients that expect a response of their own.
        socket.emit(event, data ?? null, (answer: unknown) => hear({ event: 'ack', data: answer }));
      },
      leave: () => void socket.disconnect(),
    };
  }
}
