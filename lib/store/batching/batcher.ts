interface Waiting<Question, Answer> {
  readonly question: Question;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/** While the store hangs, those who have given up still stand here: memory stays bounded. */
const MOST_WAITING = 10_000;

export interface BatcherOptions {
  /** Questions in one batch. */
  readonly most: number;
  /** Batches under way at once; what arrives meanwhile makes the next ones larger. */
  readonly inFlight: number;
}

/**
 * Gathers the questions of one turn of the event loop and asks them together. A question that arrives after a batch has
 * left waits for the next one, so no answer is older than its question.
 */
export class Batcher<Question, Answer> {
  private waiting: Waiting<Question, Answer>[] = [];
  private scheduled = false;
  private underWay = 0;

  constructor(
    private readonly ask: (questions: readonly Question[]) => Promise<readonly Answer[]>,
    private readonly options: BatcherOptions,
  ) {}

  load(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.waiting.length >= MOST_WAITING) {
        reject(new Error(`${MOST_WAITING} requests wait for the store already`));
        return;
      }
      this.waiting.push({ question, resolve, reject });
      this.schedule();
    });
  }

  private schedule(): void {
    if (this.scheduled || this.underWay >= this.options.inFlight) return;
    this.scheduled = true;
    // After all that this turn of the event loop has read from its sockets.
    setImmediate(() => {
      this.scheduled = false;
      this.send();
    });
  }

  private send(): void {
    while (this.waiting.length > 0 && this.underWay < this.options.inFlight) {
      const batch = this.waiting.splice(0, this.options.most);
      this.underWay++;
      void this.answer(batch).finally(() => {
        this.underWay--;
        if (this.waiting.length > 0) this.schedule();
      });
    }
  }

  private async answer(batch: readonly Waiting<Question, Answer>[]): Promise<void> {
    try {
      const answers = await this.ask(batch.map(({ question }) => question));
      batch.forEach(({ resolve }, index) => resolve(answers[index]!));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
