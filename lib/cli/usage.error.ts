/** The command was called in a way that it cannot be. */
export class UsageError extends Error {
  constructor(
    message: string,
    /** Whose help tells how, where that is known. */
    readonly command?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
