/** To be run in a page: texts with too little contrast to their ground. */
export function lowContrast(): string[];
