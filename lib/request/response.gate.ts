import { AsyncResource } from 'node:async_hooks';
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';

/** The response that is sent instead of the intended one. */
export interface Replacement {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Decides when a response may be sent, and adds its last headers. */
export interface Gatekeeper {
  /**
   * Called once, synchronously, by the first call that would send headers. The headers of a `writeHead()` are already
   * set on the response. Without a promise, everything is sent immediately. With one, headers and body wait until it is
   * resolved; if it is rejected (or this throws), the replacement is sent.
   */
  beforeLeaving(): Promise<unknown> | undefined;
  /**
   * Called once, immediately before the headers are sent, also for the replacement; never for a client that has
   * disconnected while its response waited. Headers and status can still be changed.
   */
  headersLeave(): void;
  /** @param error the reason of the rejection of `beforeLeaving` */
  replacementFor(error: unknown): Replacement;
}

/**
 * Makes everything that is sent through a response ask the keeper first. Does nothing if the headers have been sent. If
 * the response already has a gate, because one application is mounted in another, it asks both keepers.
 *
 * While calls wait, the response behaves as if they had been executed, according to `headersSent`, `writableEnded`,
 * `writableLength` and `writableNeedDrain`. Headers can no longer be changed, and `write()` asks for a pause at the
 * high-water mark. One exception: with HTTP/1, the deprecated `finished` stays false, because `server.close()` treats
 * the connection of a finished response as idle and destroys it. `writeContinue()`, `writeProcessing()` and
 * `writeEarlyHints()` do not wait.
 *
 * After a replacement, everything that the application still sends is discarded, and its callbacks are called. If it
 * had not ended its response, the response emits `error` with the reason right before `finish`, so that a `pipeline()`
 * into it fails with this error, and sources piped into it are destroyed.
 */
export function installGate(response: ServerResponse, keeper: Gatekeeper): void {
  const gated = response as unknown as Gated;
  if (response.headersSent) return;
  if (gated[GATE] !== undefined) {
    gated[GATE].add(keeper);
    return;
  }
  gated[GATE] = new Gate(gated, keeper);
  gated.writeHead = writeHead;
  gated.write = write;
  gated.end = end;
  gated.flushHeaders = flushHeaders;
}

/** Headers that belong to the connection or the whole site rather than to one response. A replacement keeps them. */
const STAYS = new RegExp(
  `^(${[
    'access-control-.*',
    'vary',
    'connection',
    'date',
    // Those of helmet
    'content-security-policy(-report-only)?',
    'cross-origin-(embedder|opener|resource)-policy(-report-only)?',
    'origin-agent-cluster',
    'permissions-policy',
    'referrer-policy',
    'strict-transport-security',
    'x-content-type-options',
    'x-dns-prefetch-control',
    'x-download-options',
    'x-frame-options',
    'x-permitted-cross-domain-policies',
    'x-xss-protection',
  ].join('|')})$`,
  'i',
);

const GATE = Symbol('response gate');

/**
 * The property of Node's HTTP/1 responses with the status line and headers once they are fixed; `headersSent` reads it.
 */
const HEADER = '_header';

type Method = (this: Gated, ...args: any[]) => unknown;
type Callback = (error?: Error | null) => void;

/** A response with its gate, and with the internal properties of Node and compression(). */
interface Gated extends Omit<
  ServerResponse,
  'writeHead' | 'write' | 'end' | 'flushHeaders' | 'destroy' | 'statusMessage' | 'req'
> {
  [GATE]: Gate;
  writeHead: Method;
  write: Method;
  end: Method;
  flushHeaders: Method;
  destroy: Method;
  flush?: Method | undefined;
  [HEADER]: string | null;
  statusMessage: string | undefined;
  readonly req: ServerResponse['req'];
  /** HTTP/2 only. */
  readonly stream?: NodeJS.EventEmitter & { close(): void };
}

interface HeldCall {
  readonly method: 'write' | 'end' | 'flushHeaders' | 'flush';
  readonly args: readonly unknown[];
  readonly callback: Callback | undefined;
}

/**
 * - `shut`: nothing has been sent yet
 * - `held`: calls wait for the save
 * - `open`: calls pass, headers have not been sent
 * - `left`: headers have been sent, or the client has disconnected
 * - `replaced`: the replacement has been sent; calls are discarded
 */
type Phase = 'shut' | 'held' | 'open' | 'left' | 'replaced';

class Gate {
  phase: Phase = 'shut';
  ended = false;
  needsDrain = false;
  heldLength = 0;
  private headFixed = false;
  private calls: HeldCall[] = [];
  private statusCode = 200;
  // The earlier methods of the response, which may be patches such as those of compression().
  readonly writeHead: Method;
  readonly write: Method;
  readonly end: Method;
  readonly flushHeaders: Method;
  flush: Method | undefined;

  constructor(
    private readonly response: Gated,
    private keeper: Gatekeeper,
  ) {
    this.writeHead = response.writeHead;
    this.write = response.write;
    this.end = response.end;
    this.flushHeaders = response.flushHeaders;
  }

  /** Adds the keeper of another application. A keeper that is added after the first one was asked is ignored. */
  add(keeper: Gatekeeper): void {
    if (this.phase === 'shut') this.keeper = bothOf(this.keeper, keeper);
  }

  /** Whether a call must wait. The first call asks the keeper. */
  holds(): boolean {
    if (this.phase === 'shut') this.ask();
    return this.phase === 'held';
  }

  private ask(): void {
    this.phase = 'open';
    let saved: Promise<unknown> | undefined;
    try {
      saved = this.keeper.beforeLeaving();
    } catch (error) {
      saved = Promise.reject(error);
    }
    if (saved === undefined) this.stepAside();
    else this.hold(saved);
  }

  private hold(saved: Promise<unknown>): void {
    const { response } = this;
    this.phase = 'held';
    this.statusCode = response.statusCode;
    if (response.flush) {
      this.flush = response.flush;
      response.flush = flush;
    }
    for (const [name, shadow] of response.stream ? SHADOWS_HTTP2 : SHADOWS) {
      if (!Object.hasOwn(response, name)) Object.defineProperty(response, name, shadow);
    }
    // Node refuses to change headers from here on.
    if (!response.stream) response[HEADER] = 'held';
    response.once('close', () => this.abandon());
    saved.then(
      () => this.replay(),
      (error: unknown) => this.replace(error),
    );
  }

  /** Queues a call. Returns the result of `write()`: whether the caller may continue immediately. */
  queue(method: HeldCall['method'], args: readonly unknown[]): boolean {
    const callback = args.find((arg) => typeof arg === 'function') as Callback | undefined;
    const bound = callback && AsyncResource.bind(callback);
    this.calls.push({
      method,
      args: bound ? args.map((arg) => (arg === callback ? bound : arg)) : args,
      callback: bound,
    });
    const [chunk] = args;
    if (typeof chunk === 'string' || chunk instanceof Uint8Array) this.heldLength += chunk.length;
    if (method === 'end') this.ended = true;
    const more = this.heldLength < this.response.writableHighWaterMark;
    if (method === 'write' && !more) this.needsDrain = true;
    return more;
  }

  /** Sets status and headers of `writeHead()` on the response, so that they can be read, extended and removed. */
  applyHead(status: number, reason: unknown, headers: unknown): void {
    const { response } = this;
    const code = status | 0;
    if (code < 100 || code > 999)
      throw nodeError(RangeError, 'ERR_HTTP_INVALID_STATUS_CODE', `Invalid status code: ${status}`);
    if (typeof reason !== 'string') headers ??= reason;
    if (Array.isArray(headers)) applyHeaderList(response, headers);
    else if (headers) {
      for (const [name, value] of Object.entries(headers)) if (name) response.setHeader(name, value);
    }
    response.statusCode = code;
    if (typeof reason === 'string' && !response.stream) response.statusMessage = reason;
  }

  /** A `writeHead()` waits; its status and headers are already set on the response. */
  fixHead(): void {
    this.headFixed = true;
  }

  headersLeave(): void {
    this.phase = 'left';
    if (this.response.writeHead === writeHead) this.response.writeHead = this.writeHead;
    this.keeper.headersLeave();
  }

  private replay(): void {
    if (this.phase !== 'held') return;
    const { response } = this;
    this.unhold();
    this.stepAside();
    response.statusCode = this.statusCode;
    let full = false;
    try {
      if (this.headFixed) writeHead.call(response, this.statusCode);
      for (const { method, args } of this.calls) {
        const more: unknown = this[method]!.apply(response, args as unknown[]);
        if (method === 'write' && more === false) full = true;
      }
    } catch (error) {
      // It cannot be caught, because the caller has already returned.
      response.destroy(error);
    }
    this.calls = [];
    // If a call was asked to pause again, Node emits 'drain' itself.
    if (this.needsDrain && !this.ended && !full) emitDrain(response);
  }

  private replace(error: unknown): void {
    if (this.phase !== 'held') return;
    const { response, calls, ended } = this;
    this.unhold();
    this.calls = [];
    if (!ended) this.failWriters(error);
    try {
      this.sendReplacement(this.keeper.replacementFor(error));
    } catch (failure) {
      this.phase = 'left';
      response.destroy(failure);
    }
    for (const { method, callback } of calls) {
      if (!callback) continue;
      if (method === 'end') response.once('finish', callback);
      else process.nextTick(callback);
    }
  }

  /**
   * Notifies code that is still writing, and streams that are piped into the response, that the response was not sent.
   */
  private failWriters(error: unknown): void {
    const { response } = this;
    const release = (source: Readable): void => void (source === response.req ? source.resume() : source.destroy?.());
    response.on('pipe', (source) => process.nextTick(release, source));
    response.on('unpipe', release);
    // pipe() would emit it again if nobody else listened, which ends the process.
    response.on('error', () => undefined);
    this.beforeFinish(() => {
      const { needsDrain } = this;
      this.needsDrain = false;
      response.emit('error', error);
      if (needsDrain) emitDrain(response);
    });
  }

  /**
   * Notifies code that continues to send, only after the replacement has been sent, because error handlers often
   * destroy the connection, and before it receives 'finish', which would mean that its response was sent.
   */
  private beforeFinish(tell: () => void): void {
    const { response } = this;
    const { emit } = response;
    response.emit = function (event: string, ...args: unknown[]): boolean {
      if (event !== 'finish') return emit.call(this, event, ...args);
      this.emit = emit;
      try {
        tell();
      } finally {
        emit.call(this, event, ...args);
      }
      return true;
    };
  }

  private sendReplacement({ status, headers, body }: Replacement): void {
    const { response } = this;
    for (const name of response.getHeaderNames()) if (!STAYS.test(name)) response.removeHeader(name);
    if (response.stream) {
      // Trailers cannot be removed.
      response.stream.removeAllListeners('wantTrailers');
      response.stream.on('wantTrailers', () => response.stream!.close());
    } else {
      response.statusMessage = STATUS_CODES[status];
      response.addTrailers({});
    }
    const bodyless = status === 204 || status === 304;
    for (const [name, value] of Object.entries(headers)) {
      if (!bodyless || !/^content-/i.test(name)) response.setHeader(name, value);
    }
    if (!bodyless) response.setHeader('Content-Length', Buffer.byteLength(body));
    writeHead.call(response, status);
    this.phase = 'replaced';
    // If an application aborts, it means its own response: frameworks do so if the source of a stream is destroyed.
    const { destroy } = response;
    response.destroy = () => response;
    response.once('finish', () => (response.destroy = destroy));
    if (!bodyless && response.req.method !== 'HEAD') this.write.call(response, body);
    this.end.call(response);
  }

  /** Called when the client has disconnected. Nothing has to be kept. */
  private abandon(): void {
    if (this.phase !== 'held') return;
    this.unhold();
    this.phase = 'left';
    this.stepAside();
    if (this.response.writeHead === writeHead) this.response.writeHead = this.writeHead;
    const error = nodeError(Error, 'ERR_STREAM_DESTROYED', 'The client went away before its response left');
    for (const { callback } of this.calls) if (callback) process.nextTick(callback, error);
    this.calls = [];
  }

  private unhold(): void {
    const { response } = this;
    this.phase = 'open';
    if (!response.stream) response[HEADER] = null;
    if (response.flush === flush) response.flush = this.flush;
  }

  private stepAside(): void {
    const { response } = this;
    if (response.write === write) response.write = this.write;
    if (response.end === end) response.end = this.end;
    if (response.flushHeaders === flushHeaders) response.flushHeaders = this.flushHeaders;
  }
}

/** Two applications with one response: it is sent when both have saved, and both add their headers. */
function bothOf(one: Gatekeeper, other: Gatekeeper): Gatekeeper {
  let failed = one;
  const ask = (keeper: Gatekeeper): Promise<unknown> | undefined => {
    failed = keeper;
    return keeper.beforeLeaving();
  };
  return {
    // The outer application asks first, because it was first.
    beforeLeaving() {
      const saved = ask(one);
      return saved ? saved.then(() => ask(other)) : ask(other);
    },
    headersLeave() {
      one.headersLeave();
      other.headersLeave();
    },
    replacementFor: (error) => failed.replacementFor(error),
  };
}

// Methods and properties of responses. They are shared, because creating functions for each response would cost more
// than everything else.

function writeHead(this: Gated, status: number, reason?: unknown, headers?: unknown): unknown {
  const gate = this[GATE];
  if (gate.phase === 'held') throw headersSent(this, 'write headers');
  if (gate.phase === 'left' || gate.phase === 'replaced') return gate.writeHead.call(this, status, reason, headers);
  gate.applyHead(status, reason, headers);
  if (gate.phase === 'shut' && gate.holds()) {
    gate.fixHead();
    return this;
  }
  gate.headersLeave();
  return gate.writeHead.call(this, this.statusCode);
}

function write(this: Gated, ...args: unknown[]): unknown {
  const gate = this[GATE];
  if (gate.phase === 'shut' || gate.phase === 'held') {
    checkChunk(args[0]);
    if (gate.holds()) return gate.queue('write', args);
  }
  return gate.phase === 'replaced' ? drop(this, args) : gate.write.apply(this, args);
}

function end(this: Gated, ...args: unknown[]): unknown {
  const gate = this[GATE];
  if (gate.phase === 'shut' || gate.phase === 'held') {
    if (args[0] && typeof args[0] !== 'function') checkChunk(args[0]);
    if (gate.holds()) {
      gate.queue('end', args);
      return this;
    }
  }
  if (gate.phase !== 'replaced') return gate.end.apply(this, args);
  drop(this, args);
  return this;
}

function flushHeaders(this: Gated): void {
  const gate = this[GATE];
  if (gate.holds()) gate.queue('flushHeaders', []);
  else if (gate.phase !== 'replaced') gate.flushHeaders.call(this);
}

/** The method of compression(): waiting events must be flushed when they are sent. */
function flush(this: Gated, ...args: unknown[]): void {
  const gate = this[GATE];
  if (gate.phase === 'held') gate.queue('flush', args);
  else gate.flush!.apply(this, args);
}

/**
 * Receives the rest of a replaced response. It asks for a pause each time, so that no writer runs endlessly in one
 * turn.
 */
function drop(response: Gated, args: readonly unknown[]): false {
  const gate = response[GATE];
  const callback = args.find((arg) => typeof arg === 'function') as Callback | undefined;
  if (callback) process.nextTick(callback);
  if (!gate.needsDrain) {
    gate.needsDrain = true;
    setImmediate(() => {
      gate.needsDrain = false;
      emitDrain(response);
    });
  }
  return false;
}

function emitDrain(response: Gated): void {
  const probe = (): void => undefined;
  // compression() moves listeners of 'drain' to its own stream, which its on() returns.
  const listened: NodeJS.EventEmitter = response.on('drain', probe);
  listened.removeListener('drain', probe);
  response.emit('drain');
  if (listened !== response) listened.emit('drain');
}

function applyHeaderList(response: Gated, headers: readonly unknown[]): void {
  const flat: unknown[] = Array.isArray(headers[0]) ? headers.flat(1) : [...headers];
  if (flat.length % 2 !== 0) throw nodeError(TypeError, 'ERR_INVALID_ARG_VALUE', 'A header in the list has no value');
  const names = flat.filter((_, i) => i % 2 === 0) as string[];
  for (const name of names) if (name && response.hasHeader(name)) response.removeHeader(name);
  names.forEach((name, i) => name && response.appendHeader(name, flat[2 * i + 1] as string));
}

type Shadow = readonly [name: string, descriptor: PropertyDescriptor];

/**
 * Hides a property of the class while calls wait. It is not removed, because deleting it afterwards would cost more
 * than everything else.
 */
function property(name: string, read: (gate: Gate) => unknown): Shadow {
  const get = function (this: Gated): unknown {
    const gate = this[GATE];
    return gate.phase === 'held' ? read(gate) : Reflect.get(Object.getPrototypeOf(this) as object, name, this);
  };
  return [name, { configurable: true, get }];
}

function headerMethod(name: 'setHeader' | 'appendHeader' | 'removeHeader'): Shadow {
  const value = function (this: Gated, ...args: unknown[]): unknown {
    if (this[GATE].phase === 'held') throw headersSent(this, 'change headers');
    return (Reflect.get(Object.getPrototypeOf(this) as object, name) as Method).apply(this, args);
  };
  return [name, { configurable: true, writable: true, value }];
}

const SHADOWS: readonly Shadow[] = [
  property('writableEnded', (gate) => gate.ended),
  property('writableLength', (gate) => gate.heldLength),
  property('writableNeedDrain', (gate) => gate.needsDrain && !gate.ended),
];

const SHADOWS_HTTP2: readonly Shadow[] = [
  ...SHADOWS,
  property(HEADER, () => true),
  property('headersSent', () => true),
  property('finished', (gate) => gate.ended),
  headerMethod('setHeader'),
  headerMethod('appendHeader'),
  headerMethod('removeHeader'),
];

function checkChunk(chunk: unknown): void {
  if (typeof chunk === 'string' || chunk instanceof Uint8Array) return;
  if (chunk === null) throw nodeError(TypeError, 'ERR_STREAM_NULL_VALUES', 'May not write null values to stream');
  throw nodeError(
    TypeError,
    'ERR_INVALID_ARG_TYPE',
    `A chunk must be a string, Buffer or Uint8Array, got ${typeof chunk}`,
  );
}

function headersSent(response: Gated, action: string): Error {
  const code = response.stream ? 'ERR_HTTP2_HEADERS_SENT' : 'ERR_HTTP_HEADERS_SENT';
  return nodeError(Error, code, `Cannot ${action} after they are sent to the client`);
}

function nodeError(kind: new (message: string) => Error, code: string, message: string): Error {
  return Object.assign(new kind(message), { code });
}
