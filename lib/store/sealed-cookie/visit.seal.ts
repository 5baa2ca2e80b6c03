import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import { compactDecrypt, CompactEncrypt } from 'jose';
import type { VisitRecord } from '../visit.store.js';

/** A visit at one point of its life. */
export interface SealedVisit {
  readonly record: VisitRecord;
  /** Grows by one with each write, so that of two copies the newer one is known. */
  readonly revision: number;
}

const PROTECTED = { alg: 'dir', enc: 'A256GCM' } as const;
const HEADER_LENGTH = base64Length(Buffer.byteLength(JSON.stringify(PROTECTED)));
/** Three dots, another one for the key that `dir` has not, a nonce of 12 bytes and a tag of 16. */
const FRAME = HEADER_LENGTH + 4 + base64Length(12) + base64Length(16);
const FORMAT = 1;
const LENGTH_BYTES = 2;
const LABEL = 'nest-visit sealed cookie';

/** What a copy of this visit says: 2 bytes for the length of the JSON, the JSON, then session data as it is, since text of it would be larger. */
export function encodeVisit({ record, revision }: SealedVisit): Uint8Array {
  const json = Buffer.from(
    JSON.stringify([
      FORMAT,
      revision,
      record.id,
      record.keyHash,
      record.previousKeyHash,
      record.previousKeyUntil,
      record.keyChanged,
      record.created,
      record.accessed,
      record.expiry,
      record.absoluteExpiry,
      Number(record.permanent),
      record.remoteAddress,
      record.userAgent,
      record.sessionVersion,
      record.identity && [record.identity.userId, record.identity.created, record.identity.authenticatedAt],
      Number(record.sessionData !== null),
    ]),
  );
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt16BE(json.length);
  return Buffer.concat([length, json, record.sessionData ?? Buffer.alloc(0)]);
}

/** What `encodeVisit` was given; null for another format. A visit that has ended is never encoded. */
function decodeVisit(bytes: Uint8Array): SealedVisit | null {
  const buffer = Buffer.from(bytes);
  const end = LENGTH_BYTES + buffer.readUInt16BE();
  const [format, revision, ...fields] = JSON.parse(buffer.toString('utf8', LENGTH_BYTES, end)) as [number, number, ...never[]];
  if (format !== FORMAT) return null;
  const [id, keyHash, previousKeyHash, previousKeyUntil, keyChanged, created, accessed, expiry, absoluteExpiry, ...others] = fields;
  const [permanent, remoteAddress, userAgent, sessionVersion, identity, hasData] = others;
  const [userId, linked, authenticatedAt] = (identity ?? []) as never[];
  const record: VisitRecord = {
    id: id!,
    keyHash: keyHash!,
    previousKeyHash: previousKeyHash!,
    previousKeyUntil: previousKeyUntil!,
    keyChanged: keyChanged!,
    created: created!,
    accessed: accessed!,
    expiry: expiry!,
    absoluteExpiry: absoluteExpiry!,
    endedAt: null,
    endReason: null,
    permanent: permanent === 1,
    remoteAddress: remoteAddress!,
    userAgent: userAgent!,
    sessionData: hasData === 1 ? Uint8Array.from(buffer.subarray(end)) : null,
    sessionVersion: sessionVersion!,
    identity: identity ? { userId: userId!, created: linked!, authenticatedAt: authenticatedAt! } : null,
  };
  return { record, revision };
}

/** How long the sealed text will be: known before it is made, because encryption adds nothing but its frame. */
export function sealedLength(encoded: Uint8Array): number {
  return FRAME + base64Length(encoded.length);
}

/** Seals visits as JWE (RFC 7516) with AES-256-GCM: nobody without the secret can read or make one. The first secret seals, all open. */
export class VisitSeal {
  readonly #keys: readonly KeyObject[];

  constructor(secrets: readonly KeyObject[]) {
    // So that a secret which also encrypts something else is another key there.
    this.#keys = secrets.map((secret) => createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', LABEL, 32))));
  }

  seal(encoded: Uint8Array): Promise<string> {
    return new CompactEncrypt(encoded).setProtectedHeader(PROTECTED).encrypt(this.#keys[0]!);
  }

  /** The visit in the text, or null, whatever the text is. */
  async open(text: string): Promise<SealedVisit | null> {
    const algorithms = { keyManagementAlgorithms: [PROTECTED.alg], contentEncryptionAlgorithms: [PROTECTED.enc] };
    for (const key of this.#keys) {
      try {
        const { plaintext } = await compactDecrypt(text, key, algorithms);
        return decodeVisit(plaintext);
      } catch {
        // Sealed with another secret, or not by us.
      }
    }
    return null;
  }
}

/** Without padding. */
function base64Length(bytes: number): number {
  return Math.ceil((bytes * 4) / 3);
}
