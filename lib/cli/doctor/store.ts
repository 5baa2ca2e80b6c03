import { VisitSchemaError, VisitServerSettingError } from '../../errors/visit.error.js';
import { supports, unsupportedByStore } from '../../options/store-needs.js';
import type { ResolvedVisitOptions } from '../../options/visit-options.interface.js';
import { clockSkew } from '../../store/clock-skew.js';
import type { VisitStore } from '../../store/visit.store.js';
import { MAX_CLOCK_SKEW } from '../defaults.js';
import { lineOf } from '../error-line.js';
import type { Source } from '../exported.file.js';
import { openStore } from '../opened.store.js';
import { findingsOf, type Finding } from './finding.js';

type Options = Pick<ResolvedVisitOptions, 'clock' | 'maxClockSkew' | 'identity' | 'onRetiredKey' | 'source'>;

/** Checks whether the store can be reached and meets the requirements of the library. */
export async function examineStore(source: Source, options: Options | undefined): Promise<Finding[]> {
  const { failed } = findingsOf('store');
  let store: VisitStore;
  try {
    store = await openStore(source);
  } catch (error) {
    return [failed(lineOf(error))];
  }
  try {
    const findings = [...natureOf(store, options), ...(await checked(store))];
    if (findings.some(({ status }) => status === 'failed')) return findings;
    return [...findings, await indexesOf(store), await clockOf(store, options)];
  } finally {
    await store.close();
  }
}

/** Findings about the kind of store, which configuration cannot change. */
function natureOf(store: VisitStore, options: Options | undefined): Finding[] {
  const { warning, failed } = findingsOf('store');
  const findings = options ? unsupportedByStore(options as ResolvedVisitOptions, store).map(failed) : [];
  if (!supports(store, 'shared'))
    findings.push(warning('other processes cannot see its visits: use it with a single process only'));
  if (!supports(store, 'durable')) findings.push(warning('its visits are lost when it stops'));
  return findings;
}

async function checked(store: VisitStore): Promise<Finding[]> {
  const [reached, tables, server] = [findingsOf('store'), findingsOf('tables'), findingsOf('server')];
  const name = store.constructor.name || 'the store';
  try {
    await store.check();
    return [
      reached.ok(`${name} can be used`),
      tables.ok('they have everything that this version needs'),
      server.ok('all settings are supported'),
    ];
  } catch (error) {
    const answers = reached.ok(`${name} answers`);
    if (error instanceof VisitSchemaError) return [answers, tables.failed(lineOf(error))];
    if (error instanceof VisitServerSettingError)
      return [answers, ...error.message.split('\n').map((line) => server.failed(lineOf(line)))];
    return [reached.failed(lineOf(error))];
  }
}

async function indexesOf({ server }: VisitStore): Promise<Finding> {
  const { ok, failed, skipped } = findingsOf('indexes');
  if (!server?.missingIndexes) return skipped('this store does not report them');
  try {
    const missing = await server.missingIndexes();
    if (missing.length === 0) return ok('none is missing');
    return failed(
      `missing for ${missing.join(', ')}: clean-up and lists must read whole tables; run the migrations, or add ` +
        'indexes that begin with these columns',
    );
  } catch (error) {
    return skipped(lineOf(error));
  }
}

async function clockOf(store: VisitStore, options: Options | undefined): Promise<Finding> {
  const { ok, failed, skipped } = findingsOf('clock');
  const { clock = Date, maxClockSkew = MAX_CLOCK_SKEW } = options ?? {};
  if (maxClockSkew === false) return skipped('maxClockSkew is false');
  try {
    if ((await store.server?.serverTime?.()) === undefined) return skipped('the store has no clock of its own');
    const skew = await clockSkew(store, { clock });
    const seconds = Math.abs(Math.round(skew / 1000));
    const apart = `${seconds} s ${skew > 0 ? 'ahead of' : 'behind'} that of the store`;
    if (Math.abs(skew) <= maxClockSkew)
      return ok(seconds === 0 ? `the same as the store's` : `that of this machine is ${apart}`);
    return failed(`that of this machine is ${apart}, so clean-up is refused: synchronize both with NTP`);
  } catch (error) {
    return skipped(lineOf(error));
  }
}
