import { Inject, Injectable, Logger } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { VisitOptionError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitView } from '../context/visit-view.js';
import { unknownHooks } from './unknown-hooks.js';
import { pluginOptionsOf, VISIT_EVENTS, type VisitPluginHooks, type VisitPluginOptions } from './visit-plugin.js';

interface Plugin {
  readonly name: string;
  readonly instance: VisitPluginHooks;
  readonly options: Required<VisitPluginOptions>;
}

type Hook = keyof VisitPluginHooks;
type Payload<H extends Hook> = Parameters<NonNullable<VisitPluginHooks[H]>>;

/** The part of the class `EventEmitter2` of `@nestjs/event-emitter` that the library uses. */
interface Emitter {
  emit(event: string, payload: unknown): unknown;
}

/** Finds the plugins at startup and calls them in order. Also emits events to the application's event emitter. */
@Injectable()
export class PluginRegistry {
  private readonly logger = new Logger('Visit');
  private readonly plugins = new Map<Hook, Plugin[]>();
  private emitter: Emitter | undefined;

  constructor(
    @Inject(DiscoveryService) private readonly discovery: DiscoveryService,
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'telemetry'>,
  ) {}

  /**
   * Called once, when all providers exist.
   *
   * @throws VisitOptionError for a misspelled hook, which would never be called
   */
  discover(): void {
    const found: Plugin[] = [];
    for (const { metatype, instance, host } of this.discovery.getProviders()) {
      // Known by its module and what it can do: the package is the application's.
      if (host?.name === 'EventEmitterModule' && isEmitter(instance)) this.emitter = instance;
      const options = typeof metatype === 'function' ? pluginOptionsOf(metatype) : undefined;
      if (!options?.enabled || typeof instance !== 'object' || instance === null) continue;
      if (!found.some((plugin) => plugin.instance === instance))
        found.push({ name: metatype!.name, instance: instance as VisitPluginHooks, options });
    }
    this.checkNames(found);
    const { telemetry } = this.options;
    if (telemetry) found.push({ name: 'telemetry', instance: telemetry.hooks, options: UNORDERED });
    found.sort((one, other) => one.options.order - other.options.order);
    for (const plugin of found) {
      for (const hook of HOOKS) {
        if (typeof plugin.instance[hook] === 'function')
          this.plugins.set(hook, [...(this.plugins.get(hook) ?? []), plugin]);
      }
    }
  }

  private checkNames(plugins: readonly Plugin[]): void {
    const problems: string[] = [];
    for (const { name: plugin, instance } of plugins) {
      for (const { name, meant } of unknownHooks(instance, HOOKS)) {
        if (meant) problems.push(`${plugin}.${name}() is no hook of a plugin: did you mean ${meant}()?`);
        else
          this.logger.warn(
            `${plugin}.${name}() is not a plugin hook and would never be called; the hooks are ${HOOKS.join(', ')}`,
          );
      }
    }
    if (problems.length > 0) throw new VisitOptionError(problems.join('\n[visit] '));
  }

  /** Whether any plugin or event listener handles this hook. */
  has(hook: Hook): boolean {
    return this.plugins.has(hook) || (this.emitter !== undefined && hook in VISIT_EVENTS);
  }

  /** The first plugin that has this hook, by its name. */
  pluginWith(hook: Hook): string | undefined {
    return this.plugins.get(hook)?.[0]?.name;
  }

  /**
   * Calls all plugins that have the hook, even if some fail, and emits the event.
   *
   * @throws the error of the first plugin with `onError: 'throw'`, after all have been called
   */
  async emit<H extends Hook>(hook: H, ...payload: Payload<H>): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    for (const { name, instance, options } of this.plugins.get(hook) ?? []) {
      try {
        await (instance[hook] as (...args: Payload<H>) => unknown)(...payload);
      } catch (error) {
        if (options.onError === 'throw') failure ??= { error };
        else this.logFailure(`${name}.${hook}()`, error);
      }
    }
    if (this.emitter && hook in VISIT_EVENTS)
      this.pass(this.emitter, VISIT_EVENTS[hook as keyof typeof VISIT_EVENTS], payload[0]);
    if (failure) throw failure.error;
  }

  private pass(emitter: Emitter, event: string, payload: object): void {
    try {
      emitter.emit(event, event === VISIT_EVENTS.onNewVisit ? { id: (payload as VisitView).id } : payload);
    } catch (error) {
      this.logFailure(`A listener of "${event}"`, error);
    }
  }

  /** Logs the error in its own words. Application code may throw any value. */
  private logFailure(what: string, error: unknown): void {
    if (error instanceof Error) this.logger.error(`${what} failed: ${error.message}`, error.stack);
    else this.logger.error(`${what} failed: a value of type ${typeof error} was thrown`);
  }
}

function isEmitter(instance: unknown): instance is Emitter {
  const { emit, onAny } = (instance ?? {}) as { emit?: unknown; onAny?: unknown };
  return typeof emit === 'function' && typeof onAny === 'function';
}

const UNORDERED = { order: 0, onError: 'log', enabled: true } as const;

const HOOKS = [...Object.keys(VISIT_EVENTS), 'onRecordRequest'] as readonly Hook[];
