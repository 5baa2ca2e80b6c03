import { createHash, randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { FORM_TOKENS } from '../session/hidden-entries.js';
import type { FormTokenOutcome, RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';
import { SessionSaver } from '../session/session.saver.js';

/** 128 random bits in base64url. */
const TOKEN = /^[A-Za-z0-9_-]{22}$/;

/** The header for requests without a form: scripts, and uploads whose fields are read too late for a guard. */
const HEADER = 'x-form-token';

/**
 * The SHA-256 of a token, whom it was made for, and what is otherwise about it. `loose`: the page that it was made for
 * may have been asked for by somebody else, such as another site, or as an image. `used`: kept for a while, so that a
 * second click is told so.
 */
type Issued = readonly [hash: string, holder: string, kind?: 'loose' | 'used'];

/** How many of these are stored in addition to the others, which they do not replace. */
const MOST = { loose: 4, used: 4 };

/** The form tokens of a visit, in the hidden entries of its session. */
@Injectable()
export class FormTokens {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'formTokens'>,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {}

  async create(turn: Turn): Promise<string> {
    const token = randomBytes(16).toString('base64url');
    const [hash, holder] = [hashOf(token), holderOf(turn.context)];
    const issued: Issued = isLoose(turn.context) ? [hash, holder, 'loose'] : [hash, holder];
    await this.saver.update(turn, FORM_TOKENS, (before) =>
      this.bounded([...((before as Issued[] | undefined) ?? []), issued]),
    );
    return token;
  }

  consume(context: RequestContext, token: unknown): Promise<FormTokenOutcome> {
    if (token === undefined || token === null || token === '') return Promise.resolve('missing');
    if (typeof token !== 'string' || !TOKEN.test(token)) return Promise.resolve('unknown');
    return Turn.take(context, 'the use of a form token', async (turn) => {
      const [hash, holder] = [hashOf(token), holderOf(context)];
      // Hashes are compared: how long that takes tells nothing of a token.
      const find = (issued: unknown): Issued | undefined =>
        ((issued as Issued[] | undefined) ?? []).find((one) => one[0] === hash && one[1] === holder);
      const known = find(this.saver.sessionOf(context).data.get(FORM_TOKENS));
      // A token that nobody made costs no write, and nor does one that is known to be used.
      if (!known) return 'unknown';
      if (known[2] === 'used') return 'used';
      let outcome: FormTokenOutcome = 'unknown';
      await this.saver.update(turn, FORM_TOKENS, (newest) => {
        const found = find(newest);
        outcome = !found ? 'unknown' : found[2] === 'used' ? 'used' : 'accepted';
        if (outcome !== 'accepted') return newest;
        const rest = (newest as Issued[]).filter((one) => one !== found);
        return this.bounded([...rest, [hash, holder, 'used']]);
      });
      return outcome;
    });
  }

  /**
   * Consumes the token of the request, once for all guards that require it, and removes it from the body. A token in
   * the query is never accepted, because URLs are logged.
   */
  accept(context: RequestContext): Promise<FormTokenOutcome> {
    this.strip(context);
    const { exchange } = context;
    const field = exchange.parameter('body', this.options.formTokens.field);
    return (context.formToken ??= this.consume(context, field ?? exchange.request.headers[HEADER]));
  }

  /** Removes the token from the body, so that pipes see the body as the handler declares it. */
  strip({ exchange }: RequestContext): void {
    exchange.strip('body', this.options.formTokens.field);
  }

  /** The latest tokens of each kind, in their order. */
  private bounded(issued: readonly Issued[]): Issued[] {
    const left = { open: this.options.formTokens.max, ...MOST };
    return issued
      .toReversed()
      .filter(([, , kind]) => left[kind ?? 'open']-- > 0)
      .toReversed();
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64url');

/**
 * Identifies the holder of the visit. It changes with every change of rights, but not when the key is renewed by age.
 */
function holderOf(context: RequestContext): string {
  const { identity } = context.visit.record;
  return identity ? `${identity.userId} ${identity.authenticatedAt}` : '';
}

/**
 * Whether another site may have requested this page, often enough to displace the tokens of open forms (W3C Fetch
 * Metadata).
 */
function isLoose({ exchange }: RequestContext): boolean {
  const { 'sec-fetch-site': site, 'sec-fetch-dest': dest, accept } = exchange.request.headers;
  if (site === 'cross-site' || site === 'same-site') return true;
  if (dest !== undefined) return !['document', 'iframe', 'frame', 'empty'].includes(dest);
  return accept !== undefined && accept.startsWith('image/');
}
