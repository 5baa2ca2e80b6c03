// What it costs to turn session data into bytes and back, beside JSON, the serializer of V8 and libraries.
import v8 from 'node:v8';
import * as msgpack from '@msgpack/msgpack';
import * as devalue from 'devalue';
import * as superjson from 'superjson';
import { DefaultSessionSerializer } from '../../dist/esm/index.js';

const ROUNDS = 9;
const MILLISECONDS = 60;

const text = (encode, decode) => ({
  encode: (data) => Buffer.from(encode(data)),
  decode: (bytes) => decode(bytes.toString()),
});

/** `keeps`: whether a Date comes back as one. */
function codecs() {
  const own = new DefaultSessionSerializer();
  const object = (data) => Object.fromEntries(data);
  const map = (values) => new Map(Object.entries(values));
  return {
    'nest-visit': { keeps: true, encode: (data) => own.encode(data), decode: (bytes) => own.decode(bytes) },
    JSON: {
      keeps: false,
      ...text(
        (data) => JSON.stringify(object(data)),
        (json) => map(JSON.parse(json)),
      ),
    },
    'v8.serialize': { keeps: true, encode: (data) => v8.serialize(data), decode: (bytes) => v8.deserialize(bytes) },
    devalue: { keeps: true, ...text(devalue.stringify, devalue.parse) },
    superjson: { keeps: true, ...text(superjson.stringify, superjson.parse) },
    // It knows no Map.
    '@msgpack/msgpack': {
      keeps: true,
      encode: (data) => msgpack.encode(object(data)),
      decode: (bytes) => map(msgpack.decode(bytes)),
    },
  };
}

const items = Array.from({ length: 200 }, (_, id) => ({ id, sku: `sku-${id}`, price: 9.99, tags: ['new', 'blue'] }));

/** @type {Record<string, Map<string, unknown>>} */
const shapes = {
  'a counter and a name': new Map(Object.entries({ visited: 3, user: { name: 'Ann', theme: 'dark' } })),
  'with a Date': new Map(Object.entries({ visited: 3, user: { name: 'Ann', since: new Date(0) } })),
  'a cart of 200 items': new Map(Object.entries({ cart: { items } })),
};

/** Nanoseconds of one call. */
function time(work) {
  let calls = 0;
  const began = process.hrtime.bigint();
  const end = began + BigInt(MILLISECONDS) * 1_000_000n;
  let now = began;
  while (now < end) {
    for (let call = 0; call < 20; call++) work();
    calls += 20;
    now = process.hrtime.bigint();
  }
  return Number(now - began) / calls;
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/**
 * All codecs in turn, in each of several rounds.
 *
 * @returns {{ shape: string, codec: string, bytes: number, keeps: boolean, encode: number, decode: number }[]} times in
 *   nanoseconds
 */
export function measureCodecs() {
  const all = Object.entries(codecs());
  return Object.entries(shapes).flatMap(([shape, data]) => {
    const kept = all.map(([codec, { encode, decode, keeps }]) => {
      const bytes = encode(data);
      return {
        codec,
        keeps,
        size: bytes.length,
        work: { encode: () => encode(data), decode: () => decode(bytes) },
        encode: [],
        decode: [],
      };
    });
    for (let round = 0; round < ROUNDS; round++) {
      for (const one of round % 2 === 0 ? kept : kept.toReversed()) {
        for (const way of ['encode', 'decode']) one[way].push(time(one.work[way]));
      }
    }
    return kept.map(({ codec, keeps, size, encode, decode }) => ({
      shape,
      codec,
      keeps,
      bytes: size,
      encode: median(encode),
      decode: median(decode),
    }));
  });
}
