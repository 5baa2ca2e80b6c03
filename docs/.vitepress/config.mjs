// The documentation site: `npm run docs` builds it into docs/.vitepress/dist, `npm run docs:dev` serves it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vitepress';
import { apiSidebars } from './api-sidebar.mjs';
import { commitTimes } from './commit-times.mjs';
import { errorPages } from './error-pages.mjs';
import { writeLlms } from './llms.mjs';
import { published } from './published.mjs';
import { docs, REPOSITORY, repositoryLinks, root, slugify } from './repository.mjs';
import { sidebar } from './sidebar.mjs';
import { summary } from './summary.mjs';

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { base, site } = published;
const lastUpdated = commitTimes();
const errors = new Map(errorPages().map(({ params, content }) => [`errors/${params.code}.md`, content]));

export default defineConfig({
  title: 'nest-visit',
  description: "Visits, sessions and identity for NestJS, kept in the application's own database",
  lang: 'en-US',
  base,
  head: [
    ['link', { rel: 'icon', type: 'image/svg+xml', href: `${base}logo.svg` }],
    // Search engines lead to the latest version.
    ...(published.version ? [['meta', { name: 'robots', content: 'noindex' }]] : []),
  ],
  cleanUrls: true,
  buildEnd: writeLlms,
  transformPageData: ({ relativePath, filePath, frontmatter }) => {
    const text = errors.get(relativePath) ?? readFileSync(join(docs, filePath), 'utf8');
    const description = summary(text).replaceAll('`', '');
    // The API reference and the pages of error codes are generated: there is nothing to edit, and no order.
    if (relativePath.startsWith('api/')) frontmatter.editLink = false;
    if (errors.has(relativePath)) Object.assign(frontmatter, { prev: false, next: false });
    const data = { description, lastUpdated: lastUpdated.get(filePath) };
    if (relativePath !== 'index.md') return data;
    return { ...data, title: 'nest-visit', titleTemplate: 'Sessions and identity for NestJS' };
  },
  markdown: {
    anchor: { slugify },
    config: (markdown) => markdown.use(repositoryLinks),
  },
  themeConfig: {
    logo: '/logo.svg',
    nav: [
      { text: 'Guide', link: '/first-steps', activeMatch: '^/(?!api/|error)' },
      { text: 'API', link: '/api/', activeMatch: '^/api/' },
      { text: 'Errors', link: '/errors', activeMatch: '^/error' },
      {
        text: published.version ?? version,
        items: [
          { text: 'Changes', link: `${REPOSITORY}/blob/main/CHANGELOG.md` },
          // Without a site of several versions, the pages of an older one are those of its tag.
          site
            ? { text: 'All versions', link: `${site}versions.html`, target: '_self', noIcon: true }
            : { text: 'Older versions', link: `${REPOSITORY}/tags` },
          { text: 'Contributing', link: `${REPOSITORY}/blob/main/CONTRIBUTING.md` },
        ],
      },
    ],
    // For the notice of the theme.
    published: { version: published.version, latest: site },
    sidebar: { ...apiSidebars(), '/': sidebar },
    outline: [2, 3],
    search: {
      provider: 'local',
      options: {
        // What a guide says comes before the names of the API.
        miniSearch: { searchOptions: { boostDocument: (page) => (page.includes('/api/') ? 0.3 : 1) } },
        // The index contains text: colors of code take most of the time of a page.
        _render: async (text, env, markdown) => {
          markdown.set({ highlight: null });
          const html = await markdown.renderAsync(text, env);
          return env.frontmatter?.search === false ? '' : html;
        },
      },
    },
    notFound: {
      title: 'There is no such page',
      quote: 'It may have moved: search for it, or begin with the list of symptoms and error codes.',
      link: '/troubleshooting',
      linkText: 'Troubleshooting',
      linkLabel: 'Troubleshooting',
    },
    socialLinks: [{ icon: 'github', link: REPOSITORY }],
    editLink: { pattern: `${REPOSITORY}/edit/main/docs/:path`, text: 'Edit this page' },
  },
});
