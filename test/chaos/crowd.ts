import { setTimeout as pause } from 'node:timers/promises';
import { Controller, Get, Inject, Post } from '@nestjs/common';
import { Session, type VisitStore } from 'nest-visit';
import { expect, onTestFinished, vi } from 'vitest';
import { platforms, startApp } from '../support/app.js';
import type { Answer, Browser } from '../support/browser.js';
import { PATIENCE } from '../support/patience.js';

/** Of each application. */
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

/** Somebody who counts, one request after the other. */
export class Visitor {
  /** What acknowledged increments came to. */
  readonly sums: number[] = [];
  /** Increments of which nobody knows. */
  unknown = 0;
  /** Requests since `Crowd.reaches` was called. */
  served = 0;
  refused = 0;

  constructor(private readonly browser: Browser) {}

  /** Counts, and reads now and then. Whether it was served; if not, it is told so as it must be. */
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

  /** What is stored; waits until it can be read. */
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

  /** Nothing that was acknowledged is lost, and nothing was done twice. */
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

  /** All work while `events` happen, and are at rest when this resolves. */
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
    // Nobody hammers a service that is away.
    while (!this.#isOver) await pause((await visitor.act()) ? 20 : 100);
  }

  /** Resolves when the condition, of requests from now on, holds of each. */
  async reaches(condition: (visitor: Visitor) => boolean): Promise<void> {
    for (const visitor of this.visitors) Object.assign(visitor, { served: 0, refused: 0 });
    const reached = vi.waitUntil(() => this.visitors.every(condition), { timeout: PATIENCE, interval: 20 });
    // Whoever got an answer that must not be ends the work.
    await Promise.race([reached, this.#working]);
  }

  async settle(): Promise<void> {
    for (const visitor of this.visitors) await visitor.settle();
  }
}
