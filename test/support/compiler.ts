import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const tsc = fileURLToPath(new URL('../../node_modules/@typescript/native/bin/tsc', import.meta.url));

/** What the compiler prints of a folder with a `tsconfig.json`: nothing if all is right. */
export function complaintsAbout(folder: string): Promise<string> {
  return promisify(execFile)(process.execPath, [tsc, '-p', folder, '--pretty', 'false']).then(
    () => '',
    // Of another failure than those that it prints, the whole.
    (error: Error & { stdout?: string }) => error.stdout || String(error),
  );
}
