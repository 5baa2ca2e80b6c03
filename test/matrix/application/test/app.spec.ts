import 'reflect-metadata';
import type { INestApplication } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { IdentityGuard } from 'nest-visit';
import { signIn, TestClock, VisitTestingModule } from 'nest-visit/testing';
import { AppController, parts } from '../src/app.js';
import { adapter } from '../src/platform.js';

// Of Jest or vitest.
declare const describe: (name: string, suite: () => void) => void;
declare const test: (name: string, test: () => Promise<void>) => void;
declare const expect: (value: unknown) => { toBe(value: unknown): void; toMatchObject(value: object): void };

const clock = new TestClock();

async function started(work: (app: INestApplication, address: string) => Promise<void>): Promise<void> {
  const imports = [VisitTestingModule.forRoot({ clock, timeout: '20m' })];
  const module = await Test.createTestingModule({ imports, ...parts }).compile();
  const app = module.createNestApplication(adapter());
  try {
    await app.listen(0, '127.0.0.1');
    await work(app, await app.getUrl());
  } finally {
    await app.close();
  }
}

describe('The application', () => {
  test('knows the signed-in user for as long as the visit lasts', () =>
    started(async (app, address) => {
      const ada = await signIn(app, 'ada');
      const visits = (headers = {}): Promise<Response> => fetch(`${address}/visits`, { headers });
      expect((await visits()).status).toBe(401);
      const answer = await visits(ada.headers);
      expect(answer.status).toBe(200);
      expect(await answer.json()).toMatchObject([{ userId: 'ada', isCurrent: true }]);
      clock.advance('21m');
      expect((await visits(ada.headers)).status).toBe(401);
    }));

  test('can be tested with the guard of the library replaced', async () => {
    const pass = { canActivate: () => true };
    const module = await Test.createTestingModule({ imports: [VisitTestingModule.forRoot()], ...parts })
      .overrideGuard(IdentityGuard)
      .useValue(pass)
      .compile();
    expect(module.get(AppController).mine()).toBe('mine');
  });
});
