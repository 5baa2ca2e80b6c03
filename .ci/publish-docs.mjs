// `node .ci/publish-docs.mjs <folder> --site <address>`: builds the documentation of this version, and puts it into the
// folder of a site that has all versions: v0.1/ for every 0.1.x, the latest one once more on top, and versions.html, to
// which the menu of each version leads. The workflow "Documentation" calls it after a release.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
/** What is on top of the site and belongs to no version. `.nojekyll`: GitHub Pages leaves names such as `_a` alone. */
const OWN = ['.git', '.nojekyll', 'CNAME', 'versions.html', 'versions.json'];

/** The minor version that a folder is for, such as "0.1" for "0.1.7" and "1.0.0-beta.2". */
const minorOf = (version) => version.split('.', 2).join('.');
const isLater = (one, other) => one.localeCompare(other, 'en', { numeric: true }) > 0;

/** The published versions with this one: `[{ folder: 'v0.1', version: '0.1.7' }]`, the latest first. */
export function withVersion(versions, version) {
  const folder = `v${minorOf(version)}`;
  const others = versions.filter((known) => known.folder !== folder);
  return [...others, { folder, version }].toSorted((one, other) => (isLater(one.folder, other.folder) ? -1 : 1));
}

/** Which of them is on top: the latest release, or the latest of all while there are only versions such as 1.0.0-rc.1. */
export const latestOf = (versions) => versions.find(({ version }) => !version.includes('-')) ?? versions[0];

const pageOf = (versions) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>All versions | nest-visit</title>
<body style="font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem">
<h1>Documentation of nest-visit</h1>
<ul>
<li><a href="./">The latest version, ${latestOf(versions).version}</a></li>
${versions.map(({ folder, version }) => `<li><a href="${folder}/">${version}</a></li>`).join('\n')}
</ul>
</html>
`;

/**
 * Publishes `version` into the folder `to`. `build(version)` returns the folder with the pages of the version, and
 * `build()` that with the pages for the top.
 */
export function publish(to, version, build) {
  mkdirSync(to, { recursive: true });
  const list = join(to, 'versions.json');
  const versions = withVersion(existsSync(list) ? JSON.parse(readFileSync(list, 'utf8')) : [], version);
  const folder = `v${minorOf(version)}`;
  rmSync(join(to, folder), { recursive: true, force: true });
  cpSync(build(minorOf(version)), join(to, folder), { recursive: true });
  if (latestOf(versions).version === version) {
    const stays = [...OWN, ...versions.map((known) => known.folder)];
    for (const name of readdirSync(to)) if (!stays.includes(name)) rmSync(join(to, name), { recursive: true });
    cpSync(build(), to, { recursive: true });
  }
  writeFileSync(join(to, '.nojekyll'), '');
  writeFileSync(list, `${JSON.stringify(versions, null, 2)}\n`);
  writeFileSync(join(to, 'versions.html'), pageOf(versions));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { site: { type: 'string' } } });
  if (positionals.length !== 1 || !values.site) {
    console.error('node .ci/publish-docs.mjs <folder> --site https://example.org/nest-visit/');
    process.exit(1);
  }
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  publish(positionals[0], version, (minor) => {
    const env = { ...process.env, DOCS_SITE: values.site, DOCS_VERSION: minor ?? '' };
    const { status } = spawnSync('npm', ['run', 'docs'], { cwd: root, stdio: 'inherit', env, shell: true });
    if (status !== 0) throw new Error('npm run docs failed; nothing of it is published');
    return join(root, 'docs/.vitepress/dist');
  });
  console.log(`${version} is in ${positionals[0]}`);
}
