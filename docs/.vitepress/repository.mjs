// How a link of a page in docs/ is written for the site: to another page of the site, or to the file in the repository.
import { existsSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const docs = fileURLToPath(new URL('..', import.meta.url));
export const root = fileURLToPath(new URL('../..', import.meta.url));
export const REPOSITORY = 'https://github.com/nest-visit/nest-visit';

/** The name of a heading in addresses, as GitHub has it: so that an anchor works there and here. */
export const slugify = (heading) =>
  heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

/**
 * The address for a link in a page. What leads out of `docs/` becomes a link to the repository. In a part of the README
 * that a page includes, links begin at the root.
 */
export function siteLink(href, page) {
  if (/^([a-z]+:|#|\/)/i.test(href)) return href;
  const [path, anchor] = href.split('#');
  const hash = anchor === undefined ? '' : `#${anchor}`;
  const fromPage = join(dirname(join(docs, page)), path);
  const target = existsSync(fromPage) ? fromPage : join(root, path);
  // A dead link stays as it is, and fails the build.
  if (!existsSync(target)) return href;
  const inDocs = relative(docs, target);
  if (!inDocs.startsWith('..')) return `/${inDocs}${hash}`;
  return `${REPOSITORY}/${statSync(target).isDirectory() ? 'tree' : 'blob'}/main/${relative(root, target)}${hash}`;
}

/** A plugin of markdown-it that writes the links of all pages so. */
export function repositoryLinks(markdown) {
  markdown.core.ruler.push('repository-links', (state) => {
    const page = state.env.relativePath;
    const links = state.tokens.flatMap((token) => token.children ?? []).filter(({ type }) => type === 'link_open');
    for (const link of links) link.attrSet('href', siteLink(link.attrGet('href'), page));
  });
}
