import { createHash, randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { FORM_TOKENS } from '../session/hidden-entries.js';
import type { RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';
import { SessionSaver } from '../session/session.saver.js';

/** 128 random bits in base64url. */
const TOKEN = /^[A-Za-z0-9_-]{22}$/;

/** For requests without a form: scripts, and uploads whose fields are read too late for a guard. */
const HEADER = 'x-form-token';

/** The SHA-256 of a token, and whom it was made for. */
type Issued = readonly [hash: string, holder: string];

/** The form tokens of a visit, in the hidden part of its session. */
@Injectable()
export class FormTokens {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'formTokens'>,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {}

  async create(turn: Turn): Promise<string> {
    const token = randomBytes(16).toString('base64url');
    await this.saver.update(turn, FORM_TOKENS, (issued) =>
      [...((issued as Issued[] | undefined) ?? []), [hashOf(token), holderOf(turn.context)]].slice(-this.options.formTokens.max),
    );
    return token;
  }

  consume(context: RequestContext, token: unknown): Promise<boolean> {
    if (typeof token !== 'string' || !TOKEN.test(token)) return Promise.resolve(false);
    return Turn.take(context, 'the use of a form token', async (turn) => {
      const [hash, holder] = [hashOf(token), holderOf(context)];
      // Hashes are compared: how long that takes tells nothing of a token.
      const isIt = (issued: Issued): boolean => issued[0] === hash && issued[1] === holder;
      const known = this.saver.sessionOf(context).data.get(FORM_TOKENS) as Issued[] | undefined;
      // A token that nobody made costs no write.
      if (!known?.some(isIt)) return false;
      let isUsed = false;
      await this.saver.update(turn, FORM_TOKENS, (newest) => {
        const issued = (newest as Issued[] | undefined) ?? [];
        const rest = issued.filter((one) => !isIt(one));
        isUsed = rest.length < issued.length;
        return rest.length > 0 ? rest : undefined;
      });
      return isUsed;
    });
  }

  /** Uses up the token that the request brought, once for all guards that ask for it. Never one from the query: addresses are written down everywhere. */
  accept(context: RequestContext): Promise<boolean> {
    const { exchange } = context;
    const field = exchange.parameter('body', this.options.formTokens.field);
    return (context.formToken ??= this.consume(context, field ?? exchange.request.headers[HEADER]));
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64url');

/** Who holds the visit, since when: it changes with every change of rights, and not when the key is renewed by age. */
function holderOf(context: RequestContext): string {
  const { identity } = context.visit.record;
  return identity ? `${identity.userId} ${identity.authenticatedAt}` : '';
}
