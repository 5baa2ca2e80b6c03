export class ReleaseError extends Error {}
export function nextVersion(current: string, wanted: string): string;
export function releaseNotes(changelog: string, version: string, date: string): { notes: string; changelog: string };
export function release(
  args: readonly string[],
  surroundings?: { folder?: string; env?: NodeJS.ProcessEnv; print?: (text: string) => void },
): void;
