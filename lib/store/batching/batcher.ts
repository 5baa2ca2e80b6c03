interface Waiting<Question, Answer> {
  readonly question: Question;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
  /** When it gives up, by the clock that timers go by; infinite when it has. */
  due: number;
}

/** While the store hangs, more than this many never wait: memory stays bounded. */
const MOST_WAITING = 10_000;

export interface BatcherOptions {
  /** Questions in one batch. */
  readonly most: number;
  /** Batches under way at once; what arrives meanwhile makes the next ones larger. */
  readonly inFlight: number;
  /** How long a question waits for its answer, in milliseconds. What is under way goes on. */
  readonly deadline: number;
  /** What those who ask get for an error. Called once for all questions that it concerns. */
  readonly explain: (error: unknown) => unknown;
}

/**
 * Gathers the questions of one turn of the event loop and asks them together. A question that arrives after a batch has
 * left waits for the next one, so no answer is older than its question.
 */
export class Batcher<Question, Answer> {
  private waiting: Waiting<Question, Answer>[] = [];
  private readonly underWay = new Set<readonly Waiting<Question, Answer>[]>();
  private scheduled = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly ask: (questions: readonly Question[]) => Promise<readonly Answer[]>,
    private readonly options: BatcherOptions,
  ) {}

  load(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.waiting.length >= MOST_WAITING) {
        reject(this.options.explain(new Error(`${MOST_WAITING} requests wait for the store already`)));
        return;
      }
      this.waiting.push({ question, resolve, reject, due: performance.now() + this.options.deadline });
      this.schedule();
      if (!this.timer) this.watch();
    });
  }

  private schedule(): void {
    if (this.scheduled || this.underWay.size >= this.options.inFlight) return;
    this.scheduled = true;
    // After all that this turn of the event loop has read from its sockets.
    setImmediate(() => {
      this.scheduled = false;
      this.send();
    });
  }

  private send(): void {
    while (this.waiting.length > 0 && this.underWay.size < this.options.inFlight) {
      const batch = this.waiting.splice(0, this.options.most);
      this.underWay.add(batch);
      void this.answer(batch);
    }
  }

  private async answer(batch: readonly Waiting<Question, Answer>[]): Promise<void> {
    try {
      const answers = await this.ask(batch.map(({ question }) => question));
      for (let index = 0; index < batch.length; index++) batch[index]!.resolve(answers[index]!);
    } catch (error) {
      this.refuse(batch, error);
    }
    this.underWay.delete(batch);
    if (this.waiting.length > 0) this.schedule();
  }

  /** One timer for all, which is looked after as often as it runs out, and not with each question: nearly none ever needs it. */
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
    if (late.length > 0) this.refuse(late, new Error(`there was no answer within ${this.options.deadline} ms`));
    for (const one of late) one.due = Infinity;
    this.waiting = this.waiting.filter(({ due }) => due < Infinity);
    // What nobody waits for any more keeps no place: a call that hangs for ever must not stop those to a store that is well again.
    for (const batch of this.underWay) if (batch.every(({ due }) => due === Infinity)) this.underWay.delete(batch);
    if (this.waiting.length > 0) this.schedule();
  }

  private unanswered(): Waiting<Question, Answer>[] {
    return [...this.underWay, this.waiting].flat();
  }

  private refuse(questions: readonly Waiting<Question, Answer>[], error: unknown): void {
    const explained = this.options.explain(error);
    for (const { reject } of questions) reject(explained);
  }
}
