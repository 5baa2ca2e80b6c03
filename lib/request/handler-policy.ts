import { SetMetadata, type ExecutionContext } from '@nestjs/common';
import { ROUTE_ARGS_METADATA, SSE_METADATA } from '@nestjs/common/constants.js';
import { VisitOptionError } from '../errors/visit.error.js';
import { LONGEST_TIMER, parseDuration, type Duration } from '../options/duration.js';
import { optionTable } from '../options/option-table.js';
import { InvalidOption } from '../options/invalid-option.js';
import type { VisitSource } from '../options/visit-options.interface.js';
import type { HandlerPolicy } from '../context/handler-policy.js';

const SKIP = 'nest-visit:skip';
const USE = 'nest-visit:use';
const PASSIVE = 'nest-visit:passive';
const EXCLUSIVE = 'nest-visit:exclusive';

/** Settings of a handler that differ from those of the application. */
export interface VisitOverrides {
  /** How long the visit lasts after a request to this handler. */
  timeout?: Duration;
  /** Where keys are read from. */
  source?: string | readonly VisitSource[];
  /** The path of a cookie that this handler sets. */
  path?: string;
}

/**
 * This controller or handler has no visit, session or user. Reading them in the handler, or in guards before it, throws
 * `VisitNotResolvedError`. Nothing is recorded, and the handler works while the store is unavailable. If the request
 * contains a key, it has still been looked up, because that happens before the handler is known. `@SkipVisit(false)` on
 * a handler overrides the decorator of its controller.
 */
export const SkipVisit = (skip = true): MethodDecorator & ClassDecorator => SetMetadata(SKIP, skip);

/** Requests to this controller or handler do not keep the visit alive, and do not renew its key by age. For polling. */
export const PassiveVisit = (passive = true): MethodDecorator & ClassDecorator => SetMetadata(PASSIVE, passive);

/**
 * Requests of the same visit run handlers with this decorator one after the other, across all machines. Exclusive
 * access lasts until the handler is done, even if a time limit has answered the request before. It ends earlier, within
 * 40 seconds, if the process has died, if the client has disconnected, or after the option `session.maxExclusive`.
 * Later writes of the handler are refused with `VisitLockLostError` (409). A request that waits longer than `timeout`
 * gets 423.
 *
 * @param options `timeout`: how long to wait, by default `'10s'`
 * @throws VisitOptionError immediately, for an invalid duration
 */
export function ExclusiveSession({ timeout = '10s' }: { timeout?: Duration } = {}): MethodDecorator & ClassDecorator {
  const parsed = parseDuration(timeout);
  if (parsed === null || parsed > LONGEST_TIMER) {
    throw new VisitOptionError(
      `@ExclusiveSession() "timeout" must be a duration such as "10s", at most ${LONGEST_TIMER} ms, got ` +
        JSON.stringify(timeout),
    );
  }
  return SetMetadata(EXCLUSIVE, parsed);
}

/**
 * Overrides settings for this controller or handler. Fields of GraphQL can only override `timeout`, because a request
 * has one visit, one source and one cookie.
 *
 * @throws VisitOptionError immediately, for an invalid value
 */
export function UseVisit(overrides: VisitOverrides): MethodDecorator & ClassDecorator {
  const parse = <T>(name: string, option: { parse(value: unknown): unknown }, value: unknown): T | undefined => {
    try {
      return value === undefined ? undefined : (option.parse(value) as T);
    } catch (error) {
      if (!(error instanceof InvalidOption)) throw error;
      throw new VisitOptionError(`@UseVisit() "${name}" must be ${error.message}, got ${JSON.stringify(value)}`);
    }
  };
  const unknown = Object.keys(overrides).filter((name) => !['timeout', 'source', 'path'].includes(name));
  if (unknown.length > 0)
    throw new VisitOptionError(`@UseVisit() takes timeout, source and path, got ${unknown.join(', ')}`);
  return SetMetadata(USE, {
    timeout: parse('timeout', optionTable.timeout, overrides.timeout),
    source: parse('source', optionTable.source, overrides.source),
    path: parse('path', optionTable.cookie.path, overrides.path),
  });
}

const policies = new WeakMap<object, WeakMap<object, HandlerPolicy>>();
const NO_POLICY: HandlerPolicy = {
  skip: false,
  passive: false,
  timeout: undefined,
  source: undefined,
  path: undefined,
  exclusive: undefined,
  events: false,
  sends: false,
};

/** The settings of the handler or its controller. Read once per handler, because metadata does not change. */
export function readHandlerPolicy(execution: ExecutionContext): HandlerPolicy {
  const controller = execution.getClass();
  const handler = execution.getHandler();
  let ofController = policies.get(controller);
  if (!ofController) policies.set(controller, (ofController = new WeakMap()));
  let policy = ofController.get(handler);
  if (!policy) ofController.set(handler, (policy = policyOf(controller, handler)));
  return policy;
}

/** The same, without the cache. */
export function policyOf(controller: object, handler: object & { readonly name?: string }): HandlerPolicy {
  const read = <T>(key: string): T | undefined =>
    (Reflect.getMetadata(key, handler) as T | undefined) ?? (Reflect.getMetadata(key, controller) as T | undefined);
  const overrides = {
    ...(Reflect.getMetadata(USE, controller) as object),
    ...definedOf(Reflect.getMetadata(USE, handler) as object),
  };
  return {
    ...NO_POLICY,
    ...overrides,
    skip: read<boolean>(SKIP) ?? false,
    passive: read<boolean>(PASSIVE) ?? false,
    exclusive: read<number>(EXCLUSIVE),
    events: Boolean(Reflect.getMetadata(SSE_METADATA, handler)),
    sends: handler.name !== undefined && injectsResponse(controller, handler.name),
  };
}

/** Whether the method has a parameter with `@Res()` or `@Next()` without `passthrough`. */
function injectsResponse(controller: object, method: string): boolean {
  const parameters = (Reflect.getMetadata(ROUTE_ARGS_METADATA, controller, method) ?? {}) as Record<
    string,
    { data?: { passthrough?: boolean } }
  >;
  // Keys are `type:index`; 1 is the response, and 2 is `next`.
  const taken = Object.entries(parameters).filter(([key]) => /^[12]:/.test(key));
  return taken.length > 0 && !taken.some(([, { data }]) => data?.passthrough);
}

const definedOf = (values: object | undefined): object =>
  Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => value !== undefined));
