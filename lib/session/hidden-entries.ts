/**
 * What the library itself keeps in a session: entries whose names begin so are saved with the others, and not shown.
 */
const HIDDEN = '\0';

export const FORM_TOKENS = `${HIDDEN}form-tokens`;

export const isHidden = (key: string): boolean => key.startsWith(HIDDEN);
