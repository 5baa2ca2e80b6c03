import {
  SessionDataError,
  VisitEndedError,
  VisitOptionError,
  VisitStoreUnsupportedError,
} from '../../errors/visit.error.js';
import { parseKeys, type EncryptionKey } from '../../options/encryption.js';
import { InvalidOption } from '../../options/invalid-option.js';
import type { ClientStorage, ClientCopy, VisitClients } from '../visit.facets.js';
import {
  VisitStore,
  type Ending,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitRecord,
  type VisitStoreCapabilities,
} from '../visit.store.js';
import { copyOf, ended, refusalOf, rekeyed, saved, touched } from '../visit.record.js';
import { encodeVisit, sealedLength, VisitSeal, type SealedVisit } from './visit.seal.js';

/** Options of `SealedCookieVisitStore`. */
export interface SealedCookieVisitStoreOptions {
  /**
   * The secrets. The first one seals, every one opens: to change the secret, put a new one first, and remove the old
   * one when the visits that it sealed have expired. Each has 32 random bytes, or is the same as text: 64 hexadecimal
   * digits, base64 or base64url.
   */
  readonly secrets: readonly EncryptionKey[];
}

/** A visit of one browser, and its changes since then. */
interface Line extends SealedVisit {
  record: VisitRecord;
  revision: number;
  /** The newest sealed copy; undefined: the browser has it. */
  copy: (ClientCopy & { readonly revision: number }) | undefined;
}

/** A visit with requests in flight. */
interface Held {
  requests: number;
  /** The size limit of the smallest cookie of these requests. */
  maxLength: number;
  line: Line | undefined;
}

/**
 * Keeps visits in the browser, in an encrypted and authenticated cookie: for small applications without a database. The
 * store itself only knows the visits of requests in flight.
 *
 * Nothing can be revoked in a browser: anyone who has copied both cookies can use them until the visit expires, even
 * after a sign-out.
 */
export class SealedCookieVisitStore extends VisitStore implements VisitClients {
  override readonly clients = this;
  override readonly capabilities: VisitStoreCapabilities = {
    atomic: false,
    revocable: false,
    shared: true,
    durable: true,
  };

  readonly #seal: VisitSeal;
  readonly #held = new Map<string, Held>();

  constructor(options: SealedCookieVisitStoreOptions) {
    super();
    try {
      this.#seal = new VisitSeal(
        parseKeys((options as SealedCookieVisitStoreOptions | undefined)?.secrets, 'secrets', 'an object'),
      );
    } catch (error) {
      if (!(error instanceof InvalidOption)) throw error;
      throw new VisitOptionError(`the options of SealedCookieVisitStore must be ${error.message}, got ${error.got}`);
    }
  }

  /** The number of visits that the store knows at the moment: those of requests in flight. */
  get size(): number {
    return this.#held.size;
  }

  /** @throws VisitOptionError if the package `jose` is missing */
  async check(): Promise<void> {
    await this.#seal.load();
  }

  openStorage(maxLength: number): ClientStorage {
    const own = new Set<string>();
    let isClosed = false;
    return {
      load: async (ids, texts) => {
        if (isClosed) throw new VisitEndedError();
        for (const id of ids) {
          if (own.has(id)) continue;
          own.add(id);
          this.#hold(id, maxLength);
        }
        // No browser keeps a longer one.
        for (const text of texts) if (text.length <= maxLength) this.#takeIn(await this.#seal.open(text), ids);
      },
      copyFor: ({ id, keyHash, now }) => {
        const line = this.#held.get(id)?.line;
        return line?.copy && !refusalOf(line.record, { id, keyHash, now }) ? line.copy : undefined;
      },
      close: () => {
        if (isClosed) return;
        isClosed = true;
        for (const id of own) this.#letGo(id);
      },
    };
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    return ids.map((id) => {
      const line = this.#held.get(id)?.line;
      return line ? copyOf(line.record) : null;
    });
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const places = visits.map(({ id }) => this.#held.get(id));
    const ids = new Set(visits.map(({ id }) => id));
    if (ids.size < visits.length || places.some((held) => held?.line))
      throw new Error('[visit] a visit with this id already exists');
    const lines = visits.map((visit, index): [Held, Line] => {
      const held = places[index];
      if (!held) throw unreachable();
      const line: Line = { record: copyOf(visit), revision: 0, copy: undefined };
      requireLength(held, visit);
      return [held, line];
    });
    for (const [held, line] of lines) held.line = line;
    await Promise.all(lines.map(([, line]) => this.#sealLine(line)));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    const written = new Set<Line>();
    const results = saves.map((save): SaveResult => {
      const held = this.#held.get(save.id);
      const { result, next } = saved(held?.line?.record ?? null, save);
      if (!held?.line || !next) return result;
      try {
        write(held.line, next, held);
      } catch (error) {
        return { outcome: 'failed', error };
      }
      written.add(held.line);
      return result;
    });
    await this.#sealLines(written);
    return results;
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    const written = new Set<Line>();
    for (const touch of touches) {
      const line = this.#held.get(touch.id)?.line;
      const next = touched(line?.record ?? null, touch);
      if (!line || !next) continue;
      // There is room for it, see `requireLength`.
      write(line, next);
      written.add(line);
    }
    await this.#sealLines(written);
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    const written = new Set<Line>();
    const results = changes.map((change): RekeyResult => {
      const held = this.#held.get(change.id);
      const { result, next } = rekeyed(held?.line?.record ?? null, change);
      if (!held?.line || !next) return result;
      write(held.line, next, held);
      written.add(held.line);
      return result;
    });
    await this.#sealLines(written);
    return results;
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    if (!ending.retiresKey) throw new VisitStoreUnsupportedError('end', 'revocable');
    return ids.filter((id) => {
      const line = this.#held.get(id)?.line;
      const next = ended(line?.record ?? null, ending);
      if (!line || !next) return false;
      write(line, next);
      line.copy = undefined;
      return true;
    });
  }

  async close(): Promise<void> {}

  #hold(id: string, maxLength: number): void {
    const held = this.#held.get(id);
    if (held) {
      held.requests++;
      held.maxLength = Math.min(held.maxLength, maxLength);
    } else this.#held.set(id, { requests: 1, maxLength, line: undefined });
  }

  #letGo(id: string): void {
    const held = this.#held.get(id);
    if (held && --held.requests === 0) this.#held.delete(id);
  }

  /** Accepts only visits that belong to a key of the same request: a sealed visit contains its user. */
  #takeIn(visit: SealedVisit | null, ids: readonly string[]): void {
    if (!visit || !ids.includes(visit.record.id)) return;
    const held = this.#held.get(visit.record.id);
    if (held && (!held.line || isNewer(visit, held.line))) held.line = { ...visit, copy: undefined };
  }

  async #sealLines(lines: ReadonlySet<Line>): Promise<void> {
    await Promise.all([...lines].map((line) => this.#sealLine(line)));
  }

  async #sealLine(line: Line): Promise<void> {
    const { revision } = line;
    const { keyHash } = line.record;
    const text = await this.#seal.seal(encodeVisit(line));
    // Others may have been faster with something newer, or have ended the visit.
    if (line.record.endedAt === null && revision >= (line.copy?.revision ?? 0)) line.copy = { text, keyHash, revision };
  }
}

/**
 * Which of two copies that a browser has sent at the same time is newer. The age of the key counts first, because a
 * client may have kept a copy from before the sign-in and keep changing that one. If one copy has ended, the visit has
 * ended.
 */
function isNewer(visit: SealedVisit, line: Line): boolean {
  if (line.record.endedAt !== null) return false;
  const younger = visit.record.keyChanged - line.record.keyChanged;
  return younger > 0 || (younger === 0 && visit.revision > line.revision);
}

/** @throws SessionDataError if it does not fit into its cookie; nothing is written then */
function write(line: Line, record: VisitRecord, held?: Held): void {
  if (held) requireLength(held, record);
  Object.assign(line, { record, revision: line.revision + 1 });
}

/**
 * The session may use only the space that the visit itself never needs. Otherwise a use or a renewal could find the
 * cookie full, which cannot be refused, and browsers drop a cookie that is too long.
 */
function requireLength({ maxLength }: Held, record: VisitRecord): void {
  const length = sealedLength(encodeVisit({ record: grown(record), revision: Number.MAX_SAFE_INTEGER }));
  if (length <= maxLength) return;
  throw new SessionDataError(
    'SESSION_TOO_LARGE',
    `the sealed visit has up to ${length} bytes, but ${maxLength} are allowed (4096 with the name and attributes ` +
      `of its cookie); the session is ${record.sessionData?.length ?? 0} of them: store at least ` +
      `${Math.ceil(((length - maxLength) * 3) / 4)} bytes less in it, or store an id and keep the data elsewhere`,
  );
}

/** The visit with its maximum size while its session and its user do not change: with the key from before a renewal. */
function grown(record: VisitRecord): VisitRecord {
  const { keyHash, keyChanged, absoluteExpiry, expiry } = record;
  return {
    ...record,
    previousKeyHash: keyHash,
    previousKeyUntil: keyChanged,
    absoluteExpiry: absoluteExpiry ?? expiry,
    sessionVersion: Number.MAX_SAFE_INTEGER,
  };
}

function unreachable(): VisitStoreUnsupportedError {
  const message =
    'a visit that its browser keeps can only be made in a request of that browser: VisitService.create() needs ' +
    'another store';
  return new VisitStoreUnsupportedError('create', 'pages', message);
}
