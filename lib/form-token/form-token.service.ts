import { createHash, randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { VisitNotResolvedError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { FORM_TOKENS } from '../session/hidden-entries.js';
import type { VisitContext } from '../visit.context.js';
import { VisitLifecycle } from '../visit.lifecycle.js';

/** 128 random bits in base64url. */
const TOKEN = /^[A-Za-z0-9_-]{22}$/;

/** The SHA-256 of a token, and whom it was made for. */
type Issued = readonly [hash: string, holder: string];

/**
 * Tokens for forms, each of which can be used once (R59): so that a form which is sent twice is done once, and one that
 * another site made is not done at all. Kept in the session, but not seen there.
 */
@Injectable()
export class FormTokenService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle,
  ) {}

  /**
   * A new token of the visit, stored when this resolves; a visit begins with it if there is none. A visit keeps the last
   * `formTokens.max` of them.
   *
   * @throws VisitEndedError, VisitKeyRetiredError (409), VisitStoreUnavailableError (503)
   */
  async create(): Promise<string> {
    const context = this.context();
    const token = randomBytes(16).toString('base64url');
    await context.session.update(FORM_TOKENS, (issued) =>
      [...((issued as Issued[] | undefined) ?? []), [hashOf(token), holderOf(context)]].slice(-this.options.formTokens.max),
    );
    return token;
  }

  /**
   * Uses a token up. Of all who try at the same moment, on whatever machine, exactly one gets true (B13). A token from
   * before a sign-in, a sign-out or a renewed proof of identity is worth nothing after it (B26).
   *
   * @param token what the client sent, whatever that is
   * @throws VisitEndedError, VisitKeyRetiredError (409), VisitStoreUnavailableError (503)
   */
  async consume(token: unknown): Promise<boolean> {
    const context = this.context();
    if (typeof token !== 'string' || !TOKEN.test(token)) return false;
    const [hash, holder] = [hashOf(token), holderOf(context)];
    const isIt = (issued: Issued): boolean => issued[0] === hash && issued[1] === holder;
    const known = context.session.get(FORM_TOKENS) as Issued[] | undefined;
    // A token that nobody made costs no write.
    if (!known?.some(isIt)) return false;
    let isUsed = false;
    await context.session.update(FORM_TOKENS, (newest) => {
      const issued = (newest as Issued[] | undefined) ?? [];
      const rest = issued.filter((one) => !isIt(one));
      isUsed = rest.length < issued.length;
      return rest.length > 0 ? rest : undefined;
    });
    return isUsed;
  }

  private context(): VisitContext {
    const context = this.lifecycle.current;
    if (context) return context;
    throw new VisitNotResolvedError('there is no request here, so there are no form tokens');
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64url');

/** Who holds the visit, since when: it changes with every change of rights, and not when the key is renewed by age. */
function holderOf(context: VisitContext): string {
  const { identity } = context.state.record;
  return identity ? `${identity.userId} ${identity.authenticatedAt}` : '';
}
