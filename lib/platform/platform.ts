import type { HttpServer } from '@nestjs/common';
import { VisitOptionError } from '../errors/visit.error.js';
import { bindExpress } from './express.platform.js';
import { bindFastify } from './fastify.platform.js';
import type { FrameworkRequest, FrameworkResponse } from './exchange.js';

/** What the library does with each request, told to the platform once while the application starts. */
export interface RequestEntry {
  /** Called first, for every request, also one that leads nowhere; goes on with `next` inside the request's context. */
  enter(request: FrameworkRequest, response: FrameworkResponse, next: () => void): void;
  /** Whether that has been done for this request. */
  hasEntered(request: FrameworkRequest): boolean;
  /** `request.session`, read and assigned. */
  session(request: FrameworkRequest): unknown;
  assignSession(request: FrameworkRequest, value: unknown): void;
  /** `request.sessionID`, which express-session has beside it. */
  sessionId(request: FrameworkRequest): string | undefined;
}

/** One platform. */
export interface Platform {
  /** At the entry of the server, before everything else. */
  bind(instance: never, entry: RequestEntry, adapter: never): void;
  /**
   * After the body parser and what `main.ts` has added, where the platform has such a place; else only if bodies are
   * read.
   *
   * @param goOn goes on with `next` inside the request's context
   */
  bindAfterBody(
    instance: never,
    readsBodies: boolean,
    goOn: (request: FrameworkRequest, next: () => void) => void,
  ): void;
}

const PLATFORMS: Record<string, Platform> = { express: bindExpress, fastify: bindFastify };

/**
 * The platform of this adapter. Nothing is bound by path: a path can be spelled in many ways (CVE-2025-69211), and
 * prefixes must not matter.
 *
 * @throws VisitOptionError for one that is not supported
 */
export function platformOf(adapter: HttpServer): Platform {
  const type = adapter.getType();
  const platform = PLATFORMS[type];
  if (!platform)
    throw new VisitOptionError(
      `the HTTP platform "${type}" is not supported; ${Object.keys(PLATFORMS).join(' and ')} are`,
    );
  return platform;
}
