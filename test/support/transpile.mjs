import { transformSync } from 'rolldown/utils';

/**
 * As tsconfig.json has it. The library names the types of its columns and the tokens of its dependencies, so it needs no
 * metadata of decorators.
 */
const OPTIONS = {
  target: 'es2022',
  lang: 'ts',
  // Without options, the options of the tsconfig.json next to the file would be used.
  tsconfig: false,
  decorator: { legacy: true },
  assumptions: { setPublicClassFields: true },
  typescript: { removeClassFieldsWithoutInitializer: true },
};

/**
 * TypeScript as JavaScript, without a check of its types: by the compiler that Vitest itself uses, which takes a
 * hundredth of the time of TypeScript's.
 */
export function transpile(file, text) {
  const { code, errors } = transformSync(file, text, OPTIONS);
  if (errors.length > 0) throw errors[0];
  return code;
}
