import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { documentedFiles, transpiled } from '../support/documented-store.js';
import { temporaryFolder } from '../support/servers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = temporaryFolder('testing');

beforeAll(async () => {
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(join(root, 'dist/esm/testing/index.js')))
    await promisify(execFile)(process.execPath, ['lib/build.mjs'], { cwd: root });
});
afterAll(() => folder.remove());

const FORMATS = {
  'ES modules': { type: 'module', module: ts.ModuleKind.ES2022, place: (text: string) => text },
  // As tools have it that do not know the condition "module-sync".
  CommonJS: {
    type: 'commonjs',
    module: ts.ModuleKind.CommonJS,
    place: (text: string) =>
      text
        .replace('require("nest-visit/testing")', `require(${JSON.stringify(join(root, 'dist/cjs/testing/index.js'))})`)
        .replace(
          'require("nest-visit/store-kit")',
          `require(${JSON.stringify(join(root, 'dist/cjs/store/kit/index.js'))})`,
        )
        .replace('require("nest-visit")', `require(${JSON.stringify(join(root, 'dist/cjs/index.js'))})`),
  },
};

/** What `node --test` says of the files of docs/writing-a-store.md, with a mistake in them or without. */
async function runUnderNode(
  format: keyof typeof FORMATS,
  mistake?: { readonly is: string; readonly shouldBe: string },
) {
  const { type, module, place } = FORMATS[format];
  const app = join(folder.path, `${type}-${mistake ? 'broken' : 'sound'}`);
  await mkdir(join(app, 'node_modules'), { recursive: true });
  await symlink(root, join(app, 'node_modules/nest-visit'), 'dir');
  await writeFile(join(app, 'package.json'), JSON.stringify({ type }));
  for (const [name, sound] of documentedFiles()) {
    const text = mistake ? sound.replace(mistake.shouldBe, mistake.is) : sound;
    await writeFile(join(app, name.replace(/\.ts$/, '.js')), place(transpiled(text, module)));
  }
  const { NODE_OPTIONS: _, ...env } = process.env;
  return new Promise<{ code: number; passed: number; failed: number; output: string }>((resolve) => {
    // Without `--test`, which would start another process for the file.
    const args = ['--test-reporter=tap', 'map-visit.store.test.js'];
    execFile(process.execPath, args, { cwd: app, env, maxBuffer: 10_000_000 }, (error, output, errors) => {
      const count = (name: string) => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(output)?.[1] ?? Number.NaN);
      resolve({
        code: Number(error?.code ?? 0),
        passed: count('pass'),
        failed: count('fail'),
        output: output + errors,
      });
    });
  });
}

describe.each(Object.keys(FORMATS) as (keyof typeof FORMATS)[])(
  'nest-visit/testing as %s under node:test',
  (format) => {
    test('R66: the store of docs/writing-a-store.md passes', async () => {
      const { code, passed, failed, output } = await runUnderNode(format);
      expect({ code, failed }, output).toEqual({ code: 0, failed: 0 });
      expect(passed).toBeGreaterThan(60);
    });

    test('R66: it fails with a fault in it', async () => {
      const { code, failed, output } = await runUnderNode(format, {
        is: '{ ...kit.touched(this.stored(touch.id), touch)!, accessed: touch.accessed }',
        shouldBe: 'kit.touched(this.stored(touch.id), touch)',
      });
      expect(code).toBe(1);
      expect(failed).toBeGreaterThan(0);
      expect(output).toContain('not ok');
      expect(output).toContain('moves accessed and expiry forward, never back');
    });
  },
);
