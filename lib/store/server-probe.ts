/**
 * Texts that connections have turned into others: quotes, escapes, letters that look alike, what takes two, three and
 * four bytes.
 */
export const PROBE_TEXT = 'Ann\'s "\\" `100%_` ab\u0430\u0431\u00e9e\u0301\u00df\u20ac\u4e2d\u{1f600}\n\u001a.';
export const PROBE_BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

/** Whether a server has understood these bytes, by what it says in hexadecimal digits. */
export const isHexOf = (hex: unknown, bytes: Buffer): boolean => String(hex).toLowerCase() === bytes.toString('hex');
