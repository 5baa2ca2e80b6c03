/** Of rows in one statement. */
export const MAX_ROWS = 500;
