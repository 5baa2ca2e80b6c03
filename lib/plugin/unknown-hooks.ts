/** The lifecycle methods that Nest calls. */
const LIFECYCLE = ['onModuleInit', 'onModuleDestroy', 'onApplicationBootstrap', 'onApplicationShutdown'];

/** A method of a plugin with a name like a hook, and the hook that is probably meant. */
export interface UnknownHook {
  readonly name: string;
  readonly meant: string | undefined;
}

/**
 * The methods of a plugin that would never be called. A method with metadata, such as that of `@OnEvent()`, is called
 * by other code.
 */
export function unknownHooks(plugin: object, hooks: readonly string[]): UnknownHook[] {
  const found = new Map<string, UnknownHook>();
  for (
    let one: object | null = plugin;
    one && one !== Object.prototype;
    one = Object.getPrototypeOf(one) as object | null
  ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(one))) {
      if (!/^on[A-Z]/.test(name) || hooks.includes(name) || LIFECYCLE.includes(name)) continue;
      if (typeof value !== 'function' || Reflect.getMetadataKeys(value as object).length > 0) continue;
      found.set(name, { name, meant: nearest(name, hooks) });
    }
  }
  return [...found.values()];
}

/** The maximum number of edits; more than a typing error is a different word. */
const MOST_EDITS = 3;

function nearest(name: string, hooks: readonly string[]): string | undefined {
  const [best] = hooks
    .map((hook) => ({ hook, edits: editsBetween(name.toLowerCase(), hook.toLowerCase()) }))
    .sort((one, other) => one.edits - other.edits);
  return best && best.edits <= MOST_EDITS ? best.hook : undefined;
}

/** The Levenshtein distance. */
function editsBetween(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [i, letter] of Array.from(one).entries()) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++) {
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (other[j] === letter ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1)!;
}
