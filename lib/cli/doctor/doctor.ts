import { resolveOptions } from '../../options/resolve-options.js';
import type { ResolvedVisitOptions, VisitModuleOptions } from '../../options/visit-options.interface.js';
import { VisitOptionError } from '../../errors/visit.error.js';
import type { VisitStore } from '../../store/visit.store.js';
import type { Wishes } from '../arguments.js';
import { lineOf } from '../error-line.js';
import { isStore, readModuleOptions, readSource, type Source } from '../exported.file.js';
import type { Report } from '../terminal.js';
import { examineCookie } from './cookie.js';
import { findingsOf, type Finding } from './finding.js';
import { examineStore } from './store.js';

/**
 * Checks everything that was requested, and changes nothing. Returns whether there are no errors; warnings do not
 * count.
 */
export async function examine(wish: Wishes['doctor'], report: Report): Promise<boolean> {
  const findings: Finding[] = [];
  const given = wish.options === undefined ? undefined : await readModuleOptions(wish.options);
  const source = wish.source === undefined ? sourceOf(given) : await readSource(wish.source);
  const options = given && examineOptions(withSource(given, source), findings);
  report.progress('checked the options', 'nothing was changed');
  if (source) findings.push(...(await examineStore(source, options)));
  report.progress('checked the store', 'nothing was changed');
  if (wish.url) findings.push(...(await examineCookie(wish.url, options?.cookie)));

  const countOf = (status: Finding['status']): number => findings.filter((finding) => finding.status === status).length;
  const [failed, warnings] = [countOf('failed'), countOf('warning')];
  const lines = findings.map(({ check, status, message }) => `${status.padEnd(7)}  ${check.padEnd(7)}  ${message}`);
  const summary = failed + warnings === 0 ? 'no problems found' : `failed: ${failed}, warnings: ${warnings}`;
  report.result([...lines, summary].join('\n'), { isWell: failed === 0, findings });
  return failed === 0;
}

/** The options know an open data source only by its shape; the command uses TypeORM's type. */
function sourceOf(given: VisitModuleOptions | undefined): Source | undefined {
  return given?.store ?? (given?.dataSource as Exclude<Source, VisitStore> | undefined);
}

/** Replaces the data source that an application injects. */
function withSource(
  { store: _store, dataSource: _dataSource, ...settings }: VisitModuleOptions,
  source: Source | undefined,
): VisitModuleOptions {
  // If neither is given, the validation of the options reports it.
  if (!source) return settings as VisitModuleOptions;
  return isStore(source) ? { ...settings, store: source } : { ...settings, dataSource: source };
}

/** Adds findings about the options. Returns the options, unless they are invalid. */
function examineOptions(given: VisitModuleOptions, findings: Finding[]): ResolvedVisitOptions | undefined {
  const { ok, warning, failed } = findingsOf('options');
  try {
    const options = resolveOptions(given);
    const mode =
      process.env['NODE_ENV'] === 'production'
        ? 'in production'
        : 'outside of production: set NODE_ENV=production to check the production options';
    findings.push(ok(`valid ${mode}`));
    if (options.source.includes('query'))
      findings.push(
        warning(
          '"source" contains "query": keys are accepted in URLs, which are visible in browser histories and logs',
        ),
      );
    return options;
  } catch (error) {
    if (!(error instanceof VisitOptionError)) throw error;
    findings.push(...error.message.split('\n').map((line) => failed(lineOf(line))));
    return undefined;
  }
}
