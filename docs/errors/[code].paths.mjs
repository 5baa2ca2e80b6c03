import { errorPages } from '../.vitepress/error-pages.mjs';

export default { watch: ['../errors.md', '../error-codes.md'], paths: errorPages };
