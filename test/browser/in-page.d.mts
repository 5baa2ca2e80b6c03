// To be run in a page.

/** Texts with too little contrast to their ground. */
export function lowContrast(): string[];
/** The names of fields without a label. */
export function unlabelledFields(): string[];
/** How the focus is drawn around the element that has it. */
export function focusOutline(): string;
