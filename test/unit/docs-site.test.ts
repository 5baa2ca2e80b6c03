import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { latestOf, publish, withVersion } from '../../.ci/publish-docs.mjs';
import { mistakesIn } from '../../docs/.vitepress/check-site.mjs';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nest-visit-site-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const write = (file: string, text: string): void => {
  mkdirSync(dirname(join(folder, file)), { recursive: true });
  writeFileSync(join(folder, file), text);
};

describe('The check of the built site', () => {
  test('follows links below the base, to pages without their ending and to anchors', () => {
    write('style.css', '');
    write('index.html', '<link rel="stylesheet" href="/site/v1/style.css"><a href="/site/v1/session#save">');
    write('session.html', '<h2 id="save"></h2><a class="x" href="/site/v1/">top</a><a href="#save">');
    write('session.md', 'See [the start](/site/v1/index.html).\n\n```md\n[not a link](nowhere.md)\n```\n');
    write('errors/A.html', '<a href="../session"><a href="https://example.org/">elsewhere</a>');
    expect(mistakesIn(folder, '/site/v1/')).toEqual([]);
  });

  test('finds broken links, and URLs that point to another host', () => {
    write('index.html', '<a href="/session"><a href="/site/gone"><a href="/site/session#gone">');
    write('session.html', '<script src="https://example.org/a.js"></script><img src="/site/gone.svg">');
    write('session.md', '![figure](/site/gone.svg)');
    expect(mistakesIn(folder, '/site/').toSorted()).toEqual([
      'index.html: /session leads nowhere',
      'index.html: /site/gone leads nowhere',
      'index.html: /site/session#gone has no such anchor',
      'session.html: /site/gone.svg leads nowhere',
      'session.html: <script src="https://example.org/a.js"> is loaded from another host',
      'session.md: /site/gone.svg leads nowhere',
    ]);
  });
});

describe('A site of several versions', () => {
  const published = (...versions: string[]) =>
    versions.reduce<ReturnType<typeof withVersion>>((known, version) => withVersion(known, version), []);

  test.each([
    [['0.9.1', '0.10.0'], ['v0.10', 'v0.9'], '0.10.0'],
    [['0.9.0', '0.9.1'], ['v0.9'], '0.9.1'],
    [['1.0.0', '0.9.2'], ['v1.0', 'v0.9'], '1.0.0'],
    [['0.9.0', '1.0.0-rc.1'], ['v1.0', 'v0.9'], '0.9.0'],
    [['1.0.0-rc.1', '1.0.0'], ['v1.0'], '1.0.0'],
    [['0.1.0-beta.1'], ['v0.1'], '0.1.0-beta.1'],
  ])('%j: the folders %j, and %s on top', (versions, folders, latest) => {
    const known = published(...versions);
    expect(known.map((one) => one.folder)).toEqual(folders);
    expect(latestOf(known).version).toBe(latest);
  });

  test('keeps older versions, and replaces what is on top', () => {
    const built = join(folder, 'built');
    const site = join(folder, 'site');
    const release = (version: string, page: string): void =>
      publish(site, version, (minor) => {
        rmSync(built, { recursive: true, force: true });
        write(`built/${page}`, minor ?? 'top');
        return built;
      });
    const read = (file: string): string => readFileSync(join(site, file), 'utf8');

    release('0.1.0', 'old.html');
    write('site/.git', 'gitdir: elsewhere');
    release('0.2.0', 'new.html');
    release('0.1.1', 'mended.html');
    expect(readdirSync(site).toSorted()).toEqual(
      ['.git', '.nojekyll', 'new.html', 'v0.1', 'v0.2', 'versions.html', 'versions.json'].toSorted(),
    );
    expect([read('new.html'), read('v0.2/new.html'), read('v0.1/mended.html')]).toEqual(['top', '0.2', '0.1']);
    expect(readdirSync(join(site, 'v0.1'))).toEqual(['mended.html']);
    expect([...read('versions.html').matchAll(/href="([^"]*)"/g)].map(([, href]) => href)).toEqual([
      './',
      'v0.2/',
      'v0.1/',
    ]);
  });
});
