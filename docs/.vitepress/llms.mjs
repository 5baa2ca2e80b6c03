// What programs read in place of the site: each page as Markdown, beside its HTML, and llms.txt, the list of them
// (https://llmstxt.org).
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errorPages } from './error-pages.mjs';
import { docs, REPOSITORY, siteLink } from './repository.mjs';
import { sidebar } from './sidebar.mjs';
import { summary } from './summary.mjs';

const read = (page) => readFileSync(join(docs, page), 'utf8');
/**
 * As the site writes links, but to the Markdown of a page. Those within a folder, as the API reference has them, stay.
 */
const withLinks = (text, page, base) =>
  text.replaceAll(/\]\(([^)\s]+)\)/g, (_, href) => {
    const link = page.startsWith('api/') ? href : siteLink(href, page);
    return `](${link.startsWith('/') ? `${base}${link.slice(1)}` : link})`;
  });

export function writeLlms({ pages, outDir, site }) {
  const made = new Map(errorPages().map(({ params, content }) => [`errors/${params.code}.md`, content]));
  for (const page of pages) {
    mkdirSync(dirname(join(outDir, page)), { recursive: true });
    const text = made.get(page) ?? read(page);
    writeFileSync(join(outDir, page), withLinks(text, page, site.base));
    for (const [, figure] of text.matchAll(/!\[[^\]]*\]\((\w[\w/-]*\.svg)\)/g)) {
      mkdirSync(dirname(join(outDir, figure)), { recursive: true });
      copyFileSync(join(docs, figure), join(outDir, figure));
    }
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
