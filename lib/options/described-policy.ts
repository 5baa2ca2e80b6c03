import { parseDuration } from './duration.js';
import { nistPolicies } from './nist-policies.js';
import type { ResolvedVisitOptions } from './visit-options.interface.js';

/** The settings of a handler with `@UseVisit()`, `@PassiveVisit()` or `@SkipVisit()`. */
export interface DescribedHandler {
  /** Such as `CartController.add()`. */
  readonly name: string;
  /** The idle timeout after a request to this handler, if it differs from that of the application. */
  readonly idleTimeout?: number;
  /** Whether requests to it do not keep the visit alive. */
  readonly passive?: true;
  /** Whether the handler has no visit. */
  readonly skip?: true;
  readonly source?: ResolvedVisitOptions['source'];
  readonly cookiePath?: string;
}

/**
 * The settings in effect for the visits of this application, for an auditor or for documentation (ASVS 7.1.1, 7.1.2).
 * Durations are in milliseconds.
 */
export interface DescribedPolicy {
  /** How long a visit lives without a request. */
  readonly idleTimeout: number;
  /** The same for permanent visits ("remember me"). */
  readonly permanentIdleTimeout: number;
  /** How long a visit lives after its user authenticated, regardless of activity; null: no limit. */
  readonly absoluteTimeout: number | null;
  /** The age at which keys are replaced; null: they are replaced only when rights change. */
  readonly renewAfter: number | null;
  /** How many live visits a user may have; null: no limit. */
  readonly maxVisitsPerUser: number | null;
  readonly onLimit: 'end-oldest' | 'refuse';
  readonly cookie: Pick<
    ResolvedVisitOptions['cookie'],
    'name' | 'path' | 'domain' | 'secure' | 'sameSite' | 'httpOnly' | 'partitioned' | 'permanent'
  >;
  /** Handlers whose settings differ. */
  readonly handlers: readonly DescribedHandler[];
  /** The levels of NIST SP 800-63B-4 whose time limits are fulfilled. */
  readonly nist: readonly ('AAL1' | 'AAL2' | 'AAL3')[];
  /** All settings as sentences. */
  readonly text: string;
}

export function describePolicy(options: ResolvedVisitOptions, handlers: readonly DescribedHandler[]): DescribedPolicy {
  const { timeout, permanentTimeout, absoluteTimeout, renewAfter, identity } = options;
  const { maxVisitsPerUser, onLimit } = identity;
  const { name, path, domain, secure, sameSite, httpOnly, partitioned, permanent } = options.cookie;
  const longestIdle = Math.max(timeout, permanentTimeout, ...handlers.map(({ idleTimeout = 0 }) => idleTimeout));
  const meets = (level: keyof typeof nistPolicies): boolean => {
    const limits = nistPolicies[level];
    const idle = level === 'aal1' ? Infinity : parseDuration(limits.timeout)!;
    return (
      absoluteTimeout !== false && absoluteTimeout <= parseDuration(limits.absoluteTimeout)! && longestIdle <= idle
    );
  };
  const nist = (['AAL1', 'AAL2', 'AAL3'] as const).filter((level) =>
    meets(level.toLowerCase() as keyof typeof nistPolicies),
  );
  const limit =
    maxVisitsPerUser === false
      ? 'A user may be signed in any number of times.'
      : `A user may be signed in ${maxVisitsPerUser} times at once; ` +
        `${onLimit === 'refuse' ? 'a further sign-in is refused' : 'a further sign-in ends the oldest one'}.`;
  const isSecure = secure === 'auto' ? 'Secure over https' : secure && 'Secure';
  const attributes = [
    isSecure,
    httpOnly && 'HttpOnly',
    partitioned && 'Partitioned',
    `SameSite=${sameSite}`,
    `Path=${path}`,
    domain && `Domain=${domain}`,
  ];
  return {
    idleTimeout: timeout,
    permanentIdleTimeout: permanentTimeout,
    absoluteTimeout: absoluteTimeout === false ? null : absoluteTimeout,
    renewAfter: renewAfter === false ? null : renewAfter,
    maxVisitsPerUser: maxVisitsPerUser === false ? null : maxVisitsPerUser,
    onLimit,
    cookie: { name, path, domain, secure, sameSite, httpOnly, partitioned, permanent },
    handlers,
    nist,
    text: [
      `A visit ends after ${inWords(timeout)} without a request` +
        (permanentTimeout === timeout ? '.' : `, a permanent one after ${inWords(permanentTimeout)}.`),
      absoluteTimeout === false
        ? 'A visit that is in use has no time limit.'
        : `It ends ${inWords(absoluteTimeout)} after its user authenticated, even if it is in use.`,
      'Its key is replaced when its user signs in, signs out or authenticates again' +
        `${renewAfter === false ? '' : `, and when it is ${inWords(renewAfter)} old`}.`,
      limit,
      ...handlers.flatMap(inSentences),
      `The cookie "${name}" is sent with ${attributes.filter(Boolean).join(', ')}.`,
      nist.length === 0
        ? 'These limits meet no level of NIST SP 800-63B-4.'
        : `These limits meet ${nist.join(', ')} of NIST SP 800-63B-4.`,
    ].join(' '),
  };
}

function inSentences({ name, idleTimeout, passive, skip, source, cookiePath }: DescribedHandler): string[] {
  if (skip) return [`${name} has no visit.`];
  return [
    idleTimeout === undefined ? '' : `After ${name} a visit ends after ${inWords(idleTimeout)} without a request.`,
    passive ? `Requests to ${name} do not keep a visit alive.` : '',
    source ? `${name} takes keys from ${source.join(', ')}.` : '',
    cookiePath === undefined ? '' : `${name} sends the cookie with Path=${cookiePath}.`,
  ].filter(Boolean);
}

const UNITS = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
  ['millisecond', 1],
] as const;

/** 5400000 is "1 hour 30 minutes". */
function inWords(duration: number): string {
  let rest = duration;
  const parts: string[] = [];
  for (const [unit, size] of UNITS) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${unit}${count === 1 ? '' : 's'}`);
  }
  return parts.join(' ');
}
