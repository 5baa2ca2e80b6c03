import { parse } from 'bowser';

/**
 * What a User-Agent header says of itself, in the words people use: "Firefox on Windows". Null if it says nothing
 * known. A label, never to be trusted.
 */
export function deviceOf(userAgent: string | null): string | null {
  if (!userAgent) return null;
  const { browser, os } = parse(userAgent);
  return [browser.name, os.name].filter(Boolean).join(' on ') || null;
}
