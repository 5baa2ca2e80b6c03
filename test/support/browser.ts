/** A response as a test reads it. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The `Set-Cookie` headers, whole. */
  readonly cookies: readonly string[];
}

export interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as a form. */
  readonly form?: Record<string, string>;
  /** Instead of the jar's cookies; the answer's cookies are not kept either. */
  readonly cookie?: string | null;
}

/** An HTTP client with a cookie jar, as far as one site needs one: a cookie is kept by name, and goes when its life is 0. */
export class Browser {
  constructor(
    readonly address: string,
    readonly jar = new Map<string, string>(),
  ) {}

  get(path: string, ask: Ask = {}): Promise<Answer> {
    return this.send(path, ask);
  }

  post(path: string, ask: Ask = {}): Promise<Answer> {
    return this.send(path, { method: 'POST', ...ask });
  }

  /** A second tab: the same cookies, kept apart from here on. */
  clone(): Browser {
    const other = new Browser(this.address);
    for (const [name, value] of this.jar) other.jar.set(name, value);
    return other;
  }

  /** The same browser, jar and all, at another machine. */
  via({ address }: { readonly address: string }): Browser {
    const other = new Browser(address, this.jar);
    return other;
  }

  private async send(path: string, { method = 'GET', headers = {}, json, form, cookie }: Ask): Promise<Answer> {
    const sent = cookie === undefined ? [...this.jar].map(([name, value]) => `${name}=${value}`).join('; ') : cookie;
    const response = await fetch(`${this.address}${path}`, {
      method,
      redirect: 'manual',
      headers: {
        ...(sent ? { cookie: sent } : {}),
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: json === undefined ? (form === undefined ? undefined : new URLSearchParams(form)) : JSON.stringify(json),
    });
    const text = await response.text();
    const cookies = response.headers.getSetCookie();
    if (cookie === undefined) for (const header of cookies) this.keep(header);
    return { status: response.status, headers: response.headers, text, cookies };
  }

  private keep(header: string): void {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(header)!;
    if (/;\s*max-age=0/i.test(header)) this.jar.delete(name!);
    else this.jar.set(name!, value!);
  }
}
