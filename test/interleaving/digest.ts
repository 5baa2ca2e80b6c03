import { FORM_TOKENS } from '../../lib/session/hidden-entries.js';
import { VisitKey } from '../../lib/key/visit-key.js';
import type { Deed } from './acts.js';
import type { Ending } from './invariants.js';
import type { VisitSample } from './monitor.js';

/** `without`: leaves out what the writes of a request gave. */
export type Digest = (without?: readonly 'value'[]) => string;

/**
 * What an order came to, without what differs from run to run: ids, keys, names of users. Two orders with the same one
 * came to the same.
 */
export function digestOf({ world, outcomes, samples, told }: Ending, without: Parameters<Digest>[0] = []): string {
  const rows = [...samples.at(-1)!.values()].map(rowOf).sort((one, other) => order(one, other));
  const hidden = new Map<string, string>();
  const hide = (text: string | null | undefined, name: string): void => {
    if (text && !hidden.has(text)) hidden.set(text, name);
  };
  const hideKey = (text: string, name: string): void => {
    hide(text, name);
    hide(VisitKey.parse(text)!.hash, `hash of ${name}`);
  };
  hideKey(world.key, 'the first key');
  hide(world.visitId, 'the first visit');
  outcomes.forEach(({ key }, slot) => key && hideKey(key, `the key that ${slot} got`));
  rows.forEach(({ id, keyHash, previousKeyHash }, place) => {
    hide(id, `visit ${place}`);
    hide(keyHash, 'the hash of a key that nobody got');
    hide(previousKeyHash, 'the hash of a key that nobody got');
  });
  for (const sample of samples) for (const id of sample.keys()) hide(id, 'a visit that is gone');
  outcomes.forEach(({ visitId }, slot) => hide(visitId, `the unsaved visit of ${slot}`));
  hide(world.user, 'the user');
  const names = [...hidden].sort(([one], [other]) => other.length - one.length);
  const unnamed = /[0-9a-f]{32}/g;
  const textOf = (value: unknown): string =>
    names
      .reduce((text, [secret, name]) => text.replaceAll(secret, name), JSON.stringify(value, null, 1))
      .replace(unnamed, 'another visit');
  const answers = outcomes.map(({ leftAt: _leftAt, value, ...outcome }) => ({
    ...outcome,
    value: without.includes('value') ? undefined : withoutVisits(value),
  }));
  return [rows, answers].map(textOf).concat(told.map(textOf).sort()).join('\n');
}

/** At once, the visit of the request may have become another one by the time that somebody looks. */
function withoutVisits(value: unknown): unknown {
  return Array.isArray(value) ? (value as Deed[]).map(({ visitId: _visitId, ...deed }) => deed) : value;
}

/** Without the number of saves: several may be one. */
function rowOf({ sessionVersion: _version, data, ...row }: VisitSample): Omit<VisitSample, 'sessionVersion'> {
  const tokens = data?.[FORM_TOKENS] as (readonly [hash: string, holder: string])[] | undefined;
  const sorted = data && Object.fromEntries(Object.entries(data).sort(([one], [other]) => (one < other ? -1 : 1)));
  return { ...row, data: tokens ? { ...sorted, [FORM_TOKENS]: tokens.map(([, holder]) => holder) } : sorted };
}

function order(one: object, other: object): number {
  const [first, second] = [one, other].map((value) => JSON.stringify(value).replaceAll(/[0-9a-f]{32,}/g, ''));
  return first! < second! ? -1 : first! > second! ? 1 : 0;
}
