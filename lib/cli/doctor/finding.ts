/** The result of one check. `skipped`: it was not possible. */
export interface Finding {
  readonly check: 'options' | 'store' | 'tables' | 'server' | 'indexes' | 'clock' | 'cookie';
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** For people: one line, without anything secret. */
  readonly message: string;
}

/** The findings of one check, each by its status. */
export function findingsOf(check: Finding['check']) {
  const finding =
    (status: Finding['status']) =>
    (message: string): Finding => ({ check, status, message });
  return { ok: finding('ok'), warning: finding('warning'), failed: finding('failed'), skipped: finding('skipped') };
}
