import { QueryFailedError } from 'typeorm';
import { expect, test } from 'vitest';
import { framesOf, reasonOf } from '../../lib/errors/failure.js';
import { SessionDataError } from '../../lib/errors/visit.error.js';

const failing = (more: object, text = 'Duplicate entry "4711" for key'): Error => Object.assign(new Error(text), more);

test.each([
  [new SessionDataError('SESSION_VALUE', 'in our own words'), '[visit] in our own words'],
  [failing({ code: 'ER_DUP_ENTRY', errno: 1062 }), 'Error ER_DUP_ENTRY 1062'],
  [failing({ code: 'ECONNREFUSED', errno: 'ECONNREFUSED' }), 'Error ECONNREFUSED'],
  [new QueryFailedError('INSERT 4711', ['4711'], failing({ code: '23505' })), 'QueryFailedError 23505'],
  [new SyntaxError('Unexpected token in "4711"'), 'SyntaxError'],
  [failing({ name: 'Error: 4711\nforged line', code: '4711\nforged' }), 'an error'],
  [new AggregateError([failing({ code: 'ECONNREFUSED' }), failing({ code: 'ECONNREFUSED' })]), 'Error ECONNREFUSED'],
  ['4711', 'a value of type string was thrown'],
  [undefined, 'a value of type undefined was thrown'],
])('A2: a failure is described without foreign text: %#', (error, reason) => {
  expect(reasonOf(error)).toBe(reason);
  expect(framesOf(error) ?? '').not.toContain('4711');
});
