import type { IncomingMessage, ServerResponse } from 'node:http';

/** A request as the framework gives it: Express's is Node's own, Fastify's carries Node's as `raw`. */
export interface FrameworkRequest {
  readonly raw?: IncomingMessage;
  readonly headers: IncomingMessage['headers'];
  readonly ip?: string;
  readonly method: string;
  readonly host?: string;
  query?: unknown;
  body?: unknown;
}

export type FrameworkResponse = ServerResponse | { readonly raw: ServerResponse };

export type ParameterSource = 'query' | 'body';

/** One request and its response, read and written alike on every platform. */
export class Exchange {
  readonly rawResponse: ServerResponse;

  constructor(
    readonly request: FrameworkRequest,
    response: FrameworkResponse,
  ) {
    this.rawResponse = 'raw' in response ? response.raw : response;
  }

  get cookieHeader(): string | undefined {
    return this.request.headers.cookie;
  }

  get userAgent(): string | undefined {
    return this.request.headers['user-agent'];
  }

  /** The client's address as the framework sees it, that is: according to its trust-proxy setting. */
  get remoteAddress(): string | undefined {
    return this.request.ip;
  }

  /** The parameter's value if it was sent once and as text (R6). */
  parameter(source: ParameterSource, name: string): string | undefined {
    const values = this.request[source];
    if (typeof values !== 'object' || values === null || !Object.hasOwn(values, name)) return undefined;
    const value = (values as Record<string, unknown>)[name];
    return typeof value === 'string' ? value : undefined;
  }

  /** Takes the parameter away, so that nobody after us sees it (R5). */
  strip(source: ParameterSource, name: string): void {
    const values = this.request[source];
    if (typeof values !== 'object' || values === null || !Object.hasOwn(values, name)) return;
    const { [name]: _, ...rest } = values as Record<string, unknown>;
    // Express 5 parses the query anew at every read and has no setter for it: only an own property lasts.
    Object.defineProperty(this.request, source, { value: rest, writable: true, enumerable: true, configurable: true });
  }
}
