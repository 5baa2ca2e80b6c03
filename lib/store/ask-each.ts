/** Stands for the answer to a question that failed. It says nothing about other questions. */
export class Failed {
  constructor(readonly error: unknown) {}
}

/** The result of one question of a group. */
export type Outcome<Answer> = Answer | Failed;

/** How to ask questions of which a single one may make the whole group fail. */
export interface Asking<Question, Answer> {
  /**
   * Asks questions. It never throws, but may reject.
   *
   * @param again whether these questions were asked before, in a group that failed
   */
  readonly ask: (questions: readonly Question[], again: boolean) => Promise<readonly Outcome<Answer>[]>;
  /** Rejects if the store does not answer at all at the moment. */
  readonly probe: () => Promise<unknown>;
  /**
   * The known results of questions that failed; undefined: they may be asked again. By default, all may be asked again,
   * except one that was asked alone, because the store itself has already retried it.
   */
  readonly inspect?: (
    questions: readonly Question[],
    error: unknown,
  ) => Promise<readonly (Outcome<Answer> | undefined)[]>;
  /** Whether callers still wait for answers. By default, they do. */
  readonly isWanted?: () => boolean;
}

/** Asks all questions together, then continues like `askAgain`. */
export async function askEach<Question, Answer>(
  questions: readonly Question[],
  asking: Asking<Question, Answer>,
): Promise<readonly Outcome<Answer>[]> {
  const outcomes = await tryAll(questions, asking, false);
  return outcomes.some(isFailed) ? askAgain(questions, asking, outcomes) : outcomes;
}

function tryAll<Question, Answer>(
  questions: readonly Question[],
  { ask }: Asking<Question, Answer>,
  again: boolean,
): Promise<readonly Outcome<Answer>[]> {
  return ask(questions, again).catch((error: unknown) => allFailed(questions, error));
}

export function allFailed(questions: readonly unknown[], error: unknown): Failed[] {
  const failed = new Failed(error);
  return questions.map(() => failed);
}

/**
 * Called when some or all questions have failed. Questions with the same error failed together: either the store is
 * unavailable, or one of the questions cannot be answered. A probe shows which: if it fails as well, nothing more is
 * asked. Otherwise the group is split in half repeatedly, until only the questions that fail on their own are left.
 */
export async function askAgain<Question, Answer>(
  questions: readonly Question[],
  asking: Asking<Question, Answer>,
  first: readonly Outcome<Answer>[],
): Promise<readonly Outcome<Answer>[]> {
  const { probe, inspect, isWanted = () => true } = asking;
  const outcomes = [...first];
  const of = (places: readonly number[]): Question[] => places.map((place) => questions[place]!);
  const groups = [...failedTogether(first, [...first.keys()])];
  const askedAlone = new Set<number>();
  let isThere = false;
  for (let group; (group = groups.pop());) {
    const [error, places] = group;
    if (!isWanted()) break;
    if (places.length > 1) {
      isThere ||= await succeeds(probe());
      if (!isThere) break;
    }
    const known = await inspect?.(of(places), error);
    const open = places.filter((place, index) => {
      const outcome = known?.[index];
      if (outcome !== undefined) outcomes[place] = outcome;
      return outcome === undefined;
    });
    if (places.length === 1 && (!inspect || askedAlone.has(places[0]!))) continue;
    const middle = open.length >> 1;
    for (const half of [open.slice(0, middle), open.slice(middle)]) {
      if (half.length === 0) continue;
      if (half.length === 1) askedAlone.add(half[0]!);
      const answers = await tryAll(of(half), asking, true);
      half.forEach((place, index) => (outcomes[place] = answers[index]!));
      groups.push(...failedTogether(answers, half));
    }
  }
  return outcomes;
}

/** Those of `items` whose outcome is a failure, by error. */
export function failedTogether<T>(outcomes: readonly unknown[], items: readonly T[]): Map<unknown, T[]> {
  const groups = new Map<unknown, T[]>();
  for (const [index, outcome] of outcomes.entries()) {
    if (!isFailed(outcome)) continue;
    const group = groups.get(outcome.error);
    if (group) group.push(items[index]!);
    else groups.set(outcome.error, [items[index]!]);
  }
  return groups;
}

/** Whether a question has failed. */
export function isFailed(outcome: unknown): outcome is Failed {
  return outcome instanceof Failed;
}

function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}
