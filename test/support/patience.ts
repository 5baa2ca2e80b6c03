/**
 * How long tests wait for what has to happen, in milliseconds. Only what never happens takes as long: what does happen
 * is waited for as long as a busy machine needs for it.
 */
export const PATIENCE = 180_000;
