import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { CurrentRequest } from '../context/current-request.js';
import { FormTokens } from './form-tokens.js';

/**
 * Creates and consumes form tokens. A token can be used once, so a form that is submitted twice is processed once, and
 * a form of another site is not processed at all. Tokens are stored in the session, but are not visible there.
 */
@Injectable()
export class FormTokenService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(FormTokens) private readonly tokens: FormTokens,
  ) {}

  /**
   * Creates a token, which is stored when the promise resolves. Begins a visit if there is none. A visit stores the
   * last `formTokens.max` tokens.
   *
   * @throws VisitEndedError, VisitKeyRetiredError (409), VisitStoreUnavailableError (503)
   */
  create(): Promise<string> {
    return this.requests.take('the making of a form token', (turn) => this.tokens.create(turn));
  }

  /**
   * A hidden form field with a new token, as HTML: `<input type="hidden" name="form_token" value="…">`.
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
   * Consumes a token. Of several concurrent requests with the same token, on any machine, exactly one gets true. A
   * sign-in, a sign-out or a re-authentication makes all earlier tokens invalid.
   *
   * With an argument, which may be anything that the client has sent, that token is used. Without one, the token is
   * read from the form field `formTokens.field` or the header `x-form-token`.
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
