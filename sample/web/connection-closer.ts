import type { Server } from 'node:http';
import { Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';

/** How long requests under way may take to end, in milliseconds. */
const PATIENCE = 500;

/**
 * Ends the connections that browsers keep open. Node closes idle ones by itself, but waits minutes for those that have
 * not been used yet, and browsers open such ones in advance.
 */
@Injectable()
export class ConnectionCloser implements BeforeApplicationShutdown {
  constructor(private readonly host: HttpAdapterHost) {}

  beforeApplicationShutdown(): void {
    const server = this.host.httpAdapter.getHttpServer() as Server;
    setTimeout(() => server.closeAllConnections(), PATIENCE).unref();
  }
}
