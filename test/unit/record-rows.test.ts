import { describe, expect, test } from 'vitest';
import { recordReader } from '../../lib/store/record.rows.js';

const asIs = (value: never): never => value;
const text = (value: unknown) => (typeof value === 'string' ? value : undefined);
const readers = { hex: text, text, exact: text, instant: Number, count: Number, flag: Boolean, bytes: asIs };

const whole = {
  id: 'a',
  keyHash: 'b',
  previousKeyHash: null,
  previousKeyUntil: '7',
  keyChanged: '1',
  created: 2,
  accessed: 3,
  expiry: '8640000000000000',
  absoluteExpiry: null,
  endedAt: null,
  endReason: null,
  permanent: 0,
  remoteAddress: null,
  userAgent: 'x',
  sessionData: Buffer.of(1),
  sessionVersion: 4,
  userId: 'alice',
  linked: '5',
  authenticatedAt: 6,
};
const { userAgent: _, ...older } = whole;

const rows: Record<string, object> = {
  whole,
  'without an identity': { ...whole, userId: null, linked: null, authenticatedAt: null },
  'from before a column was added': older,
  'without a required value': { ...whole, expiry: null },
  'with an invalid instant': { ...whole, endedAt: 'soon' },
  'with a fraction as its version': { ...whole, sessionVersion: 1.5 },
  'with a damaged identity': { ...whole, linked: 'x' },
  'with a text that is not a string': { ...whole, id: 5 },
};

describe('A row', () => {
  const read = recordReader({ readers });

  test('becomes a record', () => {
    const { userId, linked: _linked, authenticatedAt, ...columns } = whole;
    const numbers = { previousKeyUntil: 7, keyChanged: 1, expiry: 8_640_000_000_000_000 };
    expect(read(rows['whole']!)).toEqual({
      ...columns,
      ...numbers,
      permanent: false,
      identity: { userId, created: 5, authenticatedAt },
    });
    expect(read(rows['without an identity']!)).toMatchObject({ id: 'a', identity: null });
    expect(read(rows['from before a column was added']!)).toMatchObject({ userAgent: null });
  });

  test('becomes no record if it is damaged', () => {
    for (const [title, row] of Object.entries(rows).slice(3)) expect(read(row), title).toBeNull();
  });

  test('can be a list of values, with an identity in a row of its own', () => {
    const [id, ...others] = Object.keys(whole);
    const order = [...others, id];
    const byPlace = recordReader<readonly unknown[]>({ readers, placeOf: (field) => order.indexOf(field) });
    expect(byPlace(order.map((name) => whole[name as keyof typeof whole]))).toEqual(read(whole));
    const nested = recordReader<{ owner: object | null }>({
      readers,
      identityOf: ({ owner }: { owner: object | null }) => owner,
    });
    expect(nested({ ...whole, owner: { userId: 'alice', created: 5, authenticatedAt: 6 } })).toEqual(read(whole));
    expect(nested({ ...whole, owner: null })).toMatchObject({ identity: null });
    expect(nested({ ...whole, owner: {} })).toBeNull();
  });
});
