export function mistakesIn(dist: string, base: string): string[];
