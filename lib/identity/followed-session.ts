import { Inject, Injectable } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { SessionLife } from '../context/session-life.js';
import type { Turn } from '../context/turn.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { RequestSession } from '../session/request.session.js';
import type { SessionDictionary } from '../session/session.dictionary.js';
import { SessionSaver } from '../session/session.saver.js';
import { VisitWriter } from '../visit/visit.writer.js';
import { PASSPORT, userOfEntry } from './passport-entry.js';
import { SignIn } from './sign-in.js';

/** Makes the identity of a visit follow its session: a user that Passport stores there is signed in here. */
@Injectable()
export class FollowedSession extends SessionLife {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
    @Inject(SignIn) private readonly identities: SignIn,
  ) {
    super();
  }

  save(turn: Turn): Promise<void> {
    const { context } = turn;
    const session = context.heldSession && this.saver.sessionOf(context);
    const isPlain = !session || (session.permanence === undefined && !session.data.isTouched(PASSPORT));
    return isPlain ? this.saver.save(turn) : this.saveAll(turn, session);
  }

  private async saveAll(turn: Turn, session: RequestSession): Promise<void> {
    const { context } = turn;
    const { permanence } = session;
    const user = session.data.isTouched(PASSPORT) ? this.newUser(context, session.data) : undefined;
    if (user) await this.signIn(turn, session.data, user, permanence);
    else {
      // Before a sign-out: the remaining data has no Passport user, whatever happens to the change of key.
      await this.saver.save(turn);
      if (user === null) await this.identities.signOut(turn);
    }
    if (permanence === undefined) return;
    session.permanence = undefined;
    const { is, record, key } = context.visit;
    if (!key.matches(record.keyHash)) return;
    // A longer lifetime changes no rights. A shorter one must not be extended by the previous key.
    if (is === 'stored' && record.permanent !== permanence)
      await this.writer.rekey(turn, { permanent: permanence, isRenewal: permanence });
  }

  /**
   * The user that Passport has signed in with the data to be saved; null: it has signed the user out; undefined:
   * neither.
   */
  private newUser({ visit }: RequestContext, data: SessionDictionary): string | null | undefined {
    const { passportUserId } = this.options.identity;
    const user = userOfEntry(data.contents().get(PASSPORT), passportUserId);
    const now = visit.record.identity?.userId ?? null;
    if (user === now) return undefined;
    const before = userOfEntry(data.valueBefore(PASSPORT), passportUserId);
    // A user who was signed in by other means is not signed out because Passport has no user.
    return user === before || (user === null && before !== now) ? undefined : user;
  }

  private async signIn(
    turn: Turn,
    data: SessionDictionary,
    userId: string,
    permanence: boolean | undefined,
  ): Promise<void> {
    const permanent = permanence ?? (turn.context.visit.record.permanent || this.options.cookie.permanent);
    const entry = data.contents().get(PASSPORT);
    const before = data.valueBefore(PASSPORT);
    try {
      await this.identities.signIn(turn, { userId, permanent }, (_, first) => {
        // If another visit had to begin, nothing of the session remains, except for the user who begins it.
        if (!data.has(PASSPORT)) data.set(PASSPORT, entry);
        return this.saver.save(turn, first);
      });
    } catch (error) {
      // A later save does not sign a user in.
      if (before === undefined) data.delete(PASSPORT);
      else data.set(PASSPORT, before);
      throw error;
    }
  }

  async regenerate(turn: Turn): Promise<void> {
    const { context } = turn;
    const { is, record } = context.visit;
    if (is !== 'stored') {
      this.writer.replaceCurrent(turn);
      context.heldSession?.revert();
      return;
    }
    const before = { ...context.outgoing };
    await this.identities.endCurrent(turn, 'regenerated');
    context.outgoing.lifetime = undefined;
    // The browser's data for the site is deleted with a user, not with a session that never had one.
    context.outgoing.clearSiteData = before.clearSiteData || record.identity !== null;
  }

  destroy(turn: Turn): Promise<void> {
    return this.identities.endCurrent(turn, 'destroyed');
  }
}
