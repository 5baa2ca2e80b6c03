// Where the site will be, from the environment. Without it, the site is for the root of any host.
// - DOCS_SITE: the whole address of a site that has several versions, such as "https://example.org/nest-visit/"
// - DOCS_VERSION: for one version, in a folder of that site, such as "0.1" in v0.1/; without it, the latest one on top
const site = process.env.DOCS_SITE || undefined;
const version = process.env.DOCS_VERSION || undefined;

if (site && !/^https?:\/\/.*\/$/.test(site)) throw new Error(`DOCS_SITE is no address that ends with "/": ${site}`);
if (version && !site) throw new Error('DOCS_VERSION needs DOCS_SITE');
const top = site ? new URL(site).pathname : '/';

export const published = { site, version, base: version ? `${top}v${version}/` : top };
