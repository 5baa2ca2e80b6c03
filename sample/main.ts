import 'reflect-metadata';
import type { INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { AppModule } from './app.module.js';
import { environment } from './environment.js';

// Behind a reverse proxy, tell the framework how many proxies to believe, else every visit seems to come from the
// proxy: `app.getHttpAdapter().getInstance().set('trust proxy', 1)` on Express, `new FastifyAdapter({ trustProxy: 1 })`
// on Fastify.
const adapters = { express: () => new ExpressAdapter(), fastify: () => new FastifyAdapter() };

async function start(): Promise<INestApplication> {
  // What Nest logs is kept back until the start has succeeded: a failure is one line, written below.
  const app = await NestFactory.create(AppModule, adapters[environment.platform](), {
    logger: ['warn', 'error', 'fatal'],
    abortOnError: false,
    bufferLogs: true,
    autoFlushLogs: false,
  });
  // Ctrl-C is the way to end this program, and no failure.
  app.enableShutdownHooks([], { useProcessExit: true });
  await app.listen(environment.port, '127.0.0.1');
  app.flushLogs();
  return app;
}

try {
  const app = await start();
  console.log(
    `nest-visit sample: ${await app.getUrl()}/ (on ${environment.platform}; visits in ` +
      `${environment.database.name}; Ctrl-C ends it)`,
  );
} catch (error) {
  console.error(`The sample cannot start: ${(error as Error).message}`);
  process.exit(1);
}
