// In this order: most browsers also name those whose pages they want to be sent.
const browsers: readonly [RegExp, string][] = [
  [/Edg(e|A|iOS)?\//, 'Edge'],
  [/OPR\//, 'Opera'],
  [/Firefox\/|FxiOS\//, 'Firefox'],
  [/Chrome\/|Chromium\/|CriOS\//, 'Chrome'],
  [/Safari\//, 'Safari'],
  [/^curl\//, 'curl'],
];

const systems: readonly [RegExp, string][] = [
  [/Android/, 'Android'],
  [/iPhone|iPad/, 'iOS'],
  [/Windows/, 'Windows'],
  [/Mac OS X/, 'macOS'],
  [/Linux/, 'Linux'],
];

const match = (table: readonly [RegExp, string][], text: string): string | undefined =>
  table.find(([pattern]) => pattern.test(text))?.[1];

/** The family of the browser with this User-Agent header, such as "Firefox". A guess, as always. */
export function browserFamily(userAgent: string | null): string {
  return match(browsers, userAgent ?? '') ?? '?';
}

/** Family and system, such as "Firefox, Windows". */
export function browserName(userAgent: string | null): string {
  const system = match(systems, userAgent ?? '');
  return system ? `${browserFamily(userAgent)}, ${system}` : browserFamily(userAgent);
}
