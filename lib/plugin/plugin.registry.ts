import { Inject, Injectable, Logger } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import type { VisitView } from '../visit/visit-view.js';
import { pluginOptionsOf, type EndedVisit, type ExpungedVisits, type VisitPluginHooks, type VisitPluginOptions } from './visit-plugin.js';

interface Plugin {
  readonly name: string;
  readonly instance: VisitPluginHooks;
  readonly options: Required<VisitPluginOptions>;
}

type Hook = keyof VisitPluginHooks;

/** Finds the plugins when the application starts, and calls them in order. */
@Injectable()
export class PluginRegistry {
  private readonly logger = new Logger('Visit');
  private readonly plugins: Record<Hook, Plugin[]> = { onNewVisit: [], onRecordRequest: [], onVisitEnded: [], onExpunge: [] };

  constructor(@Inject(DiscoveryService) private readonly discovery: DiscoveryService) {}

  /** Called once, when all providers exist. */
  discover(): void {
    const found: Plugin[] = [];
    for (const { metatype, instance } of this.discovery.getProviders()) {
      const options = typeof metatype === 'function' ? pluginOptionsOf(metatype) : undefined;
      if (!options?.enabled || typeof instance !== 'object' || instance === null) continue;
      if (!found.some((plugin) => plugin.instance === instance))
        found.push({ name: metatype!.name, instance: instance as VisitPluginHooks, options });
    }
    found.sort((one, other) => one.options.order - other.options.order);
    for (const hook of Object.keys(this.plugins) as Hook[]) {
      this.plugins[hook] = found.filter(({ instance }) => typeof instance[hook] === 'function');
    }
  }

  has(hook: Hook): boolean {
    return this.plugins[hook].length > 0;
  }

  onNewVisit(visit: VisitView, request: unknown): Promise<void> {
    return this.call('onNewVisit', (plugin) => plugin.onNewVisit!(visit, request));
  }

  onRecordRequest(visit: VisitView, request: unknown): Promise<void> {
    return this.call('onRecordRequest', (plugin) => plugin.onRecordRequest!(visit, request));
  }

  onVisitEnded(visit: EndedVisit): Promise<void> {
    return this.call('onVisitEnded', (plugin) => plugin.onVisitEnded!(visit));
  }

  onExpunge(expunged: ExpungedVisits): Promise<void> {
    return this.call('onExpunge', (plugin) => plugin.onExpunge!(expunged));
  }

  private async call(hook: Hook, invoke: (plugin: VisitPluginHooks) => unknown): Promise<void> {
    for (const { name, instance, options } of this.plugins[hook]) {
      try {
        await invoke(instance);
      } catch (error) {
        if (options.onError === 'throw') throw error;
        this.logger.error(`${name}.${hook}() failed: ${(error as Error).message}`, (error as Error).stack);
      }
    }
  }
}
