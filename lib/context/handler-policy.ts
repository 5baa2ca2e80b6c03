import type { KeySource } from '../options/visit-options.interface.js';

/** The settings of a handler from its decorators. */
export interface HandlerPolicy {
  readonly skip: boolean;
  readonly passive: boolean;
  /** How long the visit lives after a request, in milliseconds; undefined: according to the options. */
  readonly timeout: number | undefined;
  readonly source: readonly KeySource[] | undefined;
  readonly path: string | undefined;
  /** How long to wait for exclusive access to the session, in milliseconds; undefined: no exclusive access. */
  readonly exclusive: number | undefined;
  /** Whether it answers with server-sent events. */
  readonly events: boolean;
  /** Whether it sends its response itself, maybe after it has returned. */
  readonly sends: boolean;
}
