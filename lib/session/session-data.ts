/**
 * The shape of the session data of an application, for every `Session` without a type argument and for `request.session`. Empty by
 * itself, and then a session holds anything; an application declares its own:
 *
 * ```ts
 * declare module 'nest-visit' {
 *   interface SessionData {
 *     cart: string[];
 *   }
 * }
 * ```
 */
// An interface, because only interfaces can be added to from elsewhere.
// oxlint-disable-next-line typescript/no-empty-object-type
export interface SessionData {}
