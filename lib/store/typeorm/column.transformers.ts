import type { ValueTransformer } from 'typeorm';
import { toBuffer } from '../sql.values.js';

/**
 * Instants are kept as milliseconds since 1970 UTC, so that no time zone of process, connection or database can move
 * them.
 */
export const instant: ValueTransformer = {
  to: (value?: Date | number | null) => (value == null ? value : Number(value)),
  // Drivers give 64-bit integers as text.
  from: (value?: string | number | null) => (value == null ? value : new Date(Number(value))),
};

/** Drivers disagree about what a binary column holds: Buffer, Uint8Array or ArrayBuffer. */
export const bytes: ValueTransformer = {
  to: (value?: Uint8Array | null) => (value == null ? value : toBuffer(value)),
  from: (value?: Uint8Array | ArrayBuffer | null) => (value == null ? value : toBuffer(value)),
};
