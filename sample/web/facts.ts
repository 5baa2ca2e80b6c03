import { html, type Html } from './html.js';

/** Names and values, as a list. */
export function facts(...list: Html[]): Html {
  return html`<dl class="facts">${list}</dl>`;
}

export function fact(name: string, value: Html | string | number | null, id?: string): Html {
  return html`<div>
    <dt>${name}</dt>
    <dd ${id && html`id="${id}"`}>${value}</dd>
  </div>`;
}
