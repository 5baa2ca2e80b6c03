import type { HttpServer } from '@nestjs/common';
import { VisitOptionError } from '../errors/visit.error.js';
import { bindExpress } from './express.platform.js';
import { bindFastify } from './fastify.platform.js';
import type { FrameworkRequest, FrameworkResponse } from './exchange.js';

/** What the library does with each request. Passed to the platform once, at startup. */
export interface RequestEntry {
  /** Called first for every request, even if its path does not exist. Calls `next` in the context of the request. */
  enter(request: FrameworkRequest, response: FrameworkResponse, next: () => void): void;
  /** Whether `enter` was called for this request. */
  hasEntered(request: FrameworkRequest): boolean;
  /** `request.session`, read and assigned. */
  session(request: FrameworkRequest): unknown;
  assignSession(request: FrameworkRequest, value: unknown): void;
  /** `request.sessionID`, which express-session has beside it. */
  sessionId(request: FrameworkRequest): string | undefined;
}

/** One platform. */
export interface Platform {
  /** Binds the entry of the server, before everything else. */
  bind(instance: never, entry: RequestEntry, adapter: never): void;
  /**
   * Binds code after the body parser and everything that `main.ts` adds, if the platform has such a place; otherwise
   * only if bodies are read.
   *
   * @param goOn calls `next` in the context of the request
   */
  bindAfterBody(
    instance: never,
    readsBodies: boolean,
    goOn: (request: FrameworkRequest, next: () => void) => void,
  ): void;
}

const PLATFORMS: Record<string, Platform> = { express: bindExpress, fastify: bindFastify };

/**
 * The platform of this adapter. Nothing is bound by path, because a path has many spellings (CVE-2025-69211), and
 * prefixes must not matter.
 *
 * @throws VisitOptionError if it is not supported
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
