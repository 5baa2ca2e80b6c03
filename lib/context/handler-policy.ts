import type { KeySource } from '../options/visit-options.interface.js';

/** What a handler asks for by decorators. */
export interface HandlerPolicy {
  readonly skip: boolean;
  readonly passive: boolean;
  /** How long the visit lives on, in milliseconds; undefined: as the module's options say. */
  readonly timeout: number | undefined;
  readonly source: readonly KeySource[] | undefined;
  readonly path: string | undefined;
  /** How long to wait for exclusive access to the session, in milliseconds; undefined: it is not wanted. */
  readonly exclusive: number | undefined;
  /** It answers with server-sent events. */
  readonly events: boolean;
  /** It sends its response itself, maybe after it has returned. */
  readonly sends: boolean;
}
