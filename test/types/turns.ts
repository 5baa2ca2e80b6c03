import type { RequestContext } from '../../lib/context/request.context.js';
import type { SessionLife } from '../../lib/context/session-life.js';
import { Turn } from '../../lib/context/turn.js';
import type { SignIn } from '../../lib/identity/sign-in.js';
import type { SessionSaver } from '../../lib/session/session.saver.js';
import type { VisitWriter } from '../../lib/visit/visit.writer.js';

// Compiled and never run: a write of a request needs its turn (law 6), and only `Turn.take` creates one.

declare const context: RequestContext;
declare const writer: VisitWriter;
declare const saver: SessionSaver;
declare const life: SessionLife;
declare const signIn: SignIn;

export async function inTurn(): Promise<void> {
  await Turn.take(context, 'a write', async (turn) => {
    await writer.storeCurrent(turn);
    await writer.renew(turn);
    await writer.endCurrent(turn, 'a reason');
    await saver.save(turn);
    await saver.update(turn, 'counter', () => 1);
    await saver.take(turn, 'counter');
    await life.save(turn);
    await signIn.reauthenticate(turn);
    await signIn.signOut(turn);
  });
}

export async function withoutTurn(): Promise<void> {
  // @ts-expect-error: storing a new visit
  await writer.storeCurrent(context);
  // @ts-expect-error: a renewal
  await writer.renew(context);
  // @ts-expect-error: the end of the visit
  await writer.endCurrent(context, 'a reason');
  // @ts-expect-error: the session
  await saver.save(context);
  // @ts-expect-error: an entry
  await saver.update(context, 'counter', () => 1);
  // @ts-expect-error: an entry that is removed
  await saver.take(context, 'counter');
  // @ts-expect-error: what the application calls
  await life.save(context);
  // @ts-expect-error: a confirmed sign-in
  await signIn.reauthenticate(context);
  // @ts-expect-error: a sign-out
  await signIn.signOut(context);
  // @ts-expect-error: a turn cannot be made, not even of the same fields
  await writer.renew({ context, act: 'a write' });
  // @ts-expect-error: nor by its class
  new Turn(context, 'a write');
}
