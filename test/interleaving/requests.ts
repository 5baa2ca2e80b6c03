import { acts, nameOf, type ActName } from './acts.js';
import type { TwinScene } from './explorer.js';
import type { OperationName, Situation } from './operations.js';

const names = Object.keys(acts) as ActName[];

const pairs = names.flatMap((one) => names.map((other) => [one, other] as const));

/** Every third of the pairs gets another write, so that each comes first, second and last. */
const triples = pairs.flatMap(([one, other], index) =>
  index % 3 === 0 ? [[one, other, names[(index * 5) % names.length]!] as const] : [],
);

function withTwin(
  manner: 'at once' | 'answered first',
  list: readonly ActName[],
  others: readonly OperationName[],
  situation: Situation,
): TwinScene {
  return {
    operations: [nameOf(manner, list), ...others],
    situation,
    twin: { operations: [nameOf('in order', list), ...others], situation },
  };
}

type SceneGroup = { readonly title: string; readonly scenes: readonly TwinScene[] };

const lists = [...pairs, ...triples];

/** One request by itself. There is one order of each, so those that begin alike make one test. */
export const aloneScenes: readonly SceneGroup[] = (['new', 'anonymous', 'signedIn'] as const).flatMap((situation) =>
  names.map((first) => ({
    title: `R51, R40: ${first} and others at once, ${situation}`,
    scenes: lists.filter(([one]) => one === first).map((list) => withTwin('at once', list, [], situation)),
  })),
);

interface Row {
  readonly ids: string;
  readonly requests: readonly (readonly ActName[])[];
  readonly others: readonly OperationName[];
  readonly situation: Situation;
}

const BESIDE: readonly Row[] = [
  { ids: 'B3, R39', requests: [['update', 'login']], others: ['set', 'login'], situation: 'anonymous' },
  { ids: 'B3, R39', requests: [['login', 'save']], others: ['update'], situation: 'anonymous' },
  { ids: 'B7, R40', requests: [['login', 'update']], others: ['endAll'], situation: 'anonymous' },
  { ids: 'B7, R40', requests: [['loginOther', 'take']], others: ['endAll'], situation: 'signedIn' },
  {
    ids: 'B1, R31',
    requests: [
      ['save', 'logout'],
      ['logout', 'update'],
    ],
    others: ['end'],
    situation: 'signedIn',
  },
  { ids: 'B12, B13', requests: [['take', 'take']], others: ['take'], situation: 'anonymous' },
  { ids: 'B14, R51', requests: [['update', 'update']], others: ['update'], situation: 'anonymous' },
  { ids: 'B17', requests: [['renew', 'update']], others: ['renew'], situation: 'signedIn' },
  { ids: 'R39, R59', requests: [['issue', 'reauthenticate']], others: ['renew'], situation: 'signedIn' },
  { ids: 'R39, B3', requests: [['reload', 'renew', 'save']], others: ['login'], situation: 'signedIn' },
  { ids: 'R32, R72', requests: [['endOwn', 'save', 'login']], others: ['logout'], situation: 'signedIn' },
  { ids: 'B37, R64', requests: [['update', 'renew']], others: ['expunge'], situation: 'expiring' },
  { ids: 'B37, R62', requests: [['save', 'login']], others: ['wipe'], situation: 'expiring' },
  { ids: 'B7', requests: [['login', 'save']], others: ['endAll'], situation: 'new' },
];

export const besideScenes: readonly (TwinScene & { readonly title: string })[] = BESIDE.flatMap(
  ({ ids, requests, others, situation }) =>
    requests.flatMap((list) =>
      others.map((other) => {
        const scene = withTwin('at once', list, [other], situation);
        return { ...scene, title: `${ids}: ${scene.operations.join(' beside ')}, ${situation}` };
      }),
    ),
);
