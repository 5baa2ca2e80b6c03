import { VisitOptionError } from '../errors/visit.error.js';

/**
 * Loads a package that only some applications need.
 *
 * @param user what needs it, such as `RedisVisitStore`
 * @param load `() => import('…')` with the name as it stands, so that bundlers see it
 * @throws VisitOptionError with the command that installs it, where it is missing
 */
export async function loadOptional<T>(user: string, name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (!isMissing(error, name)) throw error;
    throw notInstalled(user, name);
  }
}

export function notInstalled(user: string, name: string): VisitOptionError {
  return new VisitOptionError(`${user} needs the package "${name}", which is not installed: npm install ${name}`);
}

/** Not where a package is there and lacks one of its own. */
function isMissing(error: unknown, name: string): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') && message.includes(`'${name}'`);
}
