/** The arguments of the command are invalid. */
export class UsageError extends Error {
  constructor(
    message: string,
    /** The command whose help explains it, if known. */
    readonly command?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
