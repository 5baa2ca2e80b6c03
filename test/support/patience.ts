/**
 * How long tests wait for something that must happen, in milliseconds. Only a failure takes this long: otherwise, the
 * wait ends as soon as it happens, however busy the machine is.
 */
export const PATIENCE = 180_000;
