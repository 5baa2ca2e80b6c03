import { hash as digest, randomBytes, timingSafeEqual } from 'node:crypto';
import { inspect } from 'node:util';

const KEY = /^[0-9a-f]{32}\.[A-Za-z0-9_-]{43}$/;
const ID = /^[0-9a-f]{32}$/;

/** The length of every key: id, dot, secret. */
export const VISIT_KEY_LENGTH = 76;

/**
 * `<id>.<secret>`, the secret of the client. The id (128 random bits, hexadecimal) is public. The secret (256 random
 * bits, base64url) is only known to the client; the store contains its SHA-256 hash. The id is hexadecimal because a
 * database that treats `a` and `A` as equal cannot confuse it.
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

  /** Creates a key, for a new visit or for the one with this id. */
  static create(id: string = randomBytes(16).toString('hex')): VisitKey {
    return new VisitKey(id, randomBytes(32).toString('base64url'));
  }

  /** Parses a key, or returns null. This needs no query. */
  static parse(text: unknown): VisitKey | null {
    if (typeof text !== 'string' || text.length !== VISIT_KEY_LENGTH || !KEY.test(text)) return null;
    return new VisitKey(text.slice(0, 32), text.slice(33));
  }

  static isId(text: unknown): text is string {
    return typeof text === 'string' && ID.test(text);
  }

  /** The whole key. Give it only to its client. */
  get text(): string {
    return `${this.id}.${this.#secret}`;
  }

  /** Whether the hash belongs to this secret, compared in constant time. */
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
