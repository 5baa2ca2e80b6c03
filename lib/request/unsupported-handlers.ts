import { MetadataScanner, type DiscoveryService } from '@nestjs/core';
import type { HandlerPolicy } from '../context/handler-policy.js';
import { VisitOptionError } from '../errors/visit.error.js';
import { lackOf, suitsClients, supports } from '../options/store-needs.js';
import type { DescribedHandler } from '../options/described-policy.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitStore } from '../store/visit.store.js';
import type { TimeLimits } from '../visit/time-limits.js';
import { policyOf } from './handler-policy.js';
import type { OutgoingResponse } from './outgoing.response.js';

/** A method of a controller or resolver, and its settings. */
export interface KnownHandler {
  /** Such as `CartController.add()`. */
  readonly name: string;
  /** Whether it is a field of a GraphQL schema: one request may call several. */
  readonly isField: boolean;
  readonly policy: HandlerPolicy;
}

/** The metadata of `@nestjs/graphql` on queries, mutations and subscriptions, and on other fields. */
const FIELD_METADATA = ['graphql:resolver_type', 'graphql:resolve_property'];

/** All methods of the application's controllers and providers. */
export function handlersOf(discovery: DiscoveryService): KnownHandler[] {
  const scanner = new MetadataScanner();
  const classes = [...discovery.getControllers(), ...discovery.getProviders()].map(({ metatype }) => metatype);
  return [...new Set(classes)].flatMap((type) => {
    if (typeof type !== 'function' || !type.prototype) return [];
    const prototype = type.prototype as Record<string, object>;
    return scanner.getAllMethodNames(prototype).map((method) => {
      const handler = prototype[method]!;
      return {
        name: `${type.name}.${method}()`,
        policy: policyOf(type, handler),
        isField: FIELD_METADATA.some((key) => Reflect.hasMetadata(key, handler)),
      };
    });
  });
}

/** Describes the handlers whose settings differ. */
export function describedHandlers(handlers: readonly KnownHandler[]): DescribedHandler[] {
  return handlers.flatMap(({ name, policy: { skip, passive, timeout, source, path } }): DescribedHandler[] => {
    if (skip) return [{ name, skip }];
    const asked = {
      ...(timeout !== undefined && { idleTimeout: timeout }),
      ...(passive && { passive }),
      ...(source && { source }),
      ...(path !== undefined && { cookiePath: path }),
    };
    return Object.keys(asked).length > 0 ? [{ name, ...asked }] : [];
  });
}

/** The parts that must know the handlers. */
interface Serving {
  readonly options: ResolvedVisitOptions;
  readonly store: VisitStore;
  readonly responses: Pick<OutgoingResponse, 'longestPath'>;
  readonly limits: Pick<TimeLimits, 'longestOfHandlers'>;
}

/**
 * Registers handlers of the application.
 *
 * @throws VisitOptionError for settings that are not supported
 */
export function admitHandlers(handlers: readonly KnownHandler[], { options, store, responses, limits }: Serving): void {
  const unsupported = unsupportedHandlers(handlers, options, store);
  if (unsupported.length > 0) throw new VisitOptionError(unsupported.join('\n[visit] '));
  responses.longestPath = handlers
    .map(({ policy }) => policy.path ?? '')
    .reduce((one, other) => (other.length > one.length ? other : one), responses.longestPath ?? options.cookie.path);
  limits.longestOfHandlers = Math.max(limits.longestOfHandlers, ...handlers.map(({ policy }) => policy.timeout ?? 0));
}

/** The settings of handlers that these options and this store do not support, one line for each. */
function unsupportedHandlers(
  handlers: readonly KnownHandler[],
  { cookie }: Pick<ResolvedVisitOptions, 'cookie'>,
  store: VisitStore,
): string[] {
  const problems: string[] = [];
  for (const { name, policy, isField } of handlers) {
    const { skip, exclusive, path, source } = policy;
    if (skip) continue;
    const ofRequest = (['source', 'path'] as const).filter((option) => isField && policy[option] !== undefined);
    if (ofRequest.length > 0) {
      problems.push(
        `@UseVisit() of ${name} cannot have ${ofRequest.map((option) => `"${option}"`).join(' and ')}: ` +
          'all fields of a GraphQL request ' +
          'have one visit and one cookie; use the option of the module',
      );
    }
    if (exclusive !== undefined && !supports(store, 'locks')) {
      problems.push(`@ExclusiveSession() of ${name} needs ${lackOf(store, 'locks')}`);
    }
    if (source && store.clients && !suitsClients(source)) {
      problems.push(
        `@UseVisit() "source" of ${name} must have "cookie" and no "header" with a store that keeps visits in ` +
          `cookies, got ${source.join(', ')}`,
      );
    }
    if (path !== undefined && path !== '/' && /^__host-/i.test(cookie.name)) {
      problems.push(
        `@UseVisit() "path" of ${name} needs another option "cookie.name" than "${cookie.name}", such as ` +
          '"__Secure-visit": ' +
          `browsers refuse "__Host-" unless the path is "/", got ${JSON.stringify(path)}`,
      );
    }
  }
  return problems;
}
