// The process under load: a Nest application with the same four routes whatever keeps its sessions. Argument: {
// platform, app, database, … } as JSON. Tells its parent the address when it listens, answers "usage", and ends with
// its parent at the latest.
import 'reflect-metadata';
import { Controller, Get, Module, Post, Req, Res } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';

const settings = JSON.parse(process.argv[2]);
const { prepare } = await import(`./${settings.app}.mjs`);
/** `parameter`: what handlers that use the session are given; by default the request. */
const { imports = [], handlers, install, close, parameter = Req() } = await prepare(settings);

class AppController {}

function route(decorator, name, handle, ...parameters) {
  const descriptor = { value: handle, writable: true, configurable: true };
  Object.defineProperty(AppController.prototype, name, descriptor);
  parameters.forEach((decorate, index) => decorate(AppController.prototype, name, index));
  decorator(`/${name}`)(AppController.prototype, name, descriptor);
}
route(Get, 'static', handlers.static, Req());
route(Get, 'read', handlers.read, parameter);
route(Post, 'write', handlers.write, parameter);
route(Post, 'login', handlers.login, parameter, Res({ passthrough: true }));
Controller()(AppController);

class AppModule {}
Module({ imports, controllers: [AppController] })(AppModule);

async function adapter() {
  if (settings.platform === 'express') {
    const { ExpressAdapter } = await import('@nestjs/platform-express');
    return new ExpressAdapter();
  }
  const { FastifyAdapter } = await import('@nestjs/platform-fastify');
  return new FastifyAdapter();
}

const app = await NestFactory.create(AppModule, await adapter(), { logger: ['warn', 'error'] });
await install?.(app);

let requests = 0;
app.getHttpServer().on('request', () => requests++);

process.on('message', (message) => {
  if (message === 'usage') {
    const { user, system } = process.cpuUsage();
    process.send({ rss: process.memoryUsage.rss(), cpu: user + system, requests });
  }
  if (message === 'stop') void stop();
});
process.on('disconnect', () => process.exit(1));

async function stop() {
  app.getHttpServer().closeAllConnections();
  await app.close();
  await close?.();
  process.exit(0);
}

await app.listen(0, '127.0.0.1');
process.send({ url: `http://127.0.0.1:${app.getHttpServer().address().port}` });
