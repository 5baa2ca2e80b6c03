import { isSoak } from '../support/soak.js';

/** Tells which inputs a run makes: the same seed, the same inputs. */
export const seed = Number(process.env['VISIT_TEST_SEED'] || Date.now());

/** A hundred times as many inputs, for who has the time. */
export const inputs = (usual: number): number => (isSoak ? usual * 100 : usual);

/** What a failure says, so that it can be had again. */
export function replay(index?: number, input?: unknown): string {
  const place = index === undefined ? '' : `, input ${index}`;
  return `VISIT_TEST_SEED=${seed}${place}${input === undefined ? '' : `: ${shown(input)}`}`;
}

function shown(input: unknown): string {
  const text =
    JSON.stringify(input, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value)) ?? String(input);
  return text.length > 4000 ? `${text.slice(0, 4000)} … (${text.length} characters)` : text;
}

const HEX = '0123456789abcdef';
export const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Chance that can be had again. Each input has its own, so that it does not depend on those before it. */
export class Random {
  private state: number;

  constructor(index: number, stream = 0) {
    this.state =
      (Math.imul(seed ^ (seed / 2 ** 32), 0x9e3779b1) ^
        Math.imul(index + 1, 0x85ebca6b) ^
        Math.imul(stream + 1, 0xc2b2ae35)) |
      0;
    // Neighbours begin alike.
    this.next();
    this.next();
  }

  /** From 0 to below 1 (mulberry32). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  list<T>(length: number, make: () => T): T[] {
    return Array.from({ length }, make);
  }

  shuffled<T>(values: readonly T[]): T[] {
    const result = [...values];
    for (let at = result.length - 1; at > 0; at--) {
      const other = this.below(at + 1);
      [result[at], result[other]] = [result[other]!, result[at]!];
    }
    return result;
  }

  text(length: number, alphabet: string): string {
    let text = '';
    for (let at = 0; at < length; at++) text += alphabet[this.below(alphabet.length)];
    return text;
  }

  hex(length: number): string {
    return this.text(length, HEX);
  }

  base64url(length: number): string {
    return this.text(length, BASE64URL);
  }

  /** Characters of a header as Node reads it: one for each byte. */
  latin1(length: number): string {
    let text = '';
    for (let at = 0; at < length; at++) text += String.fromCharCode(0x21 + this.below(0xde));
    return text;
  }

  unicode(length: number): string {
    let text = '';
    for (let at = 0; at < length; at++) text += String.fromCharCode(this.below(0x10000));
    return text;
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.below(256);
    return bytes;
  }

  /** Mostly short, now and then long. */
  length(): number {
    return this.chance(0.005) ? this.below(20_000) : this.chance(0.1) ? this.below(400) : this.below(12);
  }
}
