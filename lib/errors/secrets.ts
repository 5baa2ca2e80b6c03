/**
 * The same text without what may be a password in an address: all before its last `@`, because a password that is not
 * encoded may hold one, and the values of parameters that are called so.
 */
export function withoutSecrets(text: string): string {
  return text.replace(/:\/\/\S*@/g, '://***@').replace(/(pass\w*=)[^&\s"']*/gi, '$1***');
}
