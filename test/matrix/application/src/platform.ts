import type { INestApplication } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';

export const adapter = (): ExpressAdapter => new ExpressAdapter();

/** Changes the session before any guard. */
export function changeEarly(app: INestApplication): void {
  app.use((request: { url: string; session: { early?: string } }, _: unknown, next: () => void) => {
    if (request.url === '/early') request.session.early = 'main.ts';
    next();
  });
}
