import type { IncomingMessage, ServerResponse } from 'node:http';

/** A request as the framework gives it: Express's is Node's own, Fastify's carries Node's as `raw`. */
export interface FrameworkRequest {
  readonly raw?: IncomingMessage;
  readonly headers: IncomingMessage['headers'];
  readonly ip?: string;
  readonly method: string;
  readonly protocol?: string;
  /**
   * The name that was asked for, without its port but under Fastify 4; of a proxy that the framework trusts, what it
   * says.
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
 * Whether nothing can reach the client by this response any more: it is finished, or the client has gone. HTTP/2 says
 * so by its stream.
 */
export function hasClosed(response: ServerResponse): boolean {
  const { closed, stream } = response as ServerResponse & { readonly stream?: { readonly destroyed: boolean } };
  return closed || stream?.destroyed === true;
}

/** One request and its response, read and written alike on every platform. */
export class Exchange {
  readonly rawResponse: ServerResponse;
  /** For which framework code is written that the application has for its requests. */
  readonly style: 'express' | 'fastify';
  /** What has been taken out of query and body. */
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

  /** The error as its receiver takes it: of what answers a request it is the error itself. */
  errorFor(error: unknown): unknown {
    return error;
  }

  /** Whether the client has gone before there was an answer. */
  get hasClientGone(): boolean {
    return hasClosed(this.rawResponse) && !this.rawResponse.writableEnded;
  }

  /** Whether the request came by https, as the framework sees it, that is: according to its trust-proxy setting. */
  get isHttps(): boolean {
    return this.request.protocol === 'https';
  }

  /**
   * Whether a page of another site sent it in a way that browsers leave cookies with SameSite out of (Fetch Metadata;
   * RFC 6265bis, 5.6.7.1).
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

  /** What came as `Authorization: Bearer …` (RFC 6750, 2.1; schemes have no case, RFC 9110, 11.1). */
  get bearer(): string | undefined {
    const { authorization } = this.request.headers;
    return authorization === undefined ? undefined : /^bearer +(\S+)$/i.exec(authorization)?.[1];
  }

  get userAgent(): string | undefined {
    return this.request.headers['user-agent'];
  }

  /** Whether a body comes that may say something (RFC 9112, 6.3; HTTP/2 says so by its frames only). */
  get hasBody(): boolean {
    const { 'content-length': length, 'transfer-encoding': encoding } = this.request.headers;
    if (this.rawResponse.req?.httpVersionMajor === 2) return !['GET', 'HEAD'].includes(this.request.method);
    return encoding !== undefined || (length !== undefined && length !== '0');
  }

  /** The path of the route that is served, with its parameters by name. Undefined: none is, or it has no such path. */
  get route(): string | undefined {
    const { route, routeOptions } = this.request;
    const path = route?.path ?? routeOptions?.url;
    return typeof path === 'string' ? path : undefined;
  }

  /** The client's address as the framework sees it, that is: according to its trust-proxy setting. */
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
   * Takes the parameter away, so that nobody after us sees it. `parameter` still gives it.
   *
   * @returns whether it was there
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
