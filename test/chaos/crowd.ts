import { setTimeout as pause } from 'node:timers/promises';
import { Controller, Get, Inject, Post } from '@nestjs/common';
import { Session, type VisitStore } from 'nest-visit';
import { expect, onTestFinished, vi } from 'vitest';
import { platforms, startApp } from '../support/app.js';
import type { Answer, Browser } from '../support/browser.js';
import { PATIENCE } from '../support/patience.js';

/** The options of each application. */
const VISITORS = 6;

@Controller()
export class Counter {
  constructor(@Inject(Session) private readonly session: Session<{ n: number }>) {}

  @Get()
  read() {
    return { n: this.session.get('n') ?? 0 };
  }

  @Post()
  async add() {
    return { n: await this.session.update('n', (n = 0) => n + 1) };
  }
}

/** A visitor who counts, one request after the other. */
export class Visitor {
  /** The sum of the acknowledged increments. */
  readonly sums: number[] = [];
  /** Increments with an unknown outcome. */
  unknown = 0;
  /** Requests since `Crowd.reaches` was called. */
  served = 0;
  refused = 0;

  constructor(private readonly browser: Browser) {}

  /**
   * Counts, and sometimes reads. Returns whether the request was served; if not, the response must be a correct error.
   */
  async act(): Promise<boolean> {
    const reads = this.served % 4 === 3;
    const answer = await (reads ? this.browser.get('/') : this.browser.post('/'));
    if (answer.status < 300) {
      if (!reads) this.sums.push(numberIn(answer));
      this.served++;
      return true;
    }
    if (!reads) this.unknown++;
    this.refused++;
    expectRefusal(answer);
    return false;
  }

  async count(): Promise<number> {
    return numberIn(await this.browser.post('/'));
  }

  /** The stored value; waits until it can be read. */
  async stored(): Promise<number> {
    const answer = await vi.waitUntil(
      async () => {
        const one = await this.browser.get('/');
        return one.status === 200 && one;
      },
      { timeout: PATIENCE },
    );
    return numberIn(answer);
  }

  /** No acknowledged increment is lost, and none was executed twice. */
  async settle(): Promise<void> {
    expectBalance(this, await this.stored());
  }
}

function expectBalance({ sums, unknown }: Visitor, stored: number): void {
  expect(stored).toBeGreaterThanOrEqual(sums.length);
  expect(stored).toBeLessThanOrEqual(sums.length + unknown);
  expect(new Set(sums).size).toBe(sums.length);
}

function numberIn({ text }: Answer): number {
  return (JSON.parse(text) as { n: number }).n;
}

function expectRefusal({ status, headers, cookies, text }: Answer): void {
  const { code } = JSON.parse(text) as { code?: string };
  expect({ status, cookies, code }).toEqual({ status: 503, cookies: [], code: 'VISIT_STORE_UNAVAILABLE' });
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
}

/** A dozen visitors of two applications in this process, one of each platform: a load that costs little. */
export class Crowd {
  #isOver = false;
  #working: Promise<unknown> = Promise.resolve();

  private constructor(readonly visitors: readonly Visitor[]) {}

  /** @param open a store for one of the applications, which closes it */
  static async gather(open: () => VisitStore | Promise<VisitStore>, storeTimeout: number): Promise<Crowd> {
    const visitors: Visitor[] = [];
    for (const platform of platforms) {
      const options = { storeTimeout, touch: { interval: 100, resolution: 1 } } as const;
      const app = await startApp(platform, { store: await open(), ...options }, { controllers: [Counter] });
      onTestFinished(() => app.close());
      visitors.push(...Array.from({ length: VISITORS }, () => new Visitor(app.browser())));
    }
    return new Crowd(visitors);
  }

  /** All visitors work while `events` happen, and have stopped when this resolves. */
  async during(events: () => Promise<void>): Promise<void> {
    this.#isOver = false;
    this.#working = Promise.all(this.visitors.map((visitor) => this.#work(visitor)));
    try {
      await events();
    } finally {
      this.#isOver = true;
      await this.#working;
    }
  }

  async #work(visitor: Visitor): Promise<void> {
    // Clients wait while a service is unavailable.
    while (!this.#isOver) await pause((await visitor.act()) ? 50 : 100);
  }

  /** Resolves when each visitor fulfills the condition, counted from now on. */
  async reaches(condition: (visitor: Visitor) => boolean): Promise<void> {
    for (const visitor of this.visitors) Object.assign(visitor, { served: 0, refused: 0 });
    const reached = vi.waitUntil(() => this.visitors.every(condition), { timeout: PATIENCE, interval: 20 });
    // An incorrect response ends the work.
    await Promise.race([reached, this.#working]);
  }

  async settle(): Promise<void> {
    for (const visitor of this.visitors) await visitor.settle();
  }
}
