// What programs read in place of the site: each page as Markdown, beside its HTML, and llms.txt, the list of them
// (https://llmstxt.org).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errorPages } from './error-pages.mjs';
import { docs, REPOSITORY, siteLink } from './repository.mjs';
import { sidebar } from './sidebar.mjs';

const read = (page) => readFileSync(join(docs, page), 'utf8');
/**
 * As the site writes links, but to the Markdown of a page. Those within a folder, as the API reference has them, stay.
 */
const withLinks = (text, page) =>
  text.replaceAll(/\]\(([^)\s]+)\)/g, (_, href) => `](${page.startsWith('api/') ? href : siteLink(href, page)})`);
/** The first paragraph of a page, in one line. */
const summary = (text) =>
  text
    .split('\n\n')
    .find((part) => /^[a-z]/i.test(part))
    ?.replaceAll('\n', ' ')
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1') ?? '';

export function writeLlms({ pages, outDir, site }) {
  const made = new Map(errorPages().map(({ params, content }) => [`errors/${params.code}.md`, content]));
  for (const page of pages) {
    mkdirSync(dirname(join(outDir, page)), { recursive: true });
    writeFileSync(join(outDir, page), made.get(page) ?? withLinks(read(page), page));
  }
  const groups = sidebar.map(({ text, items }) => {
    const lines = items
      .filter(({ link }) => !link.includes('#'))
      .map((item) => {
        const page = `${item.link.endsWith('/') ? `${item.link}index` : item.link}.md`.slice(1);
        return `- [${item.text}](${site.base}${page}): ${summary(read(page))}`;
      });
    return `## ${text}\n\n${lines.join('\n')}`;
  });
  const about = `# ${site.title}\n\n> ${site.description}\n\nSource: ${REPOSITORY}`;
  writeFileSync(join(outDir, 'llms.txt'), `${[about, ...groups].join('\n\n')}\n`);
}
