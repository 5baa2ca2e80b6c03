/** In place of an answer: this question failed, and says nothing of the others. */
export class Failed {
  constructor(readonly error: unknown) {}
}

/** What has come of one question of a group. */
export type Outcome<Answer> = Answer | Failed;

/** How questions are asked of which one may make a whole group fail. */
export interface Asking<Question, Answer> {
  /** Never throws, but rejects. @param again whether these have been asked before, in a group that failed */
  readonly ask: (questions: readonly Question[], again: boolean) => Promise<readonly Outcome<Answer>[]>;
  /** Rejects when the store answers nobody at the moment. */
  readonly probe: () => Promise<unknown>;
  /**
   * What is known of questions by now that were asked in vain; undefined: they may be asked again. By default all may,
   * but for one that was asked by itself: the store has asked that as often as it helps.
   */
  readonly inspect?: (
    questions: readonly Question[],
    error: unknown,
  ) => Promise<readonly (Outcome<Answer> | undefined)[]>;
  /** Whether anybody waits for answers still. By default somebody does. */
  readonly isWanted?: () => boolean;
}

/** Asks all questions together, and then as `askAgain` does. */
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
 * Some have failed, perhaps all. What failed by the same error failed together: the store may be away, or one question
 * is to blame that it cannot answer. A probe tells: if that fails, too, nothing more is asked. Else halves are, until
 * only those have failed whose own question does.
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

/** Whether a question has failed, and has no answer. */
export function isFailed(outcome: unknown): outcome is Failed {
  return outcome instanceof Failed;
}

function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}
