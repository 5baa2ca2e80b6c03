import { Injectable } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';

/** The maximum number of saves at the end of a request. With more, some code changes the session endlessly. */
const MOST_ROUNDS = 20;

/** The changes of a request that are not stored yet. */
@Injectable()
export class UnsavedWork {
  /** Whether something is unsaved, or being saved. */
  isIn({ isWriting, resolvedVisit, heldSession }: RequestContext): boolean {
    if (isWriting) return true;
    if (resolvedVisit?.is === 'unsaved' && resolvedVisit.isWanted) return true;
    try {
      return heldSession !== undefined && heldSession.hasChanges();
    } catch {
      return true; // The save will report the error.
    }
  }

  /**
   * Stores all changes, including those that are made meanwhile. Undefined: there are none.
   *
   * @throws the error of the save, or of a write that was not awaited; what was refused is not saved later
   */
  save(context: RequestContext): Promise<void> | undefined {
    // One at a time: either the handler or the response may be first, and both receive an error.
    return this.isIn(context) ? (context.saving ??= this.saveAll(context)) : undefined;
  }

  /** Discards the changes since the mark. */
  forget(context: RequestContext, mark: unknown = null): void {
    const { resolvedVisit } = context;
    if (resolvedVisit?.is === 'unsaved' && resolvedVisit.isWanted) context.amend({}, { isWanted: false });
    context.heldSession?.restore(mark);
  }

  private async saveAll(context: RequestContext): Promise<void> {
    try {
      let rounds = 0;
      do {
        if (++rounds > MOST_ROUNDS) throw new Error('the session was changed repeatedly while it was being saved');
        await context.turns.settle();
        await Turn.take(context, 'the save at the end of the request', (turn) => context.environment.life.save(turn));
      } while (this.isIn(context));
    } catch (error) {
      this.forget(context);
      throw error;
    } finally {
      context.saving = undefined;
    }
  }
}
