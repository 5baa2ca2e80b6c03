import type { FrameworkRequest } from './exchange.js';

/** The methods by which Nest registers handlers at its adapter. */
const METHODS = [
  ...(['get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'search', 'all'] as const),
  // Of WebDAV, since NestJS 11.
  ...(['propfind', 'proppatch', 'mkcol', 'copy', 'move', 'lock', 'unlock'] as const),
] as const;

type Handler = (request: FrameworkRequest, ...rest: unknown[]) => unknown;
type Register = (...args: unknown[]) => unknown;

/**
 * Routes that are registered at the adapter from here on are called by way of `enter`. So the request's context is
 * entered for all of a route, and left again when it returns to whoever called it, which may be the code of another
 * request.
 */
export function wrapRoutes(adapter: object, enter: (request: FrameworkRequest, route: () => unknown) => unknown): void {
  const methods = adapter as Partial<Record<(typeof METHODS)[number], Register>>;
  for (const method of METHODS) {
    const register = methods[method];
    if (typeof register !== 'function') continue;
    methods[method] = (...args) => {
      const handler = args.at(-1) as Handler | undefined;
      if (typeof handler !== 'function') return register.apply(adapter, args);
      const route: Handler = (request, ...rest) => enter(request, () => handler(request, ...rest));
      // Adapters look for the version and for metadata of the handler.
      Object.setPrototypeOf(route, handler);
      return register.call(adapter, ...args.slice(0, -1), route);
    };
  }
}
