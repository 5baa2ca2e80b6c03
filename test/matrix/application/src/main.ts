import { NestFactory } from '@nestjs/core';
import { VisitModule } from 'nest-visit';
import { AppModule, requireHere } from './app.js';
import { adapter, changeEarly } from './platform.js';

/** Two, where `require` and `import` give other classes: what one has bound is not there for the other. */
async function countInstances(): Promise<number> {
  const required = requireHere('nest-visit') as { VisitModule: unknown };
  const imported = await import('nest-visit');
  const { describeVisitStore } = requireHere('nest-visit/testing') as typeof import('nest-visit/testing');
  const suites = new Set([describeVisitStore, (await import('nest-visit/testing')).describeVisitStore]);
  return Math.max(suites.size, new Set([required.VisitModule, imported.VisitModule, VisitModule]).size);
}

async function main(): Promise<void> {
  if (!process.env['BUNDLED']) console.log(`instances: ${await countInstances()}`);
  const app = await NestFactory.create(AppModule, adapter(), { logger: ['error', 'fatal'], abortOnError: false });
  changeEarly(app);
  app.enableShutdownHooks();
  await app.listen(0, '127.0.0.1');
  console.log(`listening on ${await app.getUrl()}`);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
