import { FORM_TOKENS } from '../../lib/session/hidden-entries.js';
import { VisitKey } from '../../lib/key/visit-key.js';
import type { Sample, VisitSample } from './monitor.js';
import type { Told } from './process.js';
import { markOf, parseRequest, type ActName, type Deed } from './acts.js';
import { INITIAL, operationOf, timeOf, type OperationName, type Outcome, type World } from './operations.js';

/** An order that came to its end, and what it left. */
export interface Ending {
  readonly world: World;
  readonly names: readonly OperationName[];
  readonly outcomes: readonly Outcome[];
  /** Before the first step, and after each. */
  readonly samples: readonly Sample[];
  /** Who may have changed something in each step. */
  readonly moved: readonly (readonly number[])[];
  /** What the plugins of all processes were told. */
  readonly told: readonly Told[];
  /** Whom the library takes the bearer of a key for, now; undefined: it does not know the key. */
  readonly bearers: ReadonlyMap<string, string | null | undefined>;
}

export class Violation extends Error {}
/** The plugins were not told of something; whether they never are, or only late, the moment does not show. */
export class MissingEvent extends Violation {}

function violated(text: string): never {
  throw new Violation(text);
}

/** Whether a key with this hash opens the visit. */
function opens(visit: VisitSample | undefined, hash: string, now: number): boolean {
  if (!visit || visit.endedAt !== null || now >= visit.expiry) return false;
  return (
    visit.keyHash === hash ||
    (visit.previousKeyHash === hash && visit.previousKeyUntil !== null && visit.previousKeyUntil > now)
  );
}

const whose = (visit: VisitSample | undefined): string => `${visit?.userId} since ${visit?.authenticatedAt}`;

// ---- After each step

/**
 * What one step may do to the visits, given who took it, or was let go by it. Each statement owns its columns (law 2).
 */
export function checkStep(
  world: World,
  names: readonly OperationName[],
  moved: readonly number[],
  before: Sample,
  after: Sample,
): void {
  for (const [id, old] of before) {
    const now = after.get(id);
    if (now) checkChange(world, names, moved, old, now);
    else checkExpunged(world, names, moved, old);
  }
  for (const id of after.keys()) {
    if (before.has(id)) continue;
    if (!moved.some((slot) => operationOf(names[slot]!).mayBegin))
      violated(`R31: ${said(names, moved)} brought a visit into being`);
  }
}

function checkExpunged(
  world: World,
  names: readonly OperationName[],
  moved: readonly number[],
  old: VisitSample,
): void {
  if (!moved.some((slot) => names[slot] === 'expunge')) violated(`${said(names, moved)} deleted the visit`);
  const before = timeOf('expunge', world);
  if (old.expiry >= before && (old.endedAt === null || old.endedAt >= before))
    violated('B37: a live visit was expunged');
}

function checkChange(
  world: World,
  names: readonly OperationName[],
  moved: readonly number[],
  old: VisitSample,
  now: VisitSample,
): void {
  const changed = (Object.keys(old) as (keyof VisitSample)[]).filter(
    (column) => JSON.stringify(old[column]) !== JSON.stringify(now[column]),
  );
  if (changed.length === 0) return;
  if (old.endedAt !== null)
    violated(`R31: ${said(names, moved)} changed ${changed.join(', ')} of a visit that had ended`);
  // A change of rights sets it.
  const isElevated = now.keyHash !== old.keyHash && now.previousKeyUntil === null;
  if (now.expiry < old.expiry && !isElevated) violated(`R27: expiry went back by ${old.expiry - now.expiry} ms`);
  if (now.accessed < old.accessed) violated(`R27: accessed went back by ${old.accessed - now.accessed} ms`);
  if (now.sessionVersion < old.sessionVersion)
    violated(`R51: session_version went back from ${old.sessionVersion} to ${now.sessionVersion}`);

  const owned = new Set(moved.flatMap((slot) => operationOf(names[slot]!).owns));
  if (moved.some((slot) => operationOf(names[slot]!).isRequest))
    for (const column of ['accessed', 'expiry']) owned.add(column);
  const entries = new Set(moved.flatMap((slot) => operationOf(names[slot]!).ownsEntries?.(slot) ?? []));
  for (const column of changed) {
    if (owned.has(column) || (column === 'data' && entries.size > 0)) continue;
    violated(
      `B9: ${said(names, moved)} changed ${column} from ${JSON.stringify(old[column])} to ` +
        JSON.stringify(now[column]),
    );
  }
  const isRekeyed =
    changed.includes('keyHash') && now.id === world.visitId && !moved.some((slot) => parseRequest(names[slot]!));
  if (isRekeyed && !opens(old, VisitKey.parse(world.key)!.hash, clockOf(world)))
    violated(`R39: ${said(names, moved)} replaced the key with one that was dead`);
  if (changed.includes('data')) checkData(world, names, moved, entries, old, now);

  if (whose(old) !== whose(now)) {
    const at = clockOf(world);
    for (const hash of [old.keyHash, old.previousKeyHash]) {
      if (hash !== null && opens(old, hash, at) && opens(now, hash, at))
        violated('B24: a key from before the change of identity still opens the visit');
    }
  }
}

function checkData(
  world: World,
  names: readonly OperationName[],
  moved: readonly number[],
  entries: ReadonlySet<string>,
  old: VisitSample,
  now: VisitSample,
): void {
  if (now.sessionVersion <= old.sessionVersion)
    violated(`R51: the data changed, session_version stayed ${now.sessionVersion}`);
  const mayErase = moved.some((slot) => operationOf(names[slot]!).owns.includes('data'));
  if (now.data === null && mayErase) {
    const isExpired = names.some((name) => name === 'wipe') && old.expiry < timeOf('wipe', world);
    // A change of identity takes the form tokens away, and there may be nothing else.
    const hadEntries = Object.keys(old.data ?? {}).some((key) => key !== FORM_TOKENS);
    if (now.endedAt === null && !isExpired && hadEntries) violated('B37: the data of a live visit was wiped');
    return;
  }
  const keys = new Set([...Object.keys(old.data ?? {}), ...Object.keys(now.data ?? {})]);
  for (const key of keys) {
    const [from, to] = [old.data?.[key], now.data?.[key]];
    if (from === to) continue;
    if (!entries.has(key) && !mayErase)
      violated(`B8: ${said(names, moved)} changed the entry "${key}" from ${String(from)} to ${String(to)}`);
    if (key === 'counter' && !mayErase && (to as number) <= ((from as number | undefined) ?? 0))
      violated(`B14: the counter went from ${String(from)} to ${String(to)}`);
  }
  // The guard of the writer's key: what it came with must have opened the visit when it wrote (law 4).
  const hash = VisitKey.parse(world.key)!.hash;
  const mayHaveNewKey = moved.some(
    (slot) => parseRequest(names[slot]!) && operationOf(names[slot]!).owns.includes('keyHash'),
  );
  if (now.id === world.visitId && !mayErase && !mayHaveNewKey && !opens(old, hash, clockOf(world)))
    violated(`B3: ${said(names, moved)} wrote with a key that was dead`);
}

const clockOf = (world: World): number => timeOf('load', world);

const said = (names: readonly OperationName[], moved: readonly number[]): string =>
  moved.map((slot) => `${names[slot]} (${slot})`).join(', or ');

// ---- At the end

export function checkEnding(ending: Ending): void {
  checkErrors(ending);
  checkAcknowledged(ending);
  checkCounter(ending);
  checkGift(ending);
  checkCookies(ending);
  checkBearers(ending);
  checkEvents(ending);
  checkEnds(ending);
  checkEndAll(ending);
  checkKeys(ending);
  checkStrangers(ending);
  checkLeft(ending);
}

const last = (ending: Ending): Sample => ending.samples.at(-1)!;
const own = (ending: Ending): VisitSample | undefined => last(ending).get(ending.world.visitId);
const slotsOf = (ending: Ending, name: OperationName): number[] =>
  ending.names.flatMap((one, slot) => (one === name ? [slot] : []));

/** An operation, or one of the writes of a request, and what became of it. */
interface Done extends Deed {
  readonly name: OperationName | ActName;
  readonly slot: number;
  /** As messages have it. */
  readonly title: string;
  /** Whether an act of the same request, before it, has thrown away what had been changed by then and not saved. */
  readonly isForgotten: boolean;
  /** What it sets an entry of the session to, under the name of that. */
  readonly mark: string;
}

/** The visit ends with a sign-in that is taken back. */
function forgets(act: ActName, { error }: Deed): boolean {
  if (act === 'login') return error !== undefined;
  return ['reload', 'logout', 'loginOther', 'endOwn', 'endUser'].includes(act);
}

/** All that was done, as far as it is known what became of it. */
function doneIn({ names, outcomes }: Ending): Done[] {
  return names.flatMap((name, slot): Done[] => {
    const outcome = outcomes[slot]!;
    const request = parseRequest(name);
    if (!request)
      return [{ name, slot, title: `${name} (${slot})`, isForgotten: false, mark: String(slot), ...outcome }];
    // A response that nobody waited with is acknowledged as a whole; if it was refused, some of it may have been done.
    const asWhole = request.acts.map((): Deed => ({ visitId: outcome.visitId ?? '' }));
    const deeds =
      request.manner === 'answered first'
        ? outcome.status === 200
          ? asWhole
          : []
        : (outcome.value as Deed[] | undefined);
    return (deeds ?? []).map((deed, index) => {
      const act = request.acts[index]!;
      const isForgotten = request.acts.slice(0, index).some((one, place) => forgets(one, deeds![place]!));
      return { name: act, slot, title: `${act} of ${name} (${slot})`, isForgotten, mark: markOf(slot, index), ...deed };
    });
  });
}

const done = (ending: Ending, ...names: readonly (OperationName | ActName)[]): Done[] =>
  doneIn(ending).filter(({ name }) => names.includes(name));

/** Whether nobody else can have been in the way of a request. */
const isAlone = ({ names }: Ending): boolean => names.length === 1;

/** A refusal is a typed error, and there is a reason for it. */
function checkErrors(ending: Ending): void {
  const visit = own(ending);
  const isGone = !visit || visit.endedAt !== null;
  const isRetired = !opens(visit, VisitKey.parse(ending.world.key)!.hash, clockOf(ending.world));
  const refuse = (title: string, error: string | undefined): void => {
    if (error === undefined) return;
    const isFair =
      !isAlone(ending) && ((error === 'VISIT_ENDED' && isGone) || (error === 'VISIT_KEY_RETIRED' && isRetired));
    if (!isFair) violated(`R40, R51: ${title} failed without a reason: ${error}`);
  };
  ending.outcomes.forEach(({ error }, slot) => refuse(`${ending.names[slot]} (${slot})`, error));
  for (const { name, title, error } of doneIn(ending)) {
    // Whether somebody is signed in, the acts before it decide.
    if (!(name === 'reauthenticate' && error === 'VISIT_IDENTITY_REQUIRED')) refuse(title, error);
  }
}

/**
 * What was acknowledged was readable, until somebody changed it who may, and before the response left; what was refused
 * never was.
 */
function checkAcknowledged(ending: Ending): void {
  for (const { name, slot, title, isForgotten, mark, error, visitId } of done(ending, 'set', 'save')) {
    const entry = `${name === 'set' ? 'set' : 'saved'} by ${mark}`;
    const until = (ending.outcomes[slot]!.leftAt ?? Infinity) + 1;
    const found = ending.samples
      .slice(0, until)
      .flatMap((sample) => [...sample.values()].filter(({ data }) => data?.[entry] !== undefined));
    if (error && found.length > 0) {
      // It may have been saved with another write of the same request.
      if (name === 'set') violated(`B1: ${title} was refused with ${error}, yet it was written`);
    } else if (!error && !isForgotten && !found.some(({ id }) => name === 'save' || id === visitId)) {
      violated(`B10: ${title} was acknowledged, yet it was not readable by then`);
    }
  }
}

function acknowledged(ending: Ending, name: OperationName | ActName): Done[] {
  return done(ending, name).filter(({ error, visitId }) => !error && visitId === ending.world.visitId);
}

const wasErased = (ending: Ending): boolean => ending.samples.some((sample) => !sample.get(ending.world.visitId)?.data);

function checkCounter(ending: Ending): void {
  if (wasErased(ending)) return;
  const expected = INITIAL.counter + acknowledged(ending, 'update').length;
  const counter = own(ending)?.data?.['counter'];
  if (counter !== expected) violated(`B14, R51: the counter is ${String(counter)}, not ${expected}`);
}

function checkGift(ending: Ending): void {
  const takers = done(ending, 'take').filter(({ value }) => value === INITIAL.gift);
  if (takers.length > 1) violated(`B12, B13: the gift was taken by ${takers.map(({ title }) => title).join(' and ')}`);
  if (wasErased(ending)) return;
  const isThere = own(ending)?.data?.['gift'] !== undefined;
  if (takers.length === 1 && isThere) violated(`B13: the gift was taken by ${takers[0]!.title}, and is still there`);
  // Who did not wait for it has it all the same.
  if (ending.names.some((name) => parseRequest(name)?.manner === 'answered first')) return;
  if (takers.length === 0 && (!isThere || acknowledged(ending, 'take').length > 0))
    violated('B12: the gift is gone, and nobody has it');
}

/** A request that only comes late never sends a cookie: the browser has a better one, or none on purpose (B2, B17). */
function checkCookies(ending: Ending): void {
  const visit = own(ending);
  const endedByOthers = !visit || visit.endReason === 'revoked';
  for (const name of ['load', 'set', 'update', 'take', 'touch'] as const) {
    for (const slot of slotsOf(ending, name)) {
      const { key } = ending.outcomes[slot]!;
      if (key !== undefined && !endedByOthers) violated(`B17: ${name} (${slot}) came late and sent a cookie`);
    }
  }
}

/** The library's own judgement of each key agrees with what the rows say. */
function checkBearers(ending: Ending): void {
  for (const [text, bearer] of ending.bearers) {
    const { id, hash } = VisitKey.parse(text)!;
    const visit = last(ending).get(id);
    const expected = opens(visit, hash, clockOf(ending.world)) ? visit!.userId : undefined;
    if (bearer !== expected)
      violated(`B24: a key is taken for the one of ${String(bearer)}, it is the one of ${String(expected)}`);
  }
}

/** The plugins were told of each visit that began, and of each that has ended, once, by whoever did it. */
function checkEvents({ samples, told, world }: Ending): void {
  const seen = samples.flatMap((sample) => [...sample.values()]);
  const happened = {
    new: new Set(seen.flatMap(({ id }) => (id === world.visitId ? [] : [id]))),
    ended: new Set(seen.flatMap(({ id, endedAt }) => (endedAt === null ? [] : [id]))),
  };
  for (const event of ['new', 'ended'] as const) {
    const ids = told.filter((one) => one.event === event).map(({ visitId }) => visitId);
    for (const id of new Set([...happened[event], ...ids])) {
      const times = ids.filter((one) => one === id).length;
      const expected = happened[event].has(id) ? 1 : 0;
      if (times < expected) throw new MissingEvent(`R31, R72: plugins were not told of a visit: ${event}`);
      if (times > expected)
        violated(`R31, R72: plugins were told ${times} times of a visit: ${event}; that happened ${expected} times`);
    }
  }
}

function checkEnds(ending: Ending): void {
  const visit = own(ending);
  if (acknowledgedEnd(ending, 'end') && visit?.endedAt === null)
    violated('R32: end was acknowledged, and the visit lives');
  const stillOpens = opens(visit, VisitKey.parse(ending.world.key)!.hash, clockOf(ending.world));
  if (acknowledgedEnd(ending, 'logout') && stillOpens)
    violated('R40: logout was acknowledged, and its key still opens the visit');
}

const acknowledgedEnd = (ending: Ending, name: OperationName): boolean =>
  done(ending, name).some(({ error }) => !error);

/** No visit of the user outlives "end all", also if its login is committed later: all of them began before. */
function checkEndAll(ending: Ending): void {
  if (!acknowledgedEnd(ending, 'endAll')) return;
  const survivors = [...last(ending).values()].filter(
    ({ userId, endedAt }) => userId === ending.world.user && endedAt === null,
  );
  if (survivors.length > 0) violated('B7: all visits of the user were ended, and one lives');
}

/**
 * The key that a response carries is one that the visit had, and, where nobody else has changed that, the one it has.
 */
function checkKeys(ending: Ending): void {
  ending.outcomes.forEach(({ key, visitId }, slot) => {
    if (!operationOf(ending.names[slot]!).isRequest) return;
    const title = `${ending.names[slot]} (${slot})`;
    if (typeof key === 'string') {
      const { id, hash } = VisitKey.parse(key)!;
      const isIt = (sample: Sample): boolean => sample.get(id)?.keyHash === hash && sample.get(id)!.endedAt === null;
      // Where a commit lets another one go on, both are one step: the key may have been replaced, or its visit ended,
      // by the time one looks.
      const was = (sample: Sample): boolean =>
        [sample.get(id)?.keyHash, sample.get(id)?.previousKeyHash].includes(hash);
      if (!ending.samples.some(was)) violated(`R39, R40: ${title} sent a key that the visit never had`);
      if (isAlone(ending) && !isIt(last(ending)))
        violated(`R39, R40: ${title} sent a key that is not the one of a live visit`);
      return;
    }
    const visit = visitId === undefined ? undefined : last(ending).get(visitId);
    if (!isAlone(ending) || !visit || visit.endedAt !== null) return;
    if (key === null) violated(`R40: ${title} cleared the cookie of a live visit`);
    if (visit.keyHash !== VisitKey.parse(ending.world.key)!.hash)
      violated(`R39: ${title} did not send the key of its visit`);
  });
}

/** Requests of others at the same moment are served as ever (law 6). */
function checkStrangers(ending: Ending): void {
  for (const { title, value } of done(ending, 'stranger')) {
    const { status, error } = value as Outcome;
    if (status !== 200) violated(`R51: the request of a ${title} failed: ${error}`);
  }
}

/** Once its response has left, a request writes nothing more (law 7). */
function checkLeft({ names, outcomes, moved, samples }: Ending): void {
  moved.forEach((slots, step) => {
    const { leftAt } = outcomes[slots[0]!]!;
    if (slots.length > 1 || leftAt === undefined || step < leftAt) return;
    const [before, after] = [samples[step]!, samples[step + 1]!].map((sample) => JSON.stringify([...sample]));
    if (before !== after)
      violated(`B10: the response of ${names[slots[0]!]} (${slots[0]}) left before all was written`);
  });
}
