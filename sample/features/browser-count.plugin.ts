import { VisitPlugin, type CurrentVisit, type VisitPluginHooks } from 'nest-visit';
import { browserFamily } from '../web/browser-name.js';

/** Counts new visits by browser. To be found, a plugin only has to be among the providers of a module. */
@VisitPlugin()
export class BrowserCount implements VisitPluginHooks {
  private readonly counts = new Map<string, number>();

  onNewVisit(visit: CurrentVisit): void {
    const family = browserFamily(visit.userAgent);
    this.counts.set(family, (this.counts.get(family) ?? 0) + 1);
  }

  /** Families and their counts, the most frequent first. */
  ranking(): [family: string, count: number][] {
    return [...this.counts].sort(([, a], [, b]) => b - a);
  }
}
