export class ReleaseError extends Error {}
export function nextVersion(current: string, wanted: string): string;
export function releaseNotes(changelog: string, version: string, date: string): { notes: string; changelog: string };
