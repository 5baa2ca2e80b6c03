import type { VisitSettings } from './visit-options.interface.js';

type Limits = Pick<VisitSettings, 'timeout' | 'permanentTimeout' | 'absoluteTimeout' | 'renewAfter'>;

/**
 * The time limits of NIST SP 800-63B-4 (2.1.3, 2.2.3, 2.3.3) for its authentication assurance levels, to spread into
 * the options: `VisitModule.forRoot({ ...nistPolicies.aal2, dataSource })`. The levels have many other requirements,
 * above all for authentication, which a session library cannot fulfill.
 */
export const nistPolicies = {
  /** At most 30 days. The standard sets no limit for inactivity; here it is one day. */
  aal1: { timeout: '1d', permanentTimeout: '30d', absoluteTimeout: '30d', renewAfter: '1d' },
  /** At most 24 hours, with at most 1 hour of inactivity. */
  aal2: { timeout: '1h', permanentTimeout: '1h', absoluteTimeout: '24h', renewAfter: '1h' },
  /** At most 12 hours, with at most 15 minutes of inactivity. */
  aal3: { timeout: '15m', permanentTimeout: '15m', absoluteTimeout: '12h', renewAfter: '15m' },
} as const satisfies Record<string, Limits>;
