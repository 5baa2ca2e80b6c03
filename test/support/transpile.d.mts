/** An ES module of TypeScript as JavaScript. Types are not checked. */
export function transpile(file: string, text: string): string;
