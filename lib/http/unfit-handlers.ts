import { MetadataScanner, type DiscoveryService } from '@nestjs/core';
import { canGive } from '../options/store-needs.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitStore } from '../store/visit.store.js';
import { policyOf } from './visit-policy.js';

/** What controllers and resolvers ask for by decorators and cannot have with these options and this store, one line each. */
export function unfitHandlers(discovery: DiscoveryService, { cookie }: Pick<ResolvedVisitOptions, 'cookie'>, store: VisitStore): string[] {
  const scanner = new MetadataScanner();
  const classes = [...discovery.getControllers(), ...discovery.getProviders()].map(({ metatype }) => metatype);
  const problems: string[] = [];
  for (const controller of new Set(classes.filter((type) => typeof type === 'function' && type.prototype))) {
    const { name, prototype } = controller as { name: string; prototype: Record<string, object> };
    for (const method of scanner.getAllMethodNames(prototype)) {
      const { skip, exclusive, path, source } = policyOf(controller!, prototype[method]!);
      const handler = `${name}.${method}()`;
      if (skip) continue;
      if (exclusive !== undefined && !canGive(store, 'atomic')) {
        problems.push(`@ExclusiveSession() of ${handler} needs a store that is "atomic", and ${store.constructor.name} is not`);
      }
      if (source && !source.includes('cookie') && store.attend) {
        problems.push(
          `@UseVisit() "source" of ${handler} must have "cookie" with a store that keeps visits in cookies, got ${source.join(', ')}`,
        );
      }
      if (path !== undefined && path !== '/' && /^__host-/i.test(cookie.name)) {
        problems.push(
          `@UseVisit() "path" of ${handler} needs another option "cookie.name" than "${cookie.name}", such as "__Secure-visit": ` +
            `browsers refuse "__Host-" unless the path is "/", got ${JSON.stringify(path)}`,
        );
      }
    }
  }
  return problems;
}
