// Follows each link of the built site, in HTML and in the Markdown beside it: a page, a file or an anchor that is not
// there fails, and so does a script, style, font or image that another host would send.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { published } from './published.mjs';
import { docs } from './repository.mjs';

const HERE = 'http://here.invalid';

/** What is wrong with the site in the folder `dist` that will be at `base`. */
export function mistakesIn(dist, base) {
  const mistakes = new Set();
  const files = readdirSync(dist, { recursive: true, encoding: 'utf8' }).map((file) => file.replaceAll(sep, '/'));
  const texts = new Map(
    files.filter((file) => /\.(html|md|txt)$/.test(file)).map((file) => [file, readFileSync(join(dist, file), 'utf8')]),
  );
  const anchors = new Map();
  const anchorsOf = (file) => {
    if (!anchors.has(file))
      anchors.set(file, new Set([...(texts.get(file) ?? '').matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)));
    return anchors.get(file);
  };
  const isFile = (file) => existsSync(join(dist, file)) && statSync(join(dist, file)).isFile();

  const follow = (from, href) => {
    const url = new URL(href.replaceAll('&amp;', '&'), `${HERE}${base}${from}`);
    if (url.origin !== HERE) return;
    const path = decodeURIComponent(url.pathname);
    const below = path.startsWith(base) ? path.slice(base.length) : undefined;
    const file = below === undefined ? undefined : [below, `${below}.html`, `${below}index.html`].find(isFile);
    const anchor = decodeURIComponent(url.hash.slice(1));
    if (file === undefined) mistakes.add(`${from}: ${href} leads nowhere`);
    else if (anchor && file.endsWith('.html') && !anchorsOf(file).has(anchor))
      mistakes.add(`${from}: ${href} has no such anchor`);
  };

  for (const [from, text] of texts) {
    if (from.endsWith('.html')) {
      for (const [, href] of text.matchAll(/<a\b[^>]*? href="([^"]*)"/g)) follow(from, href);
      for (const [tag, address] of text.matchAll(/<(?:script|link|img)\b[^>]*? (?:src|href)="([^"]*)"[^>]*>/g)) {
        if (/^(https?:)?\/\//.test(address)) mistakes.add(`${from}: ${tag} is loaded from another host`);
        else follow(from, address);
      }
    } else if (!from.startsWith('api/')) {
      // Blocks of code may have what looks like a link.
      for (const [, href] of text.replaceAll(/^```[\s\S]*?^```$/gm, '').matchAll(/\]\(([^)\s]+)\)/g))
        follow(from, href);
    }
  }
  return [...mistakes];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const mistakes = mistakesIn(join(docs, '.vitepress/dist'), published.base);
  for (const mistake of mistakes) console.error(mistake);
  console.log(`The links of the site: ${mistakes.length} mistakes`);
  process.exitCode = mistakes.length > 0 ? 1 : 0;
}
