import { parseArgs } from 'node:util';
import { MAX_ROWS } from '../store/table-visit.store.js';
import { BATCH_SIZE, KEEP_DAYS } from './defaults.js';
import { UsageError } from './usage.error.js';

const CLEANING = ['data-source', 'batch-size', 'dry-run', 'json', 'quiet'] as const;

/** What each command takes. */
const COMMANDS = {
  expunge: [...CLEANING, 'keep-days'],
  wipe: CLEANING,
  migrate: ['from', 'to', 'batch-size', 'dry-run', 'json', 'quiet'],
} as const;

export type CommandName = keyof typeof COMMANDS;

const NAMES = Object.keys(COMMANDS) as CommandName[];

const OPTIONS = {
  'data-source': { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  'keep-days': { type: 'string' },
  'batch-size': { type: 'string' },
  'dry-run': { type: 'boolean' },
  json: { type: 'boolean' },
  quiet: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const;

type OptionName = keyof typeof OPTIONS;

/** What the user wants, as far as that can be told from the arguments alone. */
export type Wish =
  | { readonly is: 'version' }
  | { readonly is: 'help'; readonly command: CommandName | undefined }
  | (Common & { readonly is: 'expunge'; readonly source: string; readonly keepDays: number })
  | (Common & { readonly is: 'wipe'; readonly source: string })
  | (Common & { readonly is: 'migrate'; readonly from: string; readonly to: string });

interface Common {
  readonly batchSize: number;
  readonly dryRun: boolean;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** @throws UsageError */
export function readArguments(args: readonly string[]): Wish {
  // Not strict: what is wrong is said in our own words.
  const { tokens } = parseArgs({ args: [...args], options: OPTIONS, strict: false, allowPositionals: true, tokens: true });
  const commands: string[] = [];
  const values = new Map<OptionName, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') commands.push(token.value);
    if (token.kind === 'option') values.set(...checkedOption(token));
  }

  if (values.has('version')) return { is: 'version' };
  if (commands.length > 1) throw new UsageError(`one command at a time, got ${commands.join(' ')}`);
  const command = commands[0];
  if (command !== undefined && !isCommand(command)) throw new UsageError(`there is no command "${command}", only ${list(NAMES)}`);
  if (values.has('help')) return { is: 'help', command };
  if (command === undefined) throw new UsageError(`say what to do: ${list(NAMES, 'or')}`);

  const taken: readonly OptionName[] = COMMANDS[command];
  for (const name of values.keys()) if (!taken.includes(name)) throw new UsageError(refusalOf(command, name), command);
  const needed = (name: 'data-source' | 'from' | 'to'): string => {
    const value = values.get(name);
    if (value !== undefined) return value;
    const file = name === 'data-source' ? 'data-source' : `${name}-store`;
    throw new UsageError(`--${name} is needed, such as --${name} ./dist/${file}.js`, command);
  };
  const number = (name: OptionName, fallback: number, expected: string, isRight: (value: number) => boolean): number => {
    const text = values.get(name);
    if (text === undefined) return fallback;
    if (/^\d+(\.\d+)?$/.test(text) && isRight(Number(text))) return Number(text);
    throw new UsageError(`--${name} must be ${expected}, got "${text}"`, command);
  };
  const isBatchSize = (value: number): boolean => Number.isInteger(value) && value >= 1 && value <= MAX_ROWS;
  const keepDays = number('keep-days', KEEP_DAYS, 'a number of days', Number.isFinite);
  const common: Common = {
    batchSize: number('batch-size', BATCH_SIZE, `a whole number of rows from 1 to ${MAX_ROWS}`, isBatchSize),
    dryRun: values.has('dry-run'),
    json: values.has('json'),
    quiet: values.has('quiet'),
  };
  if (command === 'migrate') return { is: command, ...common, from: needed('from'), to: needed('to') };
  const source = needed('data-source');
  return command === 'wipe' ? { is: command, ...common, source } : { is: command, ...common, source, keepDays };
}

/** An option as it was written. */
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
  // Of `--from --to x` the second one is no file.
  if (value === undefined || value === '' || (!inlineValue && value.startsWith('-'))) throw new UsageError(`${rawName} needs a value`);
  return [name, value];
}

function refusalOf(command: CommandName, name: OptionName): string {
  const reason = command === 'wipe' && name === 'keep-days' ? ': it keeps the rows' : '';
  return `${command} takes no --${name}${reason}`;
}

const isOption = (name: string): name is OptionName => Object.hasOwn(OPTIONS, name);
const isCommand = (text: string): text is CommandName => Object.hasOwn(COMMANDS, text);

function list(names: readonly string[], word = 'and'): string {
  return `${names.slice(0, -1).join(', ')} ${word} ${names.at(-1)}`;
}
