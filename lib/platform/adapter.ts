import type { HttpAdapterHost } from '@nestjs/core';

/**
 * Calls back when the application has its HTTP adapter: at once under `NestFactory.create()`, and in a testing module
 * when its application is made, before anything can be added to it.
 */
export function whenAdapterIsSet(host: HttpAdapterHost, use: () => void): void {
  const { init$ } = host as Partial<HttpAdapterHost>;
  if (init$) {
    init$.subscribe(use);
    return;
  }
  // NestJS 10 does not tell when it sets the adapter.
  if (host.httpAdapter) {
    use();
    return;
  }
  Object.defineProperty(host, 'httpAdapter', {
    configurable: true,
    get: () => undefined,
    set(this: { httpAdapter?: unknown }, adapter: unknown) {
      delete this.httpAdapter;
      this.httpAdapter = adapter;
      use();
    },
  });
}
