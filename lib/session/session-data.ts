/**
 * The shape of the session data of an application, for every `Session` without a type argument and for
 * `request.session`. Empty by itself, and then a session holds anything; an application declares its own:
 *
 * ```ts
 * declare module 'nest-visit' {
 *   interface SessionData {
 *     cart: string[];
 *   }
 * }
 * ```
 */
// oxlint-disable-next-line typescript/no-empty-object-type -- applications add to it, and can only to an interface
export interface SessionData {}
