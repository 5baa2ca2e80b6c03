import { readArguments, type Wish } from './arguments.js';
import { expunge, wipe } from './commands/clean-up.js';
import { endVisits } from './commands/end.js';
import { listVisits } from './commands/list.js';
import { moveVisits } from './commands/move.js';
import { countVisits } from './commands/stats.js';
import { examine } from './doctor/doctor.js';
import { GENERAL_HELP, HELP_OF } from './help.js';
import { withStore } from './opened.store.js';
import { Report, type Terminal } from './terminal.js';

/** The environment of a command. */
export interface Surroundings {
  readonly terminal: Terminal;
  readonly version: () => string;
  /** Asked after each batch. */
  readonly isInterrupted: () => boolean;
}

/**
 * Runs one command.
 *
 * @returns true; false if a command has found errors and reported them
 * @throws UsageError for invalid arguments, Interrupted, and errors of the database
 */
export async function runCommand(
  args: readonly string[],
  { terminal, version, isInterrupted }: Surroundings,
): Promise<boolean> {
  const wish = readArguments(args);
  if (wish.is === 'version' || wish.is === 'help') {
    terminal.out(wish.is === 'version' ? version() : wish.command ? HELP_OF[wish.command] : GENERAL_HELP);
    return true;
  }
  const report = new Report(terminal, wish, isInterrupted);
  if (wish.is === 'doctor') return examine(wish, report);
  await act(wish, report);
  return true;
}

type Act = Exclude<Wish, { readonly is: 'version' | 'help' | 'doctor' }>;

function act(wish: Act, report: Report): Promise<void> {
  if (wish.is === 'move') return moveVisits(wish, report);
  return withStore(wish.source, (store) => {
    if (wish.is === 'expunge') return expunge(store, wish, report);
    if (wish.is === 'wipe') return wipe(store, wish, report);
    if (wish.is === 'list') return listVisits(store, wish, report);
    return wish.is === 'end' ? endVisits(store, wish, report) : countVisits(store, wish, report);
  });
}
