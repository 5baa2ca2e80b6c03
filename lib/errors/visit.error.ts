import { HttpException, HttpStatus } from '@nestjs/common';

/** Stable identifiers of all errors of this library. Messages may change; codes do not. */
export type VisitErrorCode =
  | 'VISIT_OPTION'
  | 'VISIT_NOT_RESOLVED'
  | 'VISIT_HEADERS_SENT'
  | 'VISIT_NO_RESPONSE'
  | 'VISIT_NESTED_CALL'
  | 'VISIT_OPEN_TRANSACTION'
  | 'VISIT_STORE_UNAVAILABLE'
  | 'VISIT_SCHEMA'
  | 'VISIT_SERVER_SETTING'
  | 'VISIT_STORE_UNSUPPORTED'
  | 'VISIT_CLOCK'
  | 'VISIT_ENDED'
  | 'VISIT_KEY_RETIRED'
  | 'VISIT_WRITE_CONFLICT'
  | 'VISIT_LOCKED'
  | 'VISIT_LOCK_LOST'
  | 'VISIT_IDENTITY_REQUIRED'
  | 'VISIT_FRESH_IDENTITY_REQUIRED'
  | 'VISIT_USER_ID'
  | 'VISIT_END_REASON'
  | 'VISIT_LIMIT'
  | 'VISIT_CROSS_SITE'
  | 'VISIT_ORIGIN_UNKNOWN'
  | 'VISIT_FORM_TOKEN'
  | 'VISIT_FORM_TOKEN_MISSING'
  | 'VISIT_FORM_TOKEN_USED'
  | 'VISIT_SOURCE_OFF'
  | 'SESSION_VALUE'
  | 'SESSION_UNREADABLE'
  | 'SESSION_TOO_LARGE'
  | 'SESSION_RESERVED_NAME';

const BRAND = Symbol.for('nest-visit.error');

/**
 * The base class of all errors of this library. `error instanceof VisitError` is true for all of them, including those
 * that are HTTP exceptions of Nest, and for errors of another copy of the package.
 */
export class VisitError extends Error {
  constructor(
    /** The stable identifier of the error. */
    readonly code: VisitErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(`[visit] ${message}`, options);
    this.name = new.target.name;
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** The extensions of the error in GraphQL responses. */
  get extensions(): Readonly<Pick<this, 'code'>> {
    return { code: this.code };
  }

  /**
   * True for all errors of this library, from any copy of the package. For subclasses, true for their own instances.
   */
  static override [Symbol.hasInstance](this: unknown, value: unknown): boolean {
    if (typeof value !== 'object' || value === null) return false;
    if (this === VisitError) return BRAND in value;
    return Function.prototype[Symbol.hasInstance].call(this as () => void, value);
  }
}

/** One or more options are invalid. Thrown while the application starts; the message has a line for each of them. */
export class VisitOptionError extends VisitError {
  declare readonly code: 'VISIT_OPTION';

  constructor(message: string) {
    super('VISIT_OPTION', message);
  }
}

/** Tables or columns are missing. Thrown while the application starts. */
export class VisitSchemaError extends VisitError {
  declare readonly code: 'VISIT_SCHEMA';

  constructor(message: string, options?: { cause?: unknown }) {
    super('VISIT_SCHEMA', message, options);
  }
}

/** An unsupported setting of a database server or of the connections to it. */
export interface RefusedSetting {
  /** As the server names it, such as `autocommit`. */
  readonly name: string;
  readonly value: string;
  /** The consequence of the setting. */
  readonly why: string;
  readonly remedy: string;
}

/** The database server or the connections to it have unsupported settings. Thrown while the application starts. */
export class VisitServerSettingError extends VisitError {
  declare readonly code: 'VISIT_SERVER_SETTING';

  constructor(readonly settings: readonly RefusedSetting[]) {
    const lines = settings.map(
      ({ name, value, why, remedy }) => `unsupported database setting ${name} = ${value}: ${why}; ${remedy}`,
    );
    super('VISIT_SERVER_SETTING', lines.join('\n[visit] '));
  }
}

/** The store does not support what this call needs, such as `users`. The call had no effect. */
export class VisitStoreUnsupportedError extends VisitError {
  declare readonly code: 'VISIT_STORE_UNSUPPORTED';

  constructor(
    call: string,
    /** The unsupported feature: a facet (`users`, `pages`, `locks`, `cleanup`, `clients`) or a capability. */
    readonly feature: string,
    message = `${call}() needs a store that supports "${feature}", which this store does not`,
  ) {
    super('VISIT_STORE_UNSUPPORTED', message);
  }
}

/**
 * The clocks of this process and of the database differ by more than the option `maxClockSkew`. Nothing was deleted or
 * ended.
 */
export class VisitClockError extends VisitError {
  declare readonly code: 'VISIT_CLOCK';

  constructor(
    act: string,
    /** In milliseconds; negative if this process is behind. */
    readonly skew: number,
  ) {
    const direction = skew > 0 ? 'ahead of' : 'behind';
    super(
      'VISIT_CLOCK',
      `${act} is refused: the clock of this process is ${Math.round(Math.abs(skew) / 1000)} s ${direction} that ` +
        'of the database; synchronize both with NTP, or raise the option "maxClockSkew" (false if the option ' +
        '"clock" differs on purpose)',
    );
  }
}

/**
 * The session or visit was used where it does not exist: outside of a request, after its response, or under
 * `@SkipVisit()`.
 */
export class VisitNotResolvedError extends VisitError {
  declare readonly code: 'VISIT_NOT_RESOLVED';

  constructor(message: string) {
    super('VISIT_NOT_RESOLVED', message);
  }
}

/**
 * The response headers have already been sent, so neither a key nor an error could reach the client. The call had no
 * effect.
 */
export class VisitHeadersSentError extends VisitError {
  declare readonly code: 'VISIT_HEADERS_SENT';

  constructor(act: string) {
    super(
      'VISIT_HEADERS_SENT',
      `${act} after the response headers were sent; do it before, or use session.update() or session.take(), ` +
        'which save immediately',
    );
  }
}

/**
 * A socket message has no response that could bring a key to its client. Therefore no user can sign in, no key can be
 * renewed, and no visit can begin. The call had no effect.
 */
export class VisitNoResponseError extends VisitError {
  declare readonly code: 'VISIT_NO_RESPONSE';

  constructor(act: string) {
    super(
      'VISIT_NO_RESPONSE',
      `${act} in a socket message: a message has no response that could bring a key to the client; do it in an ` +
        'HTTP request, and let the client reconnect afterwards',
    );
  }
}

/**
 * A write was called inside a callback of another write of the same request, and would wait for itself. The call had no
 * effect.
 */
export class VisitNestedCallError extends VisitError {
  declare readonly code: 'VISIT_NESTED_CALL';

  constructor(act: string, outer: string) {
    super(
      'VISIT_NESTED_CALL',
      `${act} was called inside a callback of ${outer} and would wait for it forever; call it after ${outer}, or ` +
        'return the new value from the callback',
    );
  }
}

/**
 * The library was called inside a transaction of the application that uses the only connection of the pool. The call
 * and the transaction would wait for each other. The call had no effect.
 */
export class VisitOpenTransactionError extends VisitError {
  declare readonly code: 'VISIT_OPEN_TRANSACTION';

  constructor() {
    super(
      'VISIT_OPEN_TRANSACTION',
      'a transaction of the application uses the only connection of the pool, so this call would wait for it ' +
        'forever: end the transaction first (for example, sign in after the commit), or configure at least two ' +
        'connections',
    );
  }
}

/**
 * A value that the session cannot store, or data that it cannot read. `path` is its position, such as
 * `cart.items[2].price`.
 */
export class SessionDataError extends VisitError {
  declare readonly code: 'SESSION_VALUE' | 'SESSION_UNREADABLE' | 'SESSION_TOO_LARGE' | 'SESSION_RESERVED_NAME';

  constructor(
    code: 'SESSION_VALUE' | 'SESSION_UNREADABLE' | 'SESSION_TOO_LARGE' | 'SESSION_RESERVED_NAME',
    message: string,
    readonly path?: string,
    options?: { cause?: unknown },
  ) {
    super(code, message, options);
  }
}

/** An error with an HTTP status. */
export abstract class VisitHttpError extends HttpException {
  constructor(
    readonly code: VisitErrorCode,
    message: string,
    status: HttpStatus,
    options?: { cause?: unknown },
  ) {
    super({ statusCode: status, message, code }, status, { cause: options?.cause });
    this.name = new.target.name;
    this.message = `[visit] ${message}`;
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** The extensions of the error in GraphQL responses. */
  get extensions(): Readonly<Pick<this, 'code'>> {
    return { code: this.code };
  }
}

/** 503: the store did not answer. Nothing was saved, and no cookie is set. The response contains `Retry-After`. */
export class VisitStoreUnavailableError extends VisitHttpError {
  declare readonly code: 'VISIT_STORE_UNAVAILABLE';

  constructor(options?: { cause?: unknown }) {
    super('VISIT_STORE_UNAVAILABLE', 'The session store is unavailable', HttpStatus.SERVICE_UNAVAILABLE, options);
  }
}

/** 409: another request ended this visit. Nothing was saved. */
export class VisitEndedError extends VisitHttpError {
  declare readonly code: 'VISIT_ENDED';

  constructor() {
    super('VISIT_ENDED', 'This visit has ended', HttpStatus.CONFLICT);
  }
}

/** 409: another request replaced the key of this visit, by a sign-in or sign-out for example. Nothing was saved. */
export class VisitKeyRetiredError extends VisitHttpError {
  declare readonly code: 'VISIT_KEY_RETIRED';

  constructor() {
    super('VISIT_KEY_RETIRED', 'The key of this request has been replaced by another request', HttpStatus.CONFLICT);
  }
}

/** 423: another request kept exclusive access to this session for too long. The response contains `Retry-After`. */
export class VisitLockedError extends VisitHttpError {
  declare readonly code: 'VISIT_LOCKED';

  constructor(timeout: number) {
    super('VISIT_LOCKED', `Timed out after ${timeout} ms waiting for exclusive access to this session`, 423);
  }
}

/**
 * 409: the exclusive access of this request ended before the request did, because its process was suspended for too
 * long. Nothing was saved.
 */
export class VisitLockLostError extends VisitHttpError {
  declare readonly code: 'VISIT_LOCK_LOST';

  constructor() {
    super('VISIT_LOCK_LOST', 'The exclusive access of this request has ended', HttpStatus.CONFLICT);
  }
}

/** 503: other requests changed the session each time this request tried to save it. Nothing was saved. */
export class VisitWriteConflictError extends VisitHttpError {
  declare readonly code: 'VISIT_WRITE_CONFLICT';

  constructor(tries: number) {
    super(
      'VISIT_WRITE_CONFLICT',
      `Other requests changed the session ${tries} times while this request tried to save it`,
      HttpStatus.SERVICE_UNAVAILABLE,
    );
  }
}

/** 409: the user has reached `identity.maxVisitsPerUser`. This request did not sign the user in. */
export class VisitLimitError extends VisitHttpError {
  declare readonly code: 'VISIT_LIMIT';

  constructor(most: number) {
    super(
      'VISIT_LIMIT',
      `This user is already signed in ${most} times: sign out on another device first`,
      HttpStatus.CONFLICT,
    );
  }
}

/** 403: another site sent this request. */
export class CrossSiteRequestError extends VisitHttpError {
  declare readonly code: 'VISIT_CROSS_SITE';

  constructor() {
    super('VISIT_CROSS_SITE', 'This request was sent from another site', HttpStatus.FORBIDDEN);
  }
}

/**
 * The problem with a form token. `unknown`: it has expired, was created before a sign-in or sign-out, or belongs to
 * another visit. `used`: this form was already submitted. `missing`: the request has no token. `no-origin`: the request
 * has no token, and no header that tells its origin either.
 */
export type FormTokenFault = 'unknown' | 'used' | 'missing' | 'no-origin';

const FORM_TOKEN_FAULTS = {
  unknown: ['VISIT_FORM_TOKEN', 'This form has expired: open it again'],
  used: ['VISIT_FORM_TOKEN_USED', 'This form has already been submitted'],
  missing: [
    'VISIT_FORM_TOKEN_MISSING',
    'This request needs a form token, in a form field or in the header x-form-token; for uploads (multipart), ' +
      'only the header is read',
  ],
  'no-origin': [
    'VISIT_ORIGIN_UNKNOWN',
    'This request has no header that tells its origin, as browsers send: tests and API clients must send ' +
      '"Sec-Fetch-Site: same-origin", or a form token in x-form-token',
  ],
} as const;

/** 403: the form token is missing, was already used, or is no longer valid. */
export class FormTokenError extends VisitHttpError {
  declare readonly code:
    | 'VISIT_FORM_TOKEN'
    | 'VISIT_FORM_TOKEN_USED'
    | 'VISIT_FORM_TOKEN_MISSING'
    | 'VISIT_ORIGIN_UNKNOWN';

  constructor(fault: FormTokenFault = 'unknown') {
    const [code, message] = FORM_TOKEN_FAULTS[fault];
    super(code, message, HttpStatus.FORBIDDEN);
  }
}

/** 401: no user is signed in. */
export class IdentityRequiredError extends VisitHttpError {
  declare readonly code: 'VISIT_IDENTITY_REQUIRED';

  constructor() {
    super('VISIT_IDENTITY_REQUIRED', 'Sign in first', HttpStatus.UNAUTHORIZED);
  }
}

/** 401: the user has not authenticated recently enough for this action. */
export class FreshIdentityRequiredError extends VisitHttpError {
  declare readonly code: 'VISIT_FRESH_IDENTITY_REQUIRED';

  constructor() {
    super('VISIT_FRESH_IDENTITY_REQUIRED', 'Sign in again for this action', HttpStatus.UNAUTHORIZED);
  }
}
