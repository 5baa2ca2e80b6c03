import { Injectable } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';

/** After so many saves of one request something changes its session without an end. */
const MOST_ROUNDS = 20;

/** What a request has changed and not stored yet. */
@Injectable()
export class UnsavedWork {
  /** Whether something is unsaved, or being saved. */
  isIn({ isWriting, resolvedVisit, heldSession }: RequestContext): boolean {
    if (isWriting) return true;
    if (resolvedVisit?.is === 'unsaved' && resolvedVisit.isWanted) return true;
    try {
      return heldSession !== undefined && heldSession.hasChanges();
    } catch {
      return true; // The save will say what is wrong.
    }
  }

  /**
   * Stores it, with what is changed meanwhile. Undefined: there is nothing.
   *
   * @throws what the save throws, and the failure of a write that nobody awaited; nothing of what was refused is saved
   *   later
   */
  save(context: RequestContext): Promise<void> | undefined {
    // One at a time: of the handler and the response, either may be first, and both hear of a failure.
    return this.isIn(context) ? (context.saving ??= this.saveAll(context)) : undefined;
  }

  /** Forgets it, but for what had been changed at the mark. */
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
