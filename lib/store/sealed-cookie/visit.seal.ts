import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import { loadOptional } from '../optional-package.js';
import { recordReader, rowWriter } from '../record.rows.js';
import { IDENTITY_COLUMNS, namesIn, VISIT_COLUMNS } from '../visit.columns.js';
import type { IdentityRecord, VisitRecord } from '../visit.store.js';

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

// A visit that has ended is never sealed. Session data stands behind the rest, as it is, since text of it would be
// larger.
const { endedAt: _at, endReason: _reason, sessionData: _data, ...SEALED_COLUMNS } = VISIT_COLUMNS;

const asIs = <T>(value: T): T => value;
const flag = { toNumber: Number, toBoolean: (value: number): boolean => value === 1 };
const SAME = { hex: asIs, text: asIs, exact: asIs, instant: asIs, count: asIs, bytes: asIs };
const visitValues = rowWriter<VisitRecord>(SEALED_COLUMNS, { ...SAME, flag: flag.toNumber });
const identityValues = rowWriter<IdentityRecord>(IDENTITY_COLUMNS, { ...SAME, flag: flag.toNumber });

/** The values before those of the columns: a copy from before a column was added ends sooner. */
type Head = readonly [format: number, revision: number, hasData: 0 | 1, owner: unknown[] | null];
const HEAD_LENGTH = 4;
const places = new Map(namesIn(SEALED_COLUMNS).map((name, index): [string, number] => [name, HEAD_LENGTH + index]));
const ownerPlaces = namesIn(IDENTITY_COLUMNS);
/** Where the opened data is put. */
const DATA = HEAD_LENGTH + places.size;

const read = recordReader<readonly unknown[]>({
  readers: { ...SAME, flag: flag.toBoolean },
  placeOf: (field) => (field === 'sessionData' ? DATA : (places.get(field) ?? field)),
  identityOf: ([, , , owner]: Head) =>
    owner && Object.fromEntries(ownerPlaces.map((name, index) => [name, owner[index]])),
});

/** What a copy of this visit says: 2 bytes for the length of the JSON, the JSON, then the session data. */
export function encodeVisit({ record, revision }: SealedVisit): Uint8Array {
  const { identity, sessionData } = record;
  const head: Head = [FORMAT, revision, sessionData ? 1 : 0, identity && identityValues(identity)];
  const json = Buffer.from(JSON.stringify([...head, ...visitValues(record)]));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt16BE(json.length);
  return Buffer.concat([length, json, sessionData ?? Buffer.alloc(0)]);
}

/** What `encodeVisit` was given; null for another format. */
function decodeVisit(bytes: Uint8Array): SealedVisit | null {
  const buffer = Buffer.from(bytes);
  const end = LENGTH_BYTES + buffer.readUInt16BE();
  const values = JSON.parse(buffer.toString('utf8', LENGTH_BYTES, end)) as [...Head, ...unknown[]];
  const [format, revision, hasData] = values;
  if (format !== FORMAT) return null;
  values[DATA] = hasData === 1 ? Uint8Array.from(buffer.subarray(end)) : null;
  const record = read(values);
  return record && { record, revision };
}

/** How long the sealed text will be: known before it is made, because encryption adds nothing but its frame. */
export function sealedLength(encoded: Uint8Array): number {
  return FRAME + base64Length(encoded.length);
}

/**
 * Seals visits as JWE (RFC 7516) with AES-256-GCM: nobody without the secret can read or make one. The first secret
 * seals, all open.
 */
export class VisitSeal {
  readonly #keys: readonly KeyObject[];
  #jose: Promise<typeof import('jose')> | undefined;

  constructor(secrets: readonly KeyObject[]) {
    // So that a secret which also encrypts something else is another key there.
    this.#keys = secrets.map((secret) => createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', LABEL, 32))));
  }

  /** Loads the package. @throws VisitOptionError where it is missing */
  load(): Promise<typeof import('jose')> {
    return (this.#jose ??= loadOptional('SealedCookieVisitStore', 'jose', () => import('jose')));
  }

  async seal(encoded: Uint8Array): Promise<string> {
    const { CompactEncrypt } = await this.load();
    return new CompactEncrypt(encoded).setProtectedHeader(PROTECTED).encrypt(this.#keys[0]!);
  }

  /** The visit in the text, or null, whatever the text is. */
  async open(text: string): Promise<SealedVisit | null> {
    const algorithms = { keyManagementAlgorithms: [PROTECTED.alg], contentEncryptionAlgorithms: [PROTECTED.enc] };
    const { compactDecrypt } = await this.load();
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
