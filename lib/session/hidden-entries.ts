/** The prefix of the library's own entries in a session, which are saved with the others but not shown. */
const HIDDEN = '\0';

export const FORM_TOKENS = `${HIDDEN}form-tokens`;

export const isHidden = (key: string): boolean => key.startsWith(HIDDEN);
