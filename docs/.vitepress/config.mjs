// The documentation site: `npm run docs` builds it into docs/.vitepress/dist, `npm run docs:dev` serves it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vitepress';
import { apiSidebar } from './api-sidebar.mjs';
import { writeLlms } from './llms.mjs';
import { REPOSITORY, repositoryLinks, root, slugify } from './repository.mjs';
import { sidebar } from './sidebar.mjs';

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
// Where the site is not at the root of its host, such as '/nest-visit/', or '/nest-visit/v1/' for an older version.
const base = process.env.DOCS_BASE ?? '/';

export default defineConfig({
  title: 'nest-visit',
  description: "Visits, sessions and identity for NestJS, kept in the application's own database",
  lang: 'en-US',
  base,
  head: [['link', { rel: 'icon', type: 'image/svg+xml', href: `${base}logo.svg` }]],
  cleanUrls: true,
  lastUpdated: true,
  buildEnd: writeLlms,
  // The API reference is generated: there is nothing to edit.
  transformPageData: ({ relativePath, frontmatter }) => {
    if (relativePath.startsWith('api/')) frontmatter.editLink = false;
  },
  markdown: {
    anchor: { slugify },
    config: (markdown) => markdown.use(repositoryLinks),
  },
  themeConfig: {
    logo: '/logo.svg',
    nav: [
      { text: 'Guide', link: '/session' },
      { text: 'API', link: '/api/' },
      { text: 'Errors', link: '/errors' },
      {
        // The pages of an older version are those of its tag.
        text: version,
        items: [
          { text: 'Changes', link: `${REPOSITORY}/blob/main/CHANGELOG.md` },
          { text: 'Older versions', link: `${REPOSITORY}/tags` },
          { text: 'Contributing', link: `${REPOSITORY}/blob/main/CONTRIBUTING.md` },
        ],
      },
    ],
    sidebar: { '/api/': apiSidebar(), '/': sidebar },
    outline: [2, 3],
    search: { provider: 'local' },
    socialLinks: [{ icon: 'github', link: REPOSITORY }],
    editLink: { pattern: `${REPOSITORY}/edit/main/docs/:path`, text: 'Edit this page' },
  },
});
