export interface Packed {
  /** The path of the file. */
  readonly tarball: string;
  /** The SHA-256 of the file. */
  readonly digest: string;
  /** What is in it. */
  readonly files: readonly string[];
  /** Of the file, in bytes. */
  readonly size: number;
  readonly entryCount: number;
}
export function pack(folder: string, options?: { readonly build?: boolean }): Promise<Packed>;
