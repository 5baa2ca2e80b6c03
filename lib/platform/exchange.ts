import type { IncomingMessage, ServerResponse } from 'node:http';

/** A request of the framework: Express uses Node's own, Fastify's contains Node's as `raw`. */
export interface FrameworkRequest {
  readonly raw?: IncomingMessage;
  readonly headers: IncomingMessage['headers'];
  readonly ip?: string;
  readonly method: string;
  readonly protocol?: string;
  /**
   * The requested host name, without its port except on Fastify 4; behind a trusted proxy, the name that the proxy
   * sends.
   */
  readonly hostname?: string;
  /** Express: the route that is served. */
  readonly route?: { readonly path?: unknown };
  /** Fastify: the same. */
  readonly routeOptions?: { readonly url?: string };
  query?: unknown;
  body?: unknown;
}

export type FrameworkResponse = ServerResponse | { readonly raw: ServerResponse };

export type ParameterSource = 'query' | 'body';

/**
 * Whether nothing can reach the client through this response: it is finished, or the client has disconnected. With
 * HTTP/2, its stream tells this.
 */
export function hasClosed(response: ServerResponse): boolean {
  const { closed, stream } = response as ServerResponse & { readonly stream?: { readonly destroyed: boolean } };
  return closed || stream?.destroyed === true;
}

/** One request and its response, with the same interface on every platform. */
export class Exchange {
  readonly rawResponse: ServerResponse;
  /** The framework that the application's request code is written for. */
  readonly style: 'express' | 'fastify';
  /** The parameters that were removed from query and body. */
  private stripped: Map<string, string | undefined> | undefined;

  constructor(
    readonly request: FrameworkRequest,
    response: FrameworkResponse,
  ) {
    this.rawResponse = 'raw' in response ? response.raw : response;
    this.style = 'raw' in response ? 'fastify' : 'express';
  }

  /** The socket of a message that has no response of its own. */
  get client(): object | undefined {
    return undefined;
  }

  get isMessage(): boolean {
    return this.client !== undefined;
  }

  /** Converts an error for its receiver. For a response to a request, it is the error itself. */
  errorFor(error: unknown): unknown {
    return error;
  }

  /** Whether the client has disconnected before there was a response. */
  get hasClientGone(): boolean {
    return hasClosed(this.rawResponse) && !this.rawResponse.writableEnded;
  }

  /** Whether the request came over HTTPS, according to the framework and its trust-proxy setting. */
  get isHttps(): boolean {
    return this.request.protocol === 'https';
  }

  /**
   * Whether a page of another site has sent it in a way in which browsers omit SameSite cookies (Fetch Metadata; RFC
   * 6265bis, 5.6.7.1).
   */
  get isCrossSitePost(): boolean {
    return (
      this.request.headers['sec-fetch-site'] === 'cross-site' &&
      !['GET', 'HEAD', 'OPTIONS', 'TRACE'].includes(this.request.method)
    );
  }

  get cookieHeader(): string | undefined {
    return this.request.headers.cookie;
  }

  /** The token of `Authorization: Bearer …` (RFC 6750, 2.1; schemes are case-insensitive, RFC 9110, 11.1). */
  get bearer(): string | undefined {
    const { authorization } = this.request.headers;
    return authorization === undefined ? undefined : /^bearer +(\S+)$/i.exec(authorization)?.[1];
  }

  get userAgent(): string | undefined {
    return this.request.headers['user-agent'];
  }

  /** Whether the request has a body (RFC 9112, 6.3; with HTTP/2, only the frames tell). */
  get hasBody(): boolean {
    const { 'content-length': length, 'transfer-encoding': encoding } = this.request.headers;
    if (this.rawResponse.req?.httpVersionMajor === 2) return !['GET', 'HEAD'].includes(this.request.method);
    return encoding !== undefined || (length !== undefined && length !== '0');
  }

  /** The path of the current route, with the names of its parameters. Undefined: there is none. */
  get route(): string | undefined {
    const { route, routeOptions } = this.request;
    const path = route?.path ?? routeOptions?.url;
    return typeof path === 'string' ? path : undefined;
  }

  /** The client's address, according to the framework and its trust-proxy setting. */
  get remoteAddress(): string | undefined {
    return this.request.ip;
  }

  /** The parameter's value if it was sent once and as text. */
  parameter(source: ParameterSource, name: string): string | undefined {
    const values = this.request[source];
    if (this.stripped?.has(`${source} ${name}`)) return this.stripped.get(`${source} ${name}`);
    if (typeof values !== 'object' || values === null || !Object.hasOwn(values, name)) return undefined;
    const value = (values as Record<string, unknown>)[name];
    return typeof value === 'string' ? value : undefined;
  }

  /**
   * Removes the parameter, so that later code does not see it. `parameter` still returns it.
   *
   * @returns whether it existed
   */
  strip(source: ParameterSource, name: string): boolean {
    const values = this.request[source];
    if (typeof values !== 'object' || values === null || !Object.hasOwn(values, name)) return false;
    (this.stripped ??= new Map()).set(`${source} ${name}`, this.parameter(source, name));
    const { [name]: _, ...rest } = values as Record<string, unknown>;
    // Express 5 parses the query anew at every read and has no setter for it: only an own property lasts.
    Object.defineProperty(this.request, source, { value: rest, writable: true, enumerable: true, configurable: true });
    return true;
  }
}
