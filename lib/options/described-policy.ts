import { parseDuration } from './duration.js';
import { nistPolicies } from './nist-policies.js';
import type { ResolvedVisitOptions } from './visit-options.interface.js';

/** What holds for the visits of this application, for an auditor or a page of documentation (ASVS 7.1.1, 7.1.2). Times in milliseconds. */
export interface DescribedPolicy {
  /** A visit ends after so long without a request. */
  readonly idleTimeout: number;
  /** The same for permanent visits ("remember me"). */
  readonly permanentIdleTimeout: number;
  /** A visit ends so long after its user proved who they are, whatever happens in it; null: never. */
  readonly absoluteTimeout: number | null;
  /** Keys are replaced at this age; null: at changes of rights only. */
  readonly renewAfter: number | null;
  /** How many live visits a user may have; null: any number. */
  readonly maxVisitsPerUser: number | null;
  readonly onLimit: 'end-oldest' | 'refuse';
  readonly cookie: Pick<ResolvedVisitOptions['cookie'], 'name' | 'path' | 'domain' | 'secure' | 'sameSite' | 'httpOnly' | 'permanent'>;
  /** Which levels of NIST SP 800-63B-4 these time limits suffice for. */
  readonly nist: readonly ('AAL1' | 'AAL2' | 'AAL3')[];
  /** All of it as sentences. */
  readonly text: string;
}

export function describePolicy(options: ResolvedVisitOptions): DescribedPolicy {
  const { timeout, permanentTimeout, absoluteTimeout, renewAfter, identity } = options;
  const { maxVisitsPerUser, onLimit } = identity;
  const { name, path, domain, secure, sameSite, httpOnly, permanent } = options.cookie;
  const longestIdle = Math.max(timeout, permanentTimeout);
  const meets = (level: keyof typeof nistPolicies): boolean => {
    const limits = nistPolicies[level];
    const idle = level === 'aal1' ? Infinity : parseDuration(limits.timeout)!;
    return absoluteTimeout !== false && absoluteTimeout <= parseDuration(limits.absoluteTimeout)! && longestIdle <= idle;
  };
  const nist = (['AAL1', 'AAL2', 'AAL3'] as const).filter((level) => meets(level.toLowerCase() as keyof typeof nistPolicies));
  const limit =
    maxVisitsPerUser === false
      ? 'A user may be signed in any number of times.'
      : `A user may be signed in ${maxVisitsPerUser} times; beyond that ${onLimit === 'refuse' ? 'a sign-in is refused' : 'the oldest sign-in ends'}.`;
  const attributes = [secure && 'Secure', httpOnly && 'HttpOnly', `SameSite=${sameSite}`, `Path=${path}`, domain && `Domain=${domain}`];
  return {
    idleTimeout: timeout,
    permanentIdleTimeout: permanentTimeout,
    absoluteTimeout: absoluteTimeout === false ? null : absoluteTimeout,
    renewAfter: renewAfter === false ? null : renewAfter,
    maxVisitsPerUser: maxVisitsPerUser === false ? null : maxVisitsPerUser,
    onLimit,
    cookie: { name, path, domain, secure, sameSite, httpOnly, permanent },
    nist,
    text: [
      `A visit ends after ${inWords(timeout)} without a request${permanentTimeout === timeout ? '' : `, a permanent one after ${inWords(permanentTimeout)}`}.`,
      absoluteTimeout === false
        ? 'No limit is set to how long a visit lasts that is in use.'
        : `It ends ${inWords(absoluteTimeout)} after its user proved who they are, whatever happens in it.`,
      'Its key is replaced when its user signs in, signs out or proves again who they are' +
        `${renewAfter === false ? '' : `, and at an age of ${inWords(renewAfter)}`}.`,
      limit,
      `The cookie "${name}" is sent with ${attributes.filter(Boolean).join(', ')}.`,
      nist.length === 0
        ? 'These limits suffice for no level of NIST SP 800-63B-4.'
        : `These limits suffice for ${nist.join(', ')} of NIST SP 800-63B-4.`,
    ].join(' '),
  };
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
