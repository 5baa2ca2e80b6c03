import type { INestApplication } from '@nestjs/common';
import { FastifyAdapter } from '@nestjs/platform-fastify';

export const adapter = (): FastifyAdapter => new FastifyAdapter();

interface Hooked {
  addHook(name: 'preHandler', hook: (request: { url: string; session: { early?: string } }) => Promise<void>): void;
}

/** Changes the session before any guard. */
export function changeEarly(app: INestApplication): void {
  (app.getHttpAdapter().getInstance() as Hooked).addHook('preHandler', async (request) => {
    if (request.url === '/early') request.session.early = 'main.ts';
  });
}
