/** What arrives with a POST: anything, or nothing. */
export type Form = Record<string, unknown> | undefined;

/** The text in a field of a form; '' if it is missing or was sent more than once. */
export function fieldOf(form: Form, name: string): string {
  const value = form?.[name];
  return typeof value === 'string' ? value : '';
}
