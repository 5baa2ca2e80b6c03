import type { Order, Scene } from './lab.js';
import type { OperationName, Situation } from './operations.js';

/** Scenes that show the same thing. */
interface Row {
  /** The bugs and requirements that titles name. */
  readonly ids: string;
  /** Each of these runs beside … */
  readonly one: readonly OperationName[];
  /** … each of those. */
  readonly other: readonly OperationName[];
  readonly situations: readonly Situation[];
}

const DATA = ['set', 'update', 'take'] as const;
const ENDS = ['logout', 'end', 'endAll'] as const;
const REQUESTS = ['load', ...DATA, 'touch', 'login', 'logout', 'renew'] as const;

const PAIRS: readonly Row[] = [
  { ids: 'B1, R31', one: ['load', ...DATA], other: ENDS, situations: ['signedIn'] },
  { ids: 'B4, R31', one: ['touch'], other: ENDS, situations: ['signedIn'] },
  { ids: 'B3, R31, R39', one: DATA, other: ['login'], situations: ['anonymous', 'signedIn'] },
  { ids: 'B2, B17', one: ['load'], other: ['login', 'renew'], situations: ['anonymous'] },
  { ids: 'B17', one: [...DATA, 'touch'], other: ['renew'], situations: ['signedIn'] },
  { ids: 'B8, R51', one: ['set'], other: DATA, situations: ['anonymous'] },
  { ids: 'B14, R51', one: ['update'], other: ['update', 'take'], situations: ['anonymous'] },
  { ids: 'B12, B13', one: ['take'], other: ['take'], situations: ['anonymous'] },
  { ids: 'B9, R50', one: ['load', 'touch'], other: ['load', ...DATA], situations: ['anonymous'] },
  { ids: 'R27', one: ['touch'], other: ['touch', 'login'], situations: ['signedIn'] },
  { ids: 'R39, B24', one: ['login'], other: ['login', 'renew'], situations: ['anonymous', 'signedIn'] },
  { ids: 'B17, B24', one: ['renew'], other: ['renew'], situations: ['signedIn'] },
  { ids: 'R31', one: ['login'], other: ['logout', 'end'], situations: ['anonymous', 'signedIn'] },
  { ids: 'B7, B29, R31', one: ['login'], other: ['endAll'], situations: ['anonymous', 'signedIn'] },
  { ids: 'R32, R72', one: ENDS, other: ENDS, situations: ['signedIn'] },
  { ids: 'R31', one: ['renew'], other: ENDS, situations: ['signedIn'] },
  {
    ids: 'B36, B37, R64',
    one: ['expunge'],
    other: [...REQUESTS, 'end', 'endAll', 'expunge', 'wipe'],
    situations: ['expiring'],
  },
  { ids: 'B37, R62', one: ['wipe'], other: [...REQUESTS, 'end', 'endAll', 'wipe'], situations: ['expiring'] },
];

const TRIPLES: readonly (Scene & { readonly ids: string })[] = [
  { ids: 'B1, B8', operations: ['set', 'set', 'logout'], situation: 'signedIn' },
  { ids: 'B14, R51', operations: ['update', 'update', 'update'], situation: 'anonymous' },
  { ids: 'B12, B13', operations: ['take', 'take', 'set'], situation: 'anonymous' },
  { ids: 'B1, B3', operations: ['set', 'login', 'logout'], situation: 'anonymous' },
  { ids: 'B7', operations: ['login', 'endAll', 'set'], situation: 'anonymous' },
  { ids: 'B17', operations: ['renew', 'renew', 'set'], situation: 'signedIn' },
  { ids: 'B17, B24', operations: ['renew', 'login', 'load'], situation: 'anonymous' },
  { ids: 'B4, R27', operations: ['touch', 'touch', 'end'], situation: 'signedIn' },
  { ids: 'R39', operations: ['login', 'login', 'update'], situation: 'anonymous' },
  { ids: 'B37, R62', operations: ['wipe', 'touch', 'update'], situation: 'expiring' },
  { ids: 'B36, B37', operations: ['expunge', 'wipe', 'touch'], situation: 'expiring' },
];

/** What runs side by side, with a title. Each pair of operations once per situation. */
export const scenes: readonly (Scene & { readonly title: string })[] = [...PAIRS.flatMap(pairsOf), ...TRIPLES].map(
  ({ ids, operations, situation }) => ({
    operations,
    situation,
    title: `${ids}: ${operations.join(', ')} side by side, ${situation}`,
  }),
);

function pairsOf({ ids, one, other, situations }: Row): (Scene & { ids: string })[] {
  const seen = new Set<string>();
  const pairs = one.flatMap((first) => other.map((second): [OperationName, OperationName] => [first, second]));
  const distinct = pairs.filter((pair) => !seen.has([...pair].sort().join()) && seen.add([...pair].sort().join()));
  return situations.flatMap((situation) => distinct.map((operations) => ({ ids, operations, situation })));
}

/** Orders that have failed once; a failing one prints itself as a line for this list. They run first. */
export const KNOWN_ORDERS: readonly Order[] = [];
