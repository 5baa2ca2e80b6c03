// The documentation site: `npm run docs` builds it into docs/.vitepress/dist, `npm run docs:dev` serves it.
import { defineConfig } from 'vitepress';
import { apiSidebar } from './api-sidebar.mjs';
import { writeLlms } from './llms.mjs';
import { REPOSITORY, repositoryLinks, slugify } from './repository.mjs';
import { sidebar } from './sidebar.mjs';

export default defineConfig({
  title: 'nest-visit',
  description: "Visits, sessions and identity for NestJS, kept in the application's own database",
  lang: 'en-US',
  // Where the site is not at the root of its host, such as '/nest-visit/'.
  base: process.env.DOCS_BASE ?? '/',
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
    nav: [
      { text: 'Guide', link: '/session' },
      { text: 'API', link: '/api/' },
      { text: 'Errors', link: '/errors' },
      { text: 'Changes', link: `${REPOSITORY}/blob/main/CHANGELOG.md` },
    ],
    sidebar: { '/api/': apiSidebar(), '/': sidebar },
    outline: [2, 3],
    search: { provider: 'local' },
    socialLinks: [{ icon: 'github', link: REPOSITORY }],
    editLink: { pattern: `${REPOSITORY}/edit/main/docs/:path`, text: 'Edit this page' },
  },
});
