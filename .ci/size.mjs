// How large the package may become: `npm run size`, after a build. Raise a limit in the commit that needs it, and say
// there what for.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { npm } from '../sample/install.mjs';

/**
 * A tenth more than there is, with a store each for TypeORM, Prisma, Kysely, and Drizzle: too little for something
 * packed by mistake.
 */
export const BUDGET = { bytes: 570_000, files: 1100 };

const kB = (bytes) => `${Math.ceil(bytes / 1000)} kB`;

/** What is to be said of a package that npm has packed: `size` in bytes, compressed, and `entryCount`, its files. */
export function verdict({ size, entryCount }, { bytes, files } = BUDGET) {
  const problems = [];
  if (size > bytes) problems.push(`it has ${kB(size)}, more than the ${kB(bytes)} it may have`);
  if (entryCount > files) problems.push(`it has ${entryCount} files, more than the ${files} it may have`);
  if (problems.length === 0)
    return { isWithin: true, message: `${kB(size)} of ${kB(bytes)}, ${entryCount} of ${files} files` };
  const remedy = '`npm pack --dry-run` lists the files. If the growth is meant, raise BUDGET in .ci/size.mjs';
  return { isWithin: false, message: `The package is too large: ${problems.join(', and ')}. ${remedy}.` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { command, args, shell } = npm('pack', '--dry-run', '--json', '--loglevel=error');
  const cwd = fileURLToPath(new URL('..', import.meta.url));
  const [packed] = JSON.parse(execFileSync(command, args, { cwd, shell, encoding: 'utf8' }));
  const { isWithin, message } = verdict(packed);
  console.log(message);
  process.exitCode = isWithin ? 0 : 1;
}
