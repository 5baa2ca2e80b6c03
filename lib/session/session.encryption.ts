import { createCipheriv, createDecipheriv, createHash, randomBytes, type KeyObject } from 'node:crypto';
import type { PlainData, ResolvedEncryption } from '../options/encryption.js';
import { unreadable } from './session.graph.js';

const CIPHER = 'aes-256-gcm';
const FORMAT = 0xc1;
const KEY_ID = { label: 'nest-visit session key', length: 4 };
const HEADER = 1 + KEY_ID.length;
const NONCE = 12;
const TAG = 16;

interface NamedKey {
  readonly key: KeyObject;
  /** How everything begins that is encrypted with this key: format and key id. */
  readonly header: Buffer;
}

/**
 * Encrypts session data for the visit that it is stored with, by AES-256-GCM. The first key encrypts, all decrypt.
 *
 *   1 byte    0xC1: no format of ours begins with it, nor does UTF-8 text or MessagePack
 *   4 bytes   key id, the first of SHA-256("nest-visit session key" ‖ key): tells which key it was
 *   12 bytes  nonce, random
 *   n bytes   ciphertext, as many as of plain data
 *   16 bytes  tag
 *
 * The associated data is the first five bytes and the visit's id: what is copied to another visit does not decrypt
 * there.
 *
 * With random nonces a key is good for 2^32 writes (NIST SP 800-38D, 8.3); a new key in front begins anew.
 */
export class SessionEncryption {
  private readonly keys: readonly NamedKey[];
  private readonly plain: PlainData;

  constructor({ keys, plain }: ResolvedEncryption) {
    this.keys = keys.map((key) => ({ key, header: headerOf(key) }));
    this.plain = plain;
  }

  /** As it is to be stored. @param visitId of the visit with which it will be stored */
  encrypt(plain: Uint8Array, visitId: string): Uint8Array {
    if (this.plain === 'write') return plain;
    const { key, header } = this.keys[0]!;
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG }).setAAD(associated(header, visitId));
    return Buffer.concat([header, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** @throws SessionDataError with code SESSION_UNREADABLE, whatever the bytes are */
  decrypt(bytes: Uint8Array, visitId: string): Uint8Array {
    if (bytes[0] !== FORMAT) {
      if (this.plain !== 'refuse') return bytes;
      throw unreadable('it is not encrypted, and option "session.encryption.plain" is "refuse"');
    }
    if (bytes.length < HEADER + NONCE + TAG) throw unreadable('it is too short for encrypted data');
    const named = this.keys.filter(({ header }) => header.equals(bytes.subarray(0, HEADER)));
    if (named.length === 0) throw unreadable('it was encrypted with a key that is not in option "session.encryption"');
    // Two keys may have one id, once in four billion pairs.
    for (const one of named) {
      const plain = decryptWith(one, bytes, visitId);
      if (plain) return plain;
    }
    throw unreadable('it was changed, or belongs to another visit');
  }
}

function decryptWith({ key, header }: NamedKey, bytes: Uint8Array, visitId: string): Uint8Array | undefined {
  const start = HEADER + NONCE;
  const end = bytes.length - TAG;
  const decipher = createDecipheriv(CIPHER, key, bytes.subarray(HEADER, start), { authTagLength: TAG })
    .setAAD(associated(header, visitId))
    .setAuthTag(bytes.subarray(end));
  const plain = decipher.update(bytes.subarray(start, end));
  try {
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}

function headerOf(key: KeyObject): Buffer {
  const digest = createHash('sha256').update(KEY_ID.label).update(key.export()).digest();
  return Buffer.concat([Buffer.of(FORMAT), digest.subarray(0, KEY_ID.length)]);
}

function associated(header: Buffer, visitId: string): Buffer {
  return Buffer.concat([header, Buffer.from(visitId)]);
}
