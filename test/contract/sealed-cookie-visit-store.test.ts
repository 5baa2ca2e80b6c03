import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { VisitOptionError, VisitStoreUnsupportedError, type VisitRecord } from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { describeVisitStore } from 'nest-visit/testing';
import { describe, expect, test } from 'vitest';
import { runnerInTurns } from '../support/large-visits.js';
import { PretendedBrowser } from '../support/pretended-browser.js';
import { created } from '../../lib/store/visit.record.js';

const secret = randomBytes(32);
const open = (...secrets: Uint8Array[]): SealedCookieVisitStore =>
  new SealedCookieVisitStore({ secrets: secrets.length ? secrets : [secret] });

describeVisitStore(
  'sealed cookie',
  () => {
    const jar = new Map<string, string>();
    const browser = (): PretendedBrowser => new PretendedBrowser(open(), jar);
    const store = browser();
    return {
      store,
      second: browser(),
      reopen: browser,
      close: () => assert.equal((store.store as SealedCookieVisitStore).size, 0),
    };
  },
  // Each visit of the large tests is encrypted several times.
  { runner: runnerInTurns(0), capabilities: { atomic: false, revocable: false, shared: true, durable: true } },
);

const ROOM = 4000;
const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

function visitOf(given: Partial<VisitRecord> = {}): VisitRecord {
  return created({
    id: randomBytes(16).toString('hex'),
    keyHash: randomBytes(32).toString('hex'),
    created: 1_000,
    expiry: 9_000,
    remoteAddress: '192.0.2.7',
    userAgent: 'zoë 👩‍🚀',
    ...given,
  });
}

const keyOf = ({ id, keyHash }: VisitRecord) => ({ id, keyHash });

/** What a browser is given for a new visit. */
async function copyOf(store: SealedCookieVisitStore, visit: VisitRecord): Promise<string> {
  const storage = store.openStorage(ROOM);
  await storage.load([visit.id], []);
  await store.create([visit]);
  const copy = storage.copyFor({ ...visit, now: 1_000 })!;
  storage.close();
  return copy.text;
}

/** What a store finds when a request brings these texts. */
async function found(store: SealedCookieVisitStore, id: string, ...texts: string[]) {
  const storage = store.openStorage(ROOM);
  await storage.load([id], texts);
  const [record] = await store.find([id]);
  storage.close();
  return record;
}

describe('Sealed visits', () => {
  test('do not disclose their contents', async () => {
    const visit = visitOf({ identity: { userId: 'alice-the-user', created: 1, authenticatedAt: 1 } });
    const text = await copyOf(open(), visit);
    const parts = text.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'));
    expect(JSON.parse(parts[0]!)).toEqual({ alg: 'dir', enc: 'A256GCM' });
    expect(parts.join()).not.toContain(visit.id);
    expect(parts.join()).not.toContain('alice');
    expect(await found(open(), visit.id, text)).toMatchObject({ ...visit, sessionVersion: 0 });
  });

  test('are refused for another visit, with another secret, truncated, changed, repeated and empty', async () => {
    const store = open();
    const [visit, other] = [visitOf(), visitOf()];
    const text = await copyOf(store, visit);
    expect(await found(store, other.id, text)).toBeNull();
    expect(await found(open(randomBytes(32)), visit.id, text)).toBeNull();
    for (let at = 0; at < text.length; at += 7) {
      expect(await found(store, visit.id, text.slice(0, at))).toBeNull();
      // The highest bit: the lowest ones of a last character may stand for nothing.
      const changed = text[at] === '.' ? 'A' : BASE64URL[BASE64URL.indexOf(text[at]!) ^ 32]!;
      expect(
        await found(store, visit.id, text.slice(0, at) + changed + text.slice(at + 1)),
        `character ${at}`,
      ).toBeNull();
    }
    for (const bad of [
      '',
      '.',
      '....',
      `${text}${text}`,
      `${text}.`,
      'x'.repeat(ROOM),
      'x'.repeat(ROOM + 1),
      '\0',
      '{}',
    ]) {
      expect(await found(store, visit.id, bad)).toBeNull();
    }
    expect(await found(store, visit.id, 'bad', text)).toMatchObject(visit);
    expect(store.size).toBe(0);
  });

  test('are opened with an earlier secret, and sealed with the new one', async () => {
    const [old, fresh] = [randomBytes(32), randomBytes(32)];
    const visit = visitOf();
    const text = await copyOf(open(old), visit);
    const rotated = open(fresh, old);
    expect(await found(rotated, visit.id, text)).toMatchObject(visit);
    const again = await copyOf(rotated, visit);
    expect(await found(open(old), visit.id, again)).toBeNull();
    expect(await found(open(fresh), visit.id, again)).toMatchObject(visit);
  });

  test('the newest of several copies counts; one with an earlier key does not, whatever its version', async () => {
    const store = open();
    const visit = visitOf();
    const before = await copyOf(store, visit);
    const browser = store.openStorage(ROOM);
    await browser.load([visit.id], [before]);
    const newKeyHash = randomBytes(32).toString('hex');
    await store.rekey([{ ...keyOf(visit), now: 2_000, newKeyHash, previousKeyUntil: null }]);
    const after = browser.copyFor({ id: visit.id, keyHash: newKeyHash, now: 2_000 })!.text;
    browser.close();

    const attacker = store.openStorage(ROOM);
    await attacker.load([visit.id], [before]);
    for (let version = 0; version < 5; version++)
      await store.save([{ ...visit, now: 2_000, version, data: Uint8Array.of(version) }]);
    // While that request goes on, the one with the new key comes in.
    expect(await found(store, visit.id, after)).toMatchObject({ keyHash: newKeyHash, sessionVersion: 0 });
    expect(attacker.copyFor({ ...visit, now: 2_000 })).toBeUndefined();
    expect(await store.save([{ ...visit, now: 2_000, version: 0, data: null }])).toEqual([
      { outcome: 'refused', reason: 'retired' },
    ]);
    attacker.close();
    expect(await found(store, visit.id, before, after, before)).toMatchObject({ keyHash: newKeyHash });
    expect(store.size).toBe(0);
  });

  test('a visit that ended during a request is not restored by a copy', async () => {
    const store = open();
    const visit = visitOf();
    const text = await copyOf(store, visit);
    const [one, two] = [store.openStorage(ROOM), store.openStorage(ROOM)];
    await one.load([visit.id], [text]);
    expect(await store.end([visit.id], { reason: 'logout', at: 2_000, retiresKey: true })).toEqual([visit.id]);
    await two.load([visit.id], [text]);
    expect((await store.find([visit.id]))[0]).toMatchObject({ endReason: 'logout' });
    expect(two.copyFor({ ...visit, now: 2_000 })).toBeUndefined();
    one.close();
    two.close();
    two.close();
    expect(store.size).toBe(0);
  });

  test('one byte too many is refused, with the sizes, and nothing of it is stored', async () => {
    const store = open();
    const visit = visitOf();
    const storage = store.openStorage(ROOM);
    await storage.load([visit.id], []);
    await store.create([visit]);
    const save = (size: number, version: number) =>
      store.save([{ ...visit, now: 1_000, version, data: randomBytes(size) }]);
    let [fits, tooMuch] = [0, ROOM];
    let version = 0;
    while (tooMuch - fits > 1) {
      const size = (fits + tooMuch) >> 1;
      const [result] = await save(size, version);
      if (result!.outcome === 'saved') {
        fits = size;
        version++;
        expect(storage.copyFor({ ...visit, now: 1_000 })!.text.length).toBeLessThanOrEqual(ROOM);
      } else {
        tooMuch = size;
        expect(result).toMatchObject({ outcome: 'failed', error: { code: 'SESSION_TOO_LARGE' } });
        expect((result as { error: Error }).error.message).toMatch(
          new RegExp(
            `has up to \\d{4} bytes, but 4000 are allowed .* the session is ${size} of them.* at least \\d+ bytes less`,
          ),
        );
      }
    }
    expect(fits).toBeGreaterThan(2_000);
    await save(fits, version);
    const lengthNow = (keyHash: string): number => storage.copyFor({ id: visit.id, keyHash, now: 1_000 })!.text.length;
    // What the visit may need itself is kept free: a change of key that leaves the old one a grace.
    expect(lengthNow(visit.keyHash)).toBeGreaterThan(ROOM - 250);
    const newKeyHash = '9'.repeat(64);
    await store.rekey([{ ...keyOf(visit), now: 1_000, newKeyHash, previousKeyUntil: 2_000 }]);
    expect(lengthNow(newKeyHash)).toBeLessThanOrEqual(ROOM);
    const before = (await store.find([visit.id]))[0]!;
    const identity = { userId: 'u'.repeat(200), created: 1_000, authenticatedAt: 1_000 };
    await expect(
      store.rekey([
        { id: visit.id, keyHash: newKeyHash, now: 1_000, newKeyHash: visit.keyHash, previousKeyUntil: null, identity },
      ]),
    ).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE' });
    expect((await store.find([visit.id]))[0]).toEqual(before);
    storage.close();
  });

  test('are created only in a request', async () => {
    const error = open().create([visitOf()]);
    await expect(error).rejects.toBeInstanceOf(VisitStoreUnsupportedError);
    const gone = open().openStorage(ROOM);
    gone.close();
    await expect(gone.load([visitOf().id], [])).rejects.toMatchObject({ code: 'VISIT_ENDED' });
  });
});

describe('The secrets', () => {
  test.each<[unknown, string]>([
    [undefined, 'must be an object with a list of secrets, got undefined for secrets'],
    [[], 'got an empty list for secrets'],
    [
      ['short'],
      'whose secrets are 32 bytes each: a Buffer, 64 hexadecimal digits, or base64 (openssl rand -base64 32), got ' +
        'a string of 5',
    ],
    [[secret, secret.toString('hex')], 'with different secrets, got the same for secrets[0] and secrets[1]'],
  ])('%j are refused, and not shown', (secrets, message) => {
    const make = () => new SealedCookieVisitStore({ secrets: secrets as string[] });
    expect(make).toThrow(VisitOptionError);
    expect(make).toThrow(message);
  });
});
