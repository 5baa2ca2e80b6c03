import { AsyncResource } from 'node:async_hooks';
import { allFailed, askAgain, failedTogether, isFailed, type Asking, type Outcome } from '../ask-each.js';

interface Waiting<Question, Answer> {
  readonly question: Question;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
  /** When it stops waiting, by the clock of timers; infinite if it no longer waits. */
  due: number;
}

type Batch<Question, Answer> = readonly Waiting<Question, Answer>[];

/** The maximum number of waiting questions, so that memory is bounded while the store hangs. */
const MOST_WAITING = 10_000;

export interface BatcherOptions {
  /** The maximum number of questions in one batch. */
  readonly most: number;
  /** The maximum number of concurrent batches. Questions that arrive meanwhile make the next ones larger. */
  readonly inFlight: number;
  /** How long a question waits for its answer, in milliseconds. A running batch continues. */
  readonly deadline: number;
  /** Converts an error for the callers. Called once for all questions that it concerns. */
  readonly explain: (error: unknown) => unknown;
}

/**
 * Collects the questions of one turn of the event loop and asks them together. A question that arrives after a batch
 * was sent waits for the next one, so no answer is older than its question.
 *
 * A batch belongs to no request: it runs in the asynchronous context in which the batcher was created. What a store
 * opens in it, such as a connection, keeps that context for a long time.
 */
export class Batcher<Question, Answer> {
  private readonly scope = new AsyncResource('VisitBatcher');
  private waiting: Waiting<Question, Answer>[] = [];
  private readonly underWay = new Set<Batch<Question, Answer>>();
  private scheduled = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly asking: Asking<Question, Answer>,
    private readonly options: BatcherOptions,
  ) {}

  load(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.waiting.length >= MOST_WAITING) {
        reject(this.options.explain(new Error(`${MOST_WAITING} requests are already waiting for the store`)));
        return;
      }
      this.waiting.push({ question, resolve, reject, due: performance.now() + this.options.deadline });
      if (!this.timer || !this.isBusy) this.scope.runInAsyncScope(() => this.begin());
    });
  }

  private begin(): void {
    this.schedule();
    if (!this.timer) this.watch();
  }

  /** Refuses all waiting questions that have not been sent. */
  refuse(error: unknown): void {
    this.reject(this.waiting.splice(0), error);
  }

  /** Whether nothing has to be scheduled: it already is, or the maximum number of batches is running. */
  private get isBusy(): boolean {
    return this.scheduled || this.underWay.size >= this.options.inFlight;
  }

  private schedule(): void {
    if (this.isBusy) return;
    this.scheduled = true;
    // After everything that this turn of the event loop has read from its sockets.
    setImmediate(() => {
      this.scheduled = false;
      this.send();
    });
  }

  private send(): void {
    while (this.waiting.length > 0 && this.underWay.size < this.options.inFlight) {
      const batch = this.waiting.splice(0, this.options.most);
      this.underWay.add(batch);
      this.answer(batch);
    }
  }

  private answer(batch: Batch<Question, Answer>): void {
    const questions = batch.map(({ question }) => question);
    // Not an async function, because most of the time of a look-up is spent here.
    this.asking.ask(questions, false).then(
      (outcomes) => (resolved(batch, outcomes) ? this.leave(batch) : this.askAgain(batch, questions, outcomes)),
      (error: unknown) => this.askAgain(batch, questions, allFailed(questions, error)),
    );
  }

  private async askAgain(
    batch: Batch<Question, Answer>,
    questions: readonly Question[],
    first: readonly Outcome<Answer>[],
  ): Promise<void> {
    const isWanted = (): boolean => batch.some(({ due }) => due < Infinity);
    const outcomes = await askAgain(questions, { ...this.asking, isWanted }, first);
    resolved(batch, outcomes);
    for (const [error, failed] of failedTogether(outcomes, batch)) this.reject(failed, error);
    this.leave(batch);
  }

  private leave(batch: Batch<Question, Answer>): void {
    this.underWay.delete(batch);
    if (this.waiting.length > 0) this.schedule();
  }

  /**
   * One timer for all questions, renewed when it runs out and not for each question, because almost none ever needs it.
   */
  private watch(): void {
    let first = Infinity;
    for (const { due } of this.unanswered()) first = Math.min(first, due);
    if (first === Infinity) return;
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        this.giveUp(performance.now());
        this.watch();
      },
      Math.max(1, Math.ceil(first - performance.now())),
    ).unref();
  }

  private giveUp(now: number): void {
    const late = this.unanswered().filter(({ due }) => due <= now);
    if (late.length > 0) this.reject(late, new Error(`there was no answer within ${this.options.deadline} ms`));
    for (const one of late) one.due = Infinity;
    this.waiting = this.waiting.filter(({ due }) => due < Infinity);
    // A batch without waiting callers gives its place back: a call that hangs forever must not block calls to a store
    // that has recovered.
    for (const batch of this.underWay) if (batch.every(({ due }) => due === Infinity)) this.underWay.delete(batch);
    if (this.waiting.length > 0) this.schedule();
  }

  private unanswered(): Waiting<Question, Answer>[] {
    return [...this.underWay, this.waiting].flat();
  }

  private reject(questions: readonly Waiting<Question, Answer>[], error: unknown): void {
    const asking = questions.filter(({ due }) => due < Infinity);
    if (asking.length === 0) return;
    const explained = this.options.explain(error);
    for (const { reject } of asking) reject(explained);
  }
}

/** Resolves the questions that have answers. Returns whether these are all. */
function resolved<Question, Answer>(batch: Batch<Question, Answer>, outcomes: readonly Outcome<Answer>[]): boolean {
  let isAll = true;
  for (let index = 0; index < batch.length; index++) {
    const outcome = outcomes[index]!;
    if (isFailed(outcome)) {
      isAll = false;
      continue;
    }
    const one = batch[index]!;
    one.resolve(outcome);
    one.due = Infinity;
  }
  return isAll;
}
