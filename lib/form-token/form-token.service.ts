import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { CurrentRequest } from '../context/current-request.js';
import { FormTokens } from './form-tokens.js';

/**
 * Tokens for forms, each of which can be used once: so that a form which is sent twice is done once, and one that
 * another site made is not done at all. Kept in the session, but not seen there.
 */
@Injectable()
export class FormTokenService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(FormTokens) private readonly tokens: FormTokens,
  ) {}

  /**
   * A new token of the visit, stored when this resolves; a visit begins with it if there is none. A visit keeps the
   * last `formTokens.max` of them.
   *
   * @throws VisitEndedError, VisitKeyRetiredError (409), VisitStoreUnavailableError (503)
   */
  create(): Promise<string> {
    return this.requests.take('the making of a form token', (turn) => this.tokens.create(turn));
  }

  /**
   * A hidden field with a new token, to be put into a form as it is:
   * `<input type="hidden" name="form_token" value="…">`.
   *
   * @throws like `create`
   */
  hiddenField(): Promise<string> {
    return this.requests.take(
      'the making of a form token',
      async (turn) =>
        `<input type="hidden" name="${this.options.formTokens.field}" value="${await this.tokens.create(turn)}">`,
    );
  }

  /**
   * Uses a token up. Of all who try at the same moment, on whatever machine, exactly one gets true. A token from
   * before a sign-in, a sign-out or a renewed proof of identity is worth nothing after it.
   *
   * Given a token, whatever the client has sent, it uses that. Without an argument it uses the one that the request has
   * in the field `formTokens.field` or in the header `x-form-token`.
   *
   * @throws VisitEndedError, VisitKeyRetiredError (409), VisitStoreUnavailableError (503)
   */
  consume(...arguments_: [token?: unknown]): Promise<boolean> {
    return this.requests.write(async (context) => {
      const outcome = await (arguments_.length === 0
        ? this.tokens.accept(context)
        : this.tokens.consume(context, arguments_[0]));
      return outcome === 'accepted';
    });
  }
}
