import type { FrameworkRequest } from './exchange.js';

/** The methods that Nest uses to register handlers at its adapter. */
const METHODS = [
  ...(['get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'search', 'all'] as const),
  // Of WebDAV, since NestJS 11.
  ...(['propfind', 'proppatch', 'mkcol', 'copy', 'move', 'lock', 'unlock'] as const),
] as const;

type Handler = (request: FrameworkRequest, ...rest: unknown[]) => unknown;
type Register = (...args: unknown[]) => unknown;

/**
 * Wraps routes that are registered at the adapter from now on in `enter`. So the context of the request is entered for
 * the whole route, and left when it returns to its caller, which may be the code of another request.
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
