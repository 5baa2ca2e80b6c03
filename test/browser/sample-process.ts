import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

function run(...args: string[]): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`node ${args.join(' ')} failed:\n${stdout}${stderr}`);
}

/** Builds the sample, against the library as it was built last. */
export function buildSample(): void {
  if (!existsSync(`${root}dist/esm/index.js`)) run('lib/build.mjs');
  run('node_modules/@nestjs/cli/bin/nest.js', 'build');
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The built sample as a process of its own. */
export class SampleProcess {
  private constructor(
    private readonly child: ChildProcess,
    /** Without a slash at the end. */
    readonly address: string,
    private readonly printed: () => string,
  ) {}

  /** Resolves when it has printed its address. */
  static async start(env: Record<string, string>): Promise<SampleProcess> {
    const child = SampleProcess.spawn({ PORT: '0', ...env });
    let output = '';
    const address = await new Promise<string>((resolve, reject) => {
      const read = (chunk: Buffer): void => {
        output += chunk.toString();
        const found = /^nest-visit sample: (http:\S+)\//m.exec(output)?.[1];
        if (found) resolve(found);
      };
      child.stdout!.on('data', read);
      child.stderr!.on('data', read);
      child.once('exit', (code) => reject(new Error(`The sample ended with exit code ${code}:\n${output}`)));
    });
    return new SampleProcess(child, address, () => output);
  }

  /** For a start that fails: what it printed, and its exit code. */
  static async fail(env: Record<string, string>): Promise<{ code: number | null; output: string }> {
    const child = SampleProcess.spawn(env);
    let output = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, output };
  }

  private static spawn(env: Record<string, string>): ChildProcess {
    const child = spawn(process.execPath, ['dist/sample/main.js'], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // A test that fails does not stop it.
    const kill = (): boolean => child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    return child;
  }

  /** All it has printed. */
  get output(): string {
    return this.printed();
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended> {
    const ended = once(this.child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    if (this.child.exitCode !== null || this.child.signalCode !== null) throw new Error('The sample has ended before');
    this.child.kill(signal);
    const [code, by] = await ended;
    return { code, signal: by };
  }
}
