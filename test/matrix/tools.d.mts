/** Installs packages, and what package.json of the folder asks for, without running their scripts. */
export function installByNpm(folder: string, ...packages: readonly string[]): Promise<string>;
