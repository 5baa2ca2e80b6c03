/** The first paragraph of a page in Markdown, in one line and without markup. */
export const summary = (text) =>
  text
    .split('\n\n')
    .find((part) => /^[a-z]/i.test(part))
    ?.replaceAll('\n', ' ')
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1') ?? '';
