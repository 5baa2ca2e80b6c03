import { readArguments, type Wish } from './arguments.js';
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
  return run(wish, new Report(terminal, wish, isInterrupted));
}

type Work = Exclude<Wish, { readonly is: 'version' | 'help' }>;

/** Loads only the command that is run: to load them all, and Nest for the clean-up, takes longer than most of them run. */
async function run(wish: Work, report: Report): Promise<boolean> {
  switch (wish.is) {
    case 'doctor': {
      const { examine } = await import('./doctor/doctor.js');
      return examine(wish, report);
    }
    case 'move': {
      const { moveVisits } = await import('./commands/move.js');
      await moveVisits(wish, report);
      break;
    }
    case 'expunge':
    case 'wipe': {
      const { expunge, wipe } = await import('./commands/clean-up.js');
      await withStore(wish.source, (store) =>
        wish.is === 'expunge' ? expunge(store, wish, report) : wipe(store, wish, report),
      );
      break;
    }
    case 'list': {
      const { listVisits } = await import('./commands/list.js');
      await withStore(wish.source, (store) => listVisits(store, wish, report));
      break;
    }
    case 'end': {
      const { endVisits } = await import('./commands/end.js');
      await withStore(wish.source, (store) => endVisits(store, wish, report));
      break;
    }
    case 'stats': {
      const { countVisits } = await import('./commands/stats.js');
      await withStore(wish.source, (store) => countVisits(store, wish, report));
    }
  }
  return true;
}
