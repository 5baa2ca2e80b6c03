// `npm run release -- <version> [--dry-run]`: checks, tests, writes version and changelog, tags, publishes. The
// workflow "Release" calls it, because npm attests where a package was built (provenance) only for what continuous
// integration publishes.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const USAGE = `npm run release -- <patch | minor | major | version> [--tested] [--dry-run]

Needs a clean checkout of main, as it is at the remote "origin", and lines under "Unreleased" in CHANGELOG.md.
  --tested     leave out \`npm test\`: this commit has passed it
  --dry-run    check and say what would be done; nothing is written, tested or published`;

/** A mistake of whoever calls: its message is all there is to say. */
export class ReleaseError extends Error {}

const VERSION = /^(\d+)\.(\d+)\.(\d+)(?:-([a-z]+)\.(\d+))?$/;

function numbersOf(version) {
  const match = VERSION.exec(version);
  if (!match)
    throw new ReleaseError(`"${version}" is no version such as 1.2.3 or 1.2.3-beta.1, and none of patch, minor, major`);
  const [, major, minor, patch, stage, count] = match;
  // What comes before a version is smaller than it.
  return { order: [+major, +minor, +patch, stage ? stage.charCodeAt(0) : Infinity, +(count ?? 0)], stage };
}

/** The version that `wanted` leads to. @throws ReleaseError if it is not later than the current one */
export function nextVersion(current, wanted) {
  const [major, minor, patch, stage] = numbersOf(current).order;
  const isStage = stage !== Infinity;
  if (wanted === 'major') return isStage && minor === 0 && patch === 0 ? `${major}.0.0` : `${major + 1}.0.0`;
  if (wanted === 'minor') return isStage && patch === 0 ? `${major}.${minor}.0` : `${major}.${minor + 1}.0`;
  if (wanted === 'patch') return isStage ? `${major}.${minor}.${patch}` : `${major}.${minor}.${patch + 1}`;
  const [from, to] = [numbersOf(current).order, numbersOf(wanted).order];
  const differs = from.findIndex((number, index) => number !== to[index]);
  if (differs < 0 || to[differs] < from[differs]) throw new ReleaseError(`${wanted} is not later than ${current}`);
  return wanted;
}

/** The changelog with what was unreleased under a version. @throws ReleaseError if there is nothing */
export function releaseNotes(changelog, version, date) {
  const match = /^## Unreleased\n([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(changelog);
  const notes = match?.[1].trim();
  if (!notes || !/^- /m.test(notes))
    throw new ReleaseError('CHANGELOG.md has nothing under "Unreleased": what would users read?');
  const entry = `## Unreleased\n\n## ${version} - ${date}\n\n${notes}\n\n`;
  const rest = changelog.slice(match.index + match[0].length);
  return { notes, changelog: `${changelog.slice(0, match.index)}${entry}${rest}`.trimEnd() + '\n' };
}

/**
 * Releases what is checked out in a folder.
 *
 * @param args of the command line
 * @throws ReleaseError if it is not to be released
 */
export function release(args, { folder = '.', env = process.env, print = console.log } = {}) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { 'dry-run': { type: 'boolean' }, tested: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) return print(USAGE);
  if (positionals.length !== 1) throw new ReleaseError(USAGE);

  const run = (command, ...given) => {
    print(`> ${[command, ...given].join(' ')}`);
    if (values['dry-run']) return;
    const { status } = spawnSync(command, given, { cwd: folder, stdio: 'inherit' });
    if (status !== 0) throw new ReleaseError(`${command} ${given[0]} failed; nothing that comes after it was done`);
  };
  const git = (...given) => {
    const { status, stdout, stderr } = spawnSync('git', given, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new ReleaseError(`git ${given.join(' ')}: ${stderr.trim()}`);
    return stdout.trim();
  };

  // All checks come before the first change.
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const version = nextVersion(manifest.version, positionals[0]);
  const tag = `v${version}`;
  const { notes, changelog } = releaseNotes(
    readFileSync(join(folder, 'CHANGELOG.md'), 'utf8'),
    version,
    new Date().toISOString().slice(0, 10),
  );
  if (git('status', '--porcelain') !== '') throw new ReleaseError('the checkout has changes that are not committed');
  if (git('branch', '--show-current') !== 'main') throw new ReleaseError('releases are made from main');
  if (git('ls-remote', 'origin', 'refs/heads/main').split('\t')[0] !== git('rev-parse', 'HEAD')) {
    throw new ReleaseError('main is not what the remote "origin" has: pull or push first');
  }
  if (git('ls-remote', 'origin', `refs/tags/${tag}`) !== '') throw new ReleaseError(`there is a tag ${tag} already`);
  if (!values['dry-run'] && !env.CI)
    throw new ReleaseError('only continuous integration publishes: start the workflow "Release"');

  print(`${manifest.name} ${manifest.version} -> ${version}\n\n${notes}\n`);
  if (!values.tested) run('npm', 'test');
  run('npm', 'run', 'build');
  run('npm', 'run', 'size');
  if (!values['dry-run']) writeFileSync(join(folder, 'CHANGELOG.md'), changelog);
  run('npm', 'version', version, '--no-git-tag-version');
  run('git', 'commit', '--all', '--message', `Version ${version}`);
  run('git', 'tag', '--annotate', tag, '--message', tag);
  run('npm', 'publish', '--provenance', '--access', 'public', '--tag', numbersOf(version).stage ? 'next' : 'latest');
  run('git', 'push', '--atomic', 'origin', 'main', tag);
  print(values['dry-run'] ? 'A dry run: nothing was done.' : `${version} is published.`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    release(process.argv.slice(2));
  } catch (error) {
    console.error(error instanceof ReleaseError ? `release: ${error.message}` : error);
    process.exitCode = 1;
  }
}
