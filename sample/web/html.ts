/** Text that is HTML already. */
export class Html {
  constructor(readonly text: string) {}
}

type Value = Html | string | number | null | undefined | false | readonly Value[];

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function textOf(value: Value): string {
  if (value === null || value === undefined || value === false) return '';
  if (value instanceof Html) return value.text;
  if (typeof value === 'object') return value.map(textOf).join('');
  return String(value).replace(/[&<>"']/g, (character) => entities[character]!);
}

/**
 * HTML from a template: html`<p>${anything}</p>`. What is put in is escaped, unless it was made by `html` itself. Lists
 * are joined; null, undefined and false leave nothing, so that parts can be left out with `condition && html…`.
 */
export function html(template: TemplateStringsArray, ...values: Value[]): Html {
  return new Html(template.reduce((text, part, index) => text + textOf(values[index - 1]) + part));
}
