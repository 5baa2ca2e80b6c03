/** "must be …" */
export class InvalidOption extends Error {
  constructor(
    expected: string,
    /** What it is, in words. Left out, the value is shown. */
    readonly got?: string,
  ) {
    super(expected);
  }
}
