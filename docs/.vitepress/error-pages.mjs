// A page for each error code, such as /errors/VISIT_OPTION, for whoever looks a code up: class, status and cause from
// errors.md, meaning and remedy from error-codes.md. Written once there, so nothing is said twice.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { docs, siteLink } from './repository.mjs';

const read = (page) =>
  readFileSync(join(docs, page), 'utf8').replaceAll(
    /\]\(([^)\s]+)\)/g,
    (_, href) => `](${siteLink(href.startsWith('#') ? `${page}${href}` : href, page)})`,
  );

/** The lines of a table about a code, under the head of that table. */
function tablesOf(code, text) {
  const tables = text.split('\n\n').filter((part) => part.startsWith('| class |'));
  return tables.flatMap((table) => {
    const [head, rule, ...rows] = table.split('\n');
    let name = '';
    const about = [];
    for (const row of rows) {
      // An empty class is that of the row before.
      name = /^\| (`\w+`) \|/.exec(row)?.[1] ?? name;
      if (row.includes(`| \`${code}\` |`)) about.push(row.replace(/^\| +\|/, `| ${name} |`));
    }
    return about.length > 0 ? [[head, rule, ...about].join('\n')] : [];
  });
}

/** `[{ params: { code }, content }]`, in the order of error-codes.md. */
export function errorPages() {
  const errors = read('errors.md');
  const [, ...sections] = read('error-codes.md').split(/^## /m);
  return sections.map((section) => {
    const code = section.slice(0, section.indexOf('\n'));
    const all = '[All error codes](/error-codes.md)';
    return {
      params: { code },
      content: [`# ${section.trim()}`, ...tablesOf(code, errors), all].join('\n\n'),
    };
  });
}
