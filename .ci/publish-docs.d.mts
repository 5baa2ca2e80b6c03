export interface PublishedVersion {
  folder: string;
  version: string;
}
export function withVersion(versions: readonly PublishedVersion[], version: string): PublishedVersion[];
export function latestOf(versions: readonly PublishedVersion[]): PublishedVersion;
export function publish(to: string, version: string, build: (minor?: string) => string): void;
