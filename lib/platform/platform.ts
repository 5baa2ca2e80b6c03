import type { HttpServer } from '@nestjs/common';
import { VisitOptionError } from '../errors/visit.error.js';
import { bindExpress } from './express.platform.js';
import { bindFastify } from './fastify.platform.js';
import type { FrameworkRequest, FrameworkResponse } from './exchange.js';

/** What the library does with each request, told to the platform once while the application starts. */
export interface RequestDoor {
  /** Called first, for every request, also one that leads nowhere; goes on with `next` inside the request's context. */
  open(request: FrameworkRequest, response: FrameworkResponse, next: () => void): void;
  /** `request.session`, read and assigned. */
  session(request: FrameworkRequest): unknown;
  assignSession(request: FrameworkRequest, value: unknown): void;
}

const PLATFORMS: Record<string, (instance: never, door: RequestDoor) => void> = { express: bindExpress, fastify: bindFastify };

/**
 * Puts the door at the entry of the HTTP server. Nothing is bound by path: a path can be spelled in many ways
 * (CVE-2025-69211), and prefixes must not matter.
 */
export function bindPlatform(adapter: HttpServer, door: RequestDoor): void {
  const type = adapter.getType();
  const bind = PLATFORMS[type];
  if (!bind) throw new VisitOptionError(`the HTTP platform "${type}" is not supported; ${Object.keys(PLATFORMS).join(' and ')} are`);
  bind(adapter.getInstance() as never, door);
}
