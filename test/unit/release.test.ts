import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nextVersion, release, ReleaseError, releaseNotes } from '../../.ci/release.mjs';

const script = fileURLToPath(new URL('../../.ci/release.mjs', import.meta.url));

const CHANGELOG = `# Changelog

## Unreleased

### Added

- Something.

## 0.1.0 - 2026-01-01

- The first.
`;

describe('The version of a release', () => {
  test.each([
    ['0.1.0', 'patch', '0.1.1'],
    ['0.1.9', 'minor', '0.2.0'],
    ['0.9.9', 'major', '1.0.0'],
    ['1.0.0-beta.2', 'major', '1.0.0'],
    ['1.0.0-beta.2', 'patch', '1.0.0'],
    ['1.0.0-beta.2', '1.0.0-beta.10', '1.0.0-beta.10'],
    ['1.0.0-beta.10', '1.0.0-rc.1', '1.0.0-rc.1'],
    ['1.0.0-rc.1', '1.0.0', '1.0.0'],
    ['0.9.0', '0.10.0', '0.10.0'],
  ])('%s, %s: %s', (current, wanted, next) => {
    expect(nextVersion(current, wanted)).toBe(next);
  });

  test.each([
    ['0.2.0', '0.2.0'],
    ['0.10.0', '0.9.0'],
    ['1.0.0', '1.0.0-rc.1'],
    ['1.0.0-beta.10', '1.0.0-beta.9'],
  ])('after %s, %s is refused because it is not later', (current, wanted) => {
    expect(() => nextVersion(current, wanted)).toThrow(`${wanted} is not later than ${current}`);
  });

  test.each(['v1.0.0', '1.0', 'latest', ''])('"%s" is refused because it is not a version', (wanted) => {
    expect(() => nextVersion('0.1.0', wanted)).toThrow('is no version');
  });
});

describe('The changelog of a release', () => {
  test('moves the unreleased entries to the version', () => {
    const { notes, changelog } = releaseNotes(CHANGELOG, '0.2.0', '2026-02-03');
    expect(notes).toBe('### Added\n\n- Something.');
    expect(changelog).toBe(CHANGELOG.replace('## Unreleased\n', '## Unreleased\n\n## 0.2.0 - 2026-02-03\n'));
    expect(() => releaseNotes(changelog, '0.3.0', '2026-02-04')).toThrow('nothing under "Unreleased"');
  });

  test('works for a first version, too', () => {
    expect(releaseNotes('# Changelog\n\n## Unreleased\n\n- All.\n', '0.1.0', '2026-02-03').changelog).toBe(
      '# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-02-03\n\n- All.\n',
    );
  });
});

describe('The workflows of the forge', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const texts = readdirSync(join(root, '.github/workflows')).map((name) =>
    readFileSync(join(root, '.github/workflows', name), 'utf8'),
  );

  test('call commands and files that exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    const text = texts.join('\n');
    const called = [...text.matchAll(/run: npm (?:run )?([\w:]+)/g)].map(([, name]) => name!);
    expect(called.toSorted()).toEqual(['ci', 'ci', 'matrix', 'release', 'test', 'test', 'test:quick']);
    expect(called.filter((name) => name !== 'ci' && !(name in scripts))).toEqual([]);
    const files = [...text.matchAll(/(?:node |uses: )(\.[\w./-]+\/[\w./-]+)/g)].map(([, file]) => file!);
    expect(files.toSorted()).toEqual(['./.github/workflows/docs.yml', '.ci/publish-docs.mjs']);
    expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });

  test('use no secrets, and run tests only in jobs that cannot publish', () => {
    for (const text of texts) {
      expect(text).not.toContain('secrets.');
      expect(text).toMatch(/^permissions:\n {2}contents: read$/m);
      for (const job of text.split(/^ {2}(?=[\w-]+:$)/m)) {
        if (/contents: write|id-token: write/.test(job)) expect(job).not.toContain('npm test');
      }
    }
  });
});

describe('A dry run', () => {
  let folder: string;
  let checkout: string;

  const git = (...args: string[]): string => execFileSync('git', args, { cwd: checkout, encoding: 'utf8' });
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
      cwd: checkout,
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  };
  /** The same without another process: what it prints. */
  const released = (...args: string[]): string => {
    const printed: string[] = [];
    release(args, { folder: checkout, env: {}, print: (text) => void printed.push(`${text}\n`) });
    return printed.join('');
  };
  const change = (file: string, text: string): void => {
    writeFileSync(join(checkout, file), text);
    git('add', '--all');
    git('-c', 'user.name=test', '-c', 'user.email=test@localhost', 'commit', '--quiet', '--message', file);
  };

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nest-visit-release-'));
    checkout = join(folder, 'checkout');
    mkdirSync(checkout);
    execFileSync('git', ['init', '--quiet', '--bare', join(folder, 'origin')]);
    git('init', '--quiet', '--initial-branch=main');
    git('remote', 'add', 'origin', join(folder, 'origin'));
    writeFileSync(join(checkout, 'package.json'), '{ "name": "some-package", "version": "0.1.0" }\n');
    change('CHANGELOG.md', CHANGELOG);
    git('push', '--quiet', 'origin', 'main');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('prints all steps in order, and executes none', () => {
    const { status, stdout, stderr } = run('minor', '--dry-run');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('some-package 0.1.0 -> 0.2.0\n\n### Added\n\n- Something.\n');
    expect(stdout.split('\n').filter((line) => line.startsWith('> '))).toEqual([
      '> npm test',
      '> npm run build',
      '> npm run size',
      '> npm version 0.2.0 --no-git-tag-version',
      '> git commit --all --message Version 0.2.0',
      '> git tag --annotate v0.2.0 --message v0.2.0',
      '> npm publish --provenance --access public --tag latest',
      '> git push --atomic origin main v0.2.0',
    ]);
    expect([git('status', '--porcelain'), git('tag'), readFileSync(join(checkout, 'CHANGELOG.md'), 'utf8')]).toEqual([
      '',
      '',
      CHANGELOG,
    ]);
    expect(released('0.2.0-beta.1', '--dry-run')).toContain('--tag next');
    expect(stdout).toContain('npm test');
    expect(released('minor', '--dry-run', '--tested')).not.toContain('npm test');
  });

  test('refuses anything that is not a release', () => {
    const refusal = (...args: string[]): string => {
      const printed: string[] = [];
      try {
        release(args, { folder: checkout, env: {}, print: (text) => void printed.push(text) });
      } catch (error) {
        expect([error, printed]).toEqual([expect.any(ReleaseError), []]);
        return (error as ReleaseError).message;
      }
      return expect.fail(`it was not refused: ${printed.join()}`);
    };
    const { status, stdout, stderr } = run();
    expect({ status, stdout }, stderr).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain('npm run release -- <patch | minor | major | version>');
    expect(refusal('0.1.0', '--dry-run')).toContain('0.1.0 is not later than 0.1.0');
    expect(refusal('minor')).toContain('start the workflow "Release"');

    git('push', '--quiet', 'origin', 'HEAD:refs/tags/v0.2.0');
    expect(refusal('minor', '--dry-run')).toContain('there is a tag v0.2.0 already');
    git('switch', '--quiet', '--create', 'elsewhere');
    expect(refusal('major', '--dry-run')).toContain('releases are made from main');
    git('switch', '--quiet', 'main');
    change('more', '');
    expect(refusal('major', '--dry-run')).toContain('main is not what the remote "origin" has');
    writeFileSync(join(checkout, 'more'), 'not committed');
    expect(refusal('major', '--dry-run')).toContain('not committed');
    writeFileSync(join(checkout, 'CHANGELOG.md'), '# Changelog\n\n## Unreleased\n');
    expect(refusal('major', '--dry-run')).toContain('nothing under "Unreleased"');
  });
});
