import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { VisitSettings } from 'nest-visit';
import { inject, vi } from 'vitest';
import type { PlatformName } from '../support/app.js';
import { PATIENCE } from '../support/patience.js';

export interface AppSetting {
  readonly platform: PlatformName;
  /** The database; its tables exist, or are created according to the options. */
  readonly dataSource?: object;
  /** Or Redis. */
  readonly redis?: { readonly connection: string; readonly prefix: string };
  /** Options of the library that can be written in JSON. */
  readonly visits?: VisitSettings;
  /**
   * A clock that is ten times slower, the same in all processes. The tests are not about how long a request counts as
   * late, or an old key works, and requests take seconds on a busy machine.
   */
  readonly hasSlowClock?: boolean;
  /** Or a clock that is ahead by the number of milliseconds in this file, which must exist. */
  readonly clockFile?: string;
  /** Receives each line that the process prints, even before it listens. */
  readonly onLine?: (line: string, child: { kill(signal: NodeJS.Signals): void }) => void;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What no process may print, whatever happens to its servers. */
const NEGLECTED = /unhandled|uncaught|MaxListenersExceeded|^Node\.js v\d/i;

/** One process of an application, from the built package. */
export class AppProcess {
  private isEnding = false;

  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: readonly string[],
    /** Of everything that it has printed. */
    private readonly neglected: readonly string[],
    readonly platform: PlatformName,
    readonly address: string,
  ) {}

  static async start({ platform, visits = {}, onLine, ...more }: AppSetting): Promise<AppProcess> {
    const setting = JSON.stringify({ platform, visits: { storeTimeout: PATIENCE, ...visits }, ...more });
    const env = { ...process.env, NO_COLOR: '1', NODE_ENV: 'test' };
    // The pipe of stdin closes with this process, and then the child exits.
    const child = spawn(process.execPath, ['--expose-gc', inject('appFile'), setting], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env,
    });
    child.stdin.on('error', () => {});
    const lines: string[] = [];
    const neglected: string[] = [];
    const address = await new Promise<string>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', (line) => {
          lines.push(line);
          if (lines.length > 300) lines.shift();
          if (NEGLECTED.test(line)) neglected.push(line);
          onLine?.(line, child);
          if (line.startsWith('listening: ')) resolve(line.slice('listening: '.length));
        });
      }
      child.once('close', (code, signal) =>
        reject(new Error(`The application ended with ${signal ?? code}:\n${lines.join('\n')}`)),
      );
    });
    return new AppProcess(child, lines, neglected, platform, address);
  }

  /** The last lines that it printed. */
  get log(): string {
    return this.lines.join('\n');
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Whether a load balancer would still send requests here. */
  get serving(): boolean {
    return this.running && !this.isEnding;
  }

  printed(text: string): Promise<boolean> {
    return vi.waitUntil(() => this.log.includes(text), { timeout: PATIENCE });
  }

  /** The response of a handler that needs no visit. */
  async tell<T>(path: '/alive' | '/ends' | '/heap'): Promise<T> {
    const response = await fetch(`${this.address}${path}`);
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${path} answered ${response.status}: ${text}`);
    return (path === '/alive' ? text : JSON.parse(text)) as T;
  }

  /** SIGSTOP, and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /**
   * Ends it if it is still running. Fails if it has exited by itself, for example because of an unhandled rejection, or
   * has logged one.
   */
  async end(signal: NodeJS.Signals): Promise<Ended> {
    const endedItself = !this.running && !this.child.killed;
    const ended = await this.ended(signal);
    if (endedItself || this.neglected.length > 0) {
      const what = endedItself ? `ended by itself with ${ended.signal ?? ended.code}` : 'neglected an error';
      throw new Error(`An application under ${this.platform} ${what}:\n${this.neglected.join('\n')}\n${this.log}`);
    }
    return ended;
  }

  private async ended(signal: NodeJS.Signals): Promise<Ended> {
    this.isEnding = true;
    if (!this.running) return { code: this.child.exitCode, signal: this.child.signalCode };
    const ended = once(this.child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    this.child.kill(signal);
    // A process that did not exit by itself has a signal.
    const timer = setTimeout(() => this.child.kill('SIGKILL'), PATIENCE);
    const [code, by] = await ended;
    clearTimeout(timer);
    return { code, signal: by };
  }
}

/** Starts several at the same time. If one does not start, all are ended. */
export async function startApps(settings: readonly AppSetting[]): Promise<AppProcess[]> {
  const started = await Promise.allSettled(settings.map((setting) => AppProcess.start(setting)));
  const apps = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const failed = started.find((one) => one.status === 'rejected');
  if (!failed) return apps;
  await Promise.all(apps.map((app) => app.end('SIGKILL')));
  throw failed.reason;
}
