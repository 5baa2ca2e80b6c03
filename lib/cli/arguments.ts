import { parseArgs } from 'node:util';
import { VisitKey } from '../key/visit-key.js';
import { MAX_ROWS } from '../options/max-rows.js';
import { checkedReason } from '../visit/end-reason.js';
import { checkedUserId } from '../visit/user-id.js';
import { BATCH_SIZE, KEEP_DAYS, LIST_LIMIT } from './defaults.js';
import { lineOf } from './error-line.js';
import { UsageError } from './usage.error.js';

const STORE = ['data-source', 'store'] as const;
const CLEANING = [...STORE, 'batch-size', 'dry-run', 'json', 'quiet'] as const;

/** The options of each command. */
const COMMANDS = {
  expunge: [...CLEANING, 'keep-days'],
  wipe: CLEANING,
  list: [...STORE, 'user', 'limit', 'json'],
  end: [...STORE, 'user', 'all', 'reason', 'dry-run', 'json', 'quiet'],
  stats: [...STORE, 'keep-days', 'json'],
  move: ['from', 'to', 'batch-size', 'dry-run', 'json', 'quiet'],
  doctor: [...STORE, 'options', 'url', 'json'],
} as const;

export type CommandName = keyof typeof COMMANDS;

const NAMES = Object.keys(COMMANDS) as CommandName[];

const OPTIONS = {
  'data-source': { type: 'string' },
  store: { type: 'string' },
  options: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  url: { type: 'string' },
  user: { type: 'string' },
  all: { type: 'boolean' },
  reason: { type: 'string' },
  limit: { type: 'string' },
  'keep-days': { type: 'string' },
  'batch-size': { type: 'string' },
  'dry-run': { type: 'boolean' },
  json: { type: 'boolean' },
  quiet: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const;

type OptionName = keyof typeof OPTIONS;

/** Which visits to end. */
export type Victims =
  | { readonly are: 'ids'; readonly ids: readonly string[] }
  | { readonly are: 'user'; readonly userId: string }
  | { readonly are: 'all' };

interface InBatches {
  readonly batchSize: number;
  readonly dryRun: boolean;
}

/** The output of a command. */
export interface Manner {
  readonly json: boolean;
  readonly quiet: boolean;
}

interface OnStore extends Manner {
  /** The file of a data source, or of a store. */
  readonly source: string;
}

/** The parsed options of each command. */
export interface Wishes {
  readonly expunge: OnStore & InBatches & { readonly keepDays: number };
  readonly wipe: OnStore & InBatches;
  readonly list: OnStore & { readonly userId: string; readonly limit: number };
  readonly end: OnStore & { readonly victims: Victims; readonly reason: string; readonly dryRun: boolean };
  readonly stats: OnStore & { readonly keepDays: number };
  readonly move: Manner & InBatches & { readonly from: string; readonly to: string };
  /** At least one of the three options is set. */
  readonly doctor: Manner & { readonly source?: string; readonly options?: string; readonly url?: URL };
}

/** The parsed command line, as far as the arguments alone determine it. */
export type Wish =
  | { readonly is: 'version' }
  | { readonly is: 'help'; readonly command: CommandName | undefined }
  | { [Name in CommandName]: { readonly is: Name } & Wishes[Name] }[CommandName];

/** @throws UsageError */
export function readArguments(args: readonly string[]): Wish {
  // Not strict, so that the error messages are those of this command.
  const { tokens } = parseArgs({
    args: [...args],
    options: OPTIONS,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const words: string[] = [];
  const values = new Map<OptionName, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    if (token.kind === 'option') values.set(...checkedOption(token));
  }

  if (values.has('version')) return { is: 'version' };
  const [command, ...operands] = words;
  if (command !== undefined && !isCommand(command))
    throw new UsageError(`there is no command "${command}", only ${list(NAMES)}`);
  if (operands.length > 0 && command !== 'end')
    throw new UsageError(`only one command can be given, got ${words.join(' ')}`);
  if (values.has('help')) return { is: 'help', command };
  if (command === undefined) throw new UsageError(`no command given: use ${list(NAMES, 'or')}`);

  const taken: readonly OptionName[] = COMMANDS[command];
  for (const name of values.keys()) if (!taken.includes(name)) throw new UsageError(refusalOf(command, name), command);
  return new Reading(command, values, operands).wish();
}

/** Parses the options of one command. */
class Reading {
  constructor(
    private readonly command: CommandName,
    private readonly values: ReadonlyMap<OptionName, string>,
    private readonly operands: readonly string[],
  ) {}

  wish(): Wish {
    const { command: is } = this;
    if (is === 'move')
      return { is, from: this.needed('from'), to: this.needed('to'), ...this.batches(), ...this.manner() };
    if (is === 'doctor') return { is, ...this.examined(), ...this.manner() };
    const onStore = { source: this.source(), ...this.manner() };
    if (is === 'expunge') return { is, ...onStore, ...this.batches(), keepDays: this.keepDays() };
    if (is === 'wipe') return { is, ...onStore, ...this.batches() };
    if (is === 'list') return { is, ...onStore, userId: this.user(), limit: this.limit() };
    if (is === 'stats') return { is, ...onStore, keepDays: this.keepDays() };
    return { is, ...onStore, victims: this.victims(), reason: this.reason(), dryRun: this.has('dry-run') };
  }

  private has(name: OptionName): boolean {
    return this.values.has(name);
  }

  private manner(): Manner {
    return { json: this.has('json'), quiet: this.has('quiet') };
  }

  private batches(): InBatches {
    const isBatchSize = (value: number): boolean => Number.isInteger(value) && value >= 1 && value <= MAX_ROWS;
    const expected = `a whole number of rows from 1 to ${MAX_ROWS}`;
    return { batchSize: this.number('batch-size', BATCH_SIZE, expected, isBatchSize), dryRun: this.has('dry-run') };
  }

  private keepDays(): number {
    return this.number('keep-days', KEEP_DAYS, 'a number of days from 0 to 36500', (value) => value <= 36_500);
  }

  private limit(): number {
    return this.number(
      'limit',
      LIST_LIMIT,
      'a whole number of visits, 1 or more',
      (value) => Number.isSafeInteger(value) && value >= 1,
    );
  }

  private source(): string {
    if (this.has('data-source') && this.has('store'))
      this.refuse('--data-source and --store are the same option: use only one of them');
    return this.values.get('store') ?? this.needed('data-source');
  }

  private user(): string {
    return this.checked('user', this.needed('user'), checkedUserId);
  }

  private reason(): string {
    return this.checked('reason', this.values.get('reason') ?? 'revoked', checkedReason);
  }

  private victims(): Victims {
    const ways = [this.operands.length > 0, this.has('user'), this.has('all')].filter(Boolean).length;
    if (ways !== 1) this.refuse('specify which visits to end: their ids, --user <id> or --all');
    if (this.has('all')) return { are: 'all' };
    if (this.has('user')) return { are: 'user', userId: this.user() };
    const wrong = this.operands.findIndex((id) => !VisitKey.isId(id));
    // The value is not shown, because it may be a pasted cookie, which contains a key.
    if (wrong >= 0)
      this.refuse(
        `id number ${wrong + 1} is invalid: the id of a visit consists of 32 hexadecimal digits in lower case`,
      );
    return { are: 'ids', ids: [...new Set(this.operands)] };
  }

  private examined(): Omit<Wishes['doctor'], keyof Manner> {
    const { values } = this;
    const [options, url] = [values.get('options'), values.get('url')];
    const isNamed = this.has('data-source') || this.has('store');
    if (!isNamed && options === undefined && url === undefined)
      this.refuse('specify what to check: one or more of --options, --data-source, --store and --url');
    return {
      ...(isNamed && { source: this.source() }),
      ...(options !== undefined && { options }),
      ...(url !== undefined && { url: this.address(url) }),
    };
  }

  private address(text: string): URL {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url && /^https?:$/.test(url.protocol)) return url;
    return this.refuse('--url must be a URL such as https://www.example.org/sign-in');
  }

  private needed(name: 'data-source' | 'from' | 'to' | 'user'): string {
    const value = this.values.get(name);
    if (value !== undefined) return value;
    const examples = {
      'data-source': './dist/data-source.js',
      from: './dist/from-store.js',
      to: './dist/to-store.js',
      user: '42',
    };
    return this.refuse(`--${name} is required, such as --${name} ${examples[name]}`);
  }

  private number(name: OptionName, fallback: number, expected: string, isRight: (value: number) => boolean): number {
    const text = this.values.get(name);
    if (text === undefined) return fallback;
    if (/^\d+(\.\d+)?$/.test(text) && isRight(Number(text))) return Number(text);
    return this.refuse(`--${name} must be ${expected}, got "${text}"`);
  }

  private checked(name: OptionName, text: string, check: (text: string) => string): string {
    try {
      return check(text);
    } catch (error) {
      return this.refuse(`--${name}: ${lineOf(error)}`);
    }
  }

  private refuse(message: string): never {
    throw new UsageError(message, this.command);
  }
}

/** An option as written on the command line. */
interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

function checkedOption({ name, rawName, value, inlineValue = false }: OptionToken): [OptionName, string] {
  if (!isOption(name)) throw new UsageError(`there is no option ${rawName}`);
  const isFlag = OPTIONS[name].type === 'boolean';
  if (isFlag && value !== undefined) throw new UsageError(`${rawName} takes no value, got "${value}"`);
  if (isFlag) return [name, ''];
  // In `--from --to x`, `--to` is not a file.
  if (value === undefined || value === '' || (!inlineValue && value.startsWith('-')))
    throw new UsageError(`${rawName} needs a value`);
  return [name, value];
}

function refusalOf(command: CommandName, name: OptionName): string {
  const reason = command === 'wipe' && name === 'keep-days' ? ' because it keeps the rows' : '';
  return `${command} takes no --${name}${reason}`;
}

const isOption = (name: string): name is OptionName => Object.hasOwn(OPTIONS, name);
const isCommand = (text: string): text is CommandName => Object.hasOwn(COMMANDS, text);

function list(names: readonly string[], word = 'and'): string {
  return `${names.slice(0, -1).join(', ')} ${word} ${names.at(-1)}`;
}
