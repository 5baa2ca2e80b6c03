import { Injectable } from '@nestjs/common';
import { Session } from 'nest-visit';

/** One object for the whole application, and yet `session` is always that of the request in which it is used. */
@Injectable()
export class CounterService {
  constructor(private readonly session: Session<{ clicks: number }>) {}

  get count(): number {
    return this.session.get('clicks', 0);
  }

  /** Atomic: two windows that click at the same moment count as two. */
  async addOne(): Promise<void> {
    await this.session.update('clicks', (clicks = 0) => clicks + 1);
  }

  reset(): void {
    this.session.delete('clicks');
  }
}
