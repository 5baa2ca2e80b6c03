import { MetadataScanner, type DiscoveryService } from '@nestjs/core';
import type { HandlerPolicy } from '../context/handler-policy.js';
import { lackOf, suitsClients, supports } from '../options/store-needs.js';
import type { DescribedHandler } from '../options/described-policy.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitStore } from '../store/visit.store.js';
import { policyOf } from './handler-policy.js';

/** A method of a controller or resolver, and what it asks for. */
export interface KnownHandler {
  /** Such as `CartController.add()`. */
  readonly name: string;
  /** It is a field of a GraphQL schema: one request may call several. */
  readonly isField: boolean;
  readonly policy: HandlerPolicy;
}

/** What `@nestjs/graphql` writes on queries, mutations and subscriptions, and on other fields. */
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

/** Those that ask for something else than the rest, as it is told. */
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

/** What handlers ask for by decorators and cannot have with these options and this store, one line each. */
export function unsupportedHandlers(
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
        `@UseVisit() of ${name} cannot have ${ofRequest.map((option) => `"${option}"`).join(' and ')}: all fields of a GraphQL request ` +
          'have one visit and one cookie; use the option of the module',
      );
    }
    if (exclusive !== undefined && !supports(store, 'locks')) {
      problems.push(`@ExclusiveSession() of ${name} needs ${lackOf(store, 'locks')}`);
    }
    if (source && store.clients && !suitsClients(source)) {
      problems.push(
        `@UseVisit() "source" of ${name} must have "cookie" and no "header" with a store that keeps visits in cookies, got ${source.join(', ')}`,
      );
    }
    if (path !== undefined && path !== '/' && /^__host-/i.test(cookie.name)) {
      problems.push(
        `@UseVisit() "path" of ${name} needs another option "cookie.name" than "${cookie.name}", such as "__Secure-visit": ` +
          `browsers refuse "__Host-" unless the path is "/", got ${JSON.stringify(path)}`,
      );
    }
  }
  return problems;
}
