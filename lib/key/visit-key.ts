import { hash as digest, randomBytes, timingSafeEqual } from 'node:crypto';
import { inspect } from 'node:util';

const KEY = /^[0-9a-f]{32}\.[A-Za-z0-9_-]{43}$/;
const ID = /^[0-9a-f]{32}$/;

/** Characters of every key: id, dot, secret. */
export const VISIT_KEY_LENGTH = 76;

/**
 * `<id>.<secret>`: what the client holds. The id (128 random bits, hexadecimal) is public; the secret (256 random bits,
 * base64url) is only ever in the client's hands, the store keeps its SHA-256. Hexadecimal, because a database that
 * takes `a` for `A` cannot confuse it.
 */
export class VisitKey {
  readonly id: string;
  /** SHA-256 of the secret in hexadecimal. */
  readonly hash: string;
  readonly #secret: string;

  private constructor(id: string, secret: string) {
    this.id = id;
    this.hash = digest('sha256', secret);
    this.#secret = secret;
  }

  /** A new key, for a new visit or for the one with this id. */
  static create(id: string = randomBytes(16).toString('hex')): VisitKey {
    return new VisitKey(id, randomBytes(32).toString('base64url'));
  }

  /** The key that the text is, or null if it is none. No query is needed to know. */
  static parse(text: unknown): VisitKey | null {
    if (typeof text !== 'string' || text.length !== VISIT_KEY_LENGTH || !KEY.test(text)) return null;
    return new VisitKey(text.slice(0, 32), text.slice(33));
  }

  static isId(text: unknown): text is string {
    return typeof text === 'string' && ID.test(text);
  }

  /** The whole key, to be given to its client and nobody else. */
  get text(): string {
    return `${this.id}.${this.#secret}`;
  }

  /** Whether the hash belongs to this secret; takes the same time for each hash. */
  matches(hash: string | null): boolean {
    if (hash === null) return false;
    const [given, own] = [Buffer.from(hash), Buffer.from(this.hash)];
    return given.length === own.length && timingSafeEqual(given, own);
  }

  /** Whether it is the same key of the same visit. */
  equals(other: VisitKey): boolean {
    return this.id === other.id && this.matches(other.hash);
  }

  toString(): string {
    return `VisitKey(${this.id})`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}
