import type { Clock } from 'nest-visit';

/** A clock that only advances when a test advances it. */
export class ManualClock implements Clock {
  private time = Date.now();

  now(): number {
    return this.time;
  }

  advance(milliseconds: number): void {
    this.time += milliseconds;
  }

  set(time: number): void {
    this.time = time;
  }
}
