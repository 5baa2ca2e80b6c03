import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
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

  test('finds what leads nowhere, and what another host would send', () => {
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
