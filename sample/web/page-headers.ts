import { applyDecorators, Header } from '@nestjs/common';

export const pageHeaders: Readonly<Record<string, string>> = {
  'Content-Type': 'text/html; charset=utf-8',
  // Every page depends on who asks for it.
  'Cache-Control': 'no-store',
  'Content-Security-Policy':
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
};

/** For handlers that return a page. */
export function HtmlPage(): MethodDecorator {
  return applyDecorators(...Object.entries(pageHeaders).map(([name, value]) => Header(name, value)));
}
