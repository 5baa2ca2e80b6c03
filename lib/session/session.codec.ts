// PLACEHOLDER so that others can run; the author of the codec overwrites this file.
export interface SessionSerializer {
  encode(data: ReadonlyMap<string, unknown>): Uint8Array;
  decode(bytes: Uint8Array): Map<string, unknown>;
}
export class DefaultSessionSerializer implements SessionSerializer {
  encode(data: ReadonlyMap<string, unknown>): Uint8Array {
    return Buffer.from(JSON.stringify([...data]));
  }
  decode(bytes: Uint8Array): Map<string, unknown> {
    return new Map(JSON.parse(Buffer.from(bytes).toString()) as [string, unknown][]);
  }
}
