import { inspect } from 'node:util';
import { Controller, Get, Injectable, Logger, Module, SetMetadata, type Type } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import {
  MemoryVisitStore,
  Session,
  VisitModule,
  VisitOptionError,
  VisitPlugin,
  type VisitModuleOptions,
} from 'nest-visit';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';

const store = new MemoryVisitStore();

@Controller()
class UsingController {
  constructor(private readonly session: Session) {}

  @Get()
  look() {
    return this.session.size;
  }
}

const running: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.close()));
});

async function start(imports: unknown[], providers: Type[] = []): Promise<void> {
  const module = await Test.createTestingModule({ imports: imports as Type[], providers })
    .setLogger(false as never)
    .compile();
  running.push(module);
  await module.init();
}

const refusal = (text: string) => ({ code: 'VISIT_OPTION', message: expect.stringContaining(text) as string });

describe('Startup checks the imports of the module', () => {
  const usual = (): unknown => VisitModule.forRoot({ store });

  @Module({ controllers: [UsingController] })
  class FeatureModule {}

  @Module({ imports: [VisitModule], controllers: [UsingController] })
  class BareModule {}

  @Module({ imports: [VisitModule.forRoot({ store, timeout: '1h' })] })
  class SecondModule {}

  test('imported once, its services are available everywhere', async () => {
    await expect(start([usual(), FeatureModule])).resolves.toBeUndefined();
  });

  test.each<[string, unknown[], string]>([
    ['without options', [VisitModule], 'VisitModule is imported without options'],
    ['without options, in a feature module', [BareModule], 'VisitModule is imported without options'],
    ['without options, after that of the root module', [usual(), BareModule], 'VisitModule is imported '],
    ['without options, before that of the root module', [BareModule, usual()], 'VisitModule is imported '],
    ['twice', [usual(), SecondModule], 'VisitModule is imported 2 times'],
    [
      'by a factory that returns nothing',
      [VisitModule.forRootAsync({ useFactory: () => undefined as never })],
      'imported without options',
    ],
  ])('R74: imported %s, it is refused with a helpful message', async (_, imports, text) => {
    const error = await start(imports).catch((reason: unknown) => reason);
    expect(error).toMatchObject(refusal(text));
    expect(error).toMatchObject(
      refusal('once, in the root module; it is global, so other modules inject its services without an import'),
    );
  });
});

describe('Startup checks the hooks of plugins', () => {
  const Decorated = SetMetadata('somebody', 'else');

  class Base {
    onKeyRefuse(): void {}
  }

  @VisitPlugin()
  class Misspelt extends Base {
    onVisitEnd(): void {}
    onNewvisit = (): void => {};
    onIdentityLinked(): void {}
  }

  @VisitPlugin()
  class Others {
    onModuleInit(): void {}
    onExpunge(): void {}
    onPaymentReceived(): void {}
    once(): void {}
    @Decorated
    onVisitEndeds(): void {}
    get onPayload(): never {
      throw new Error('a getter was read');
    }
  }

  @Injectable()
  class NoPlugin {
    onVisitEnd(): void {}
  }

  @VisitPlugin({ enabled: false })
  class SwitchedOff {
    onVisitEnd(): void {}
  }

  test('R72: a misspelled hook is refused, with the name of the hook that is probably meant', async () => {
    const error = await start([VisitModule.forRoot({ store })], [Misspelt]).catch((reason: unknown) => reason as Error);
    expect((error as Error).message.split('\n').toSorted()).toEqual([
      '[visit] Misspelt.onKeyRefuse() is no hook of a plugin: did you mean onKeyRefused()?',
      '[visit] Misspelt.onNewvisit() is no hook of a plugin: did you mean onNewVisit()?',
      '[visit] Misspelt.onVisitEnd() is no hook of a plugin: did you mean onVisitEnded()?',
    ]);
    expect(error).toMatchObject({ code: 'VISIT_OPTION' });
  });

  test('R72: an unknown one causes a warning; methods for other callers and other providers are ignored', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => warn.mockRestore());
    await start([VisitModule.forRoot({ store })], [Others, NoPlugin, SwitchedOff]);
    expect(
      warn.mock.calls.map(([line]) => String(line)).filter((line) => line.includes('is not a plugin hook')),
    ).toEqual([
      expect.stringContaining(
        'Others.onPaymentReceived() is not a plugin hook and would never be called; the hooks are onNewVisit, ',
      ) as string,
    ]);
  });
});

describe('Startup reports why a store cannot be used', () => {
  class OwnStore extends MemoryVisitStore {
    constructor(private readonly answer: () => Promise<void>) {
      super();
    }

    override check() {
      return this.answer();
    }
  }
  const started = (answer: () => Promise<void>) =>
    start([VisitModule.forRoot({ store: new OwnStore(answer), storeTimeout: 50 })]);

  test('R74: a store that never answers', async () => {
    await expect(started(() => new Promise(() => {}))).rejects.toMatchObject({
      code: 'VISIT_STORE_UNAVAILABLE',
      message: expect.stringContaining('OwnStore cannot be used: there was no answer within') as string,
    });
  });

  test('R74: a store that fails, without passwords; messages of the library are not changed', async () => {
    const failure = new Error('no route to cache://user:secret@host');
    await expect(started(() => Promise.reject(failure))).rejects.toMatchObject({
      code: 'VISIT_STORE_UNAVAILABLE',
      message: '[visit] OwnStore cannot be used: no route to cache://***@host',
      cause: failure,
    });
    const own = new VisitOptionError('the client is not connected');
    await expect(started(() => Promise.reject(own))).rejects.toBe(own);
  });
});

describe('Startup reports why a data source cannot be opened', () => {
  const open = async (dataSource: object): Promise<Error> =>
    start([VisitModule.forRoot({ dataSource } as VisitModuleOptions)]).then(
      () => expect.fail('it started'),
      (reason: unknown) => reason as Error,
    );

  test('R74: a missing driver is named, with the command that installs it', async () => {
    expect(await open({ type: 'better-sqlite3', database: ':memory:' })).toMatchObject(
      refusal(
        'a data source of type "better-sqlite3" needs the package "better-sqlite3", which is not installed: npm ' +
          'install better-sqlite3',
      ),
    );
  });

  const nowhere = { host: '127.0.0.1', port: 1, username: 'root', password: 'SECRET/1', database: 'SECRET/1' };
  test.each<[string, object]>([
    ['in a URL', { type: 'mysql', url: 'mysql://root:SECRET%2F1@127.0.0.1:1/none' }],
    ['alone', { type: 'postgres', ...nowhere }],
    ['of a primary', { type: 'mysql', replication: { master: nowhere, slaves: [] } }],
    [
      'of the driver',
      {
        type: 'mysql',
        host: '127.0.0.1',
        port: 1,
        username: 'root',
        database: 'SECRET/1',
        extra: { password: 'SECRET/1' },
      },
    ],
  ])('R74: no error contains a password %s', async (_, dataSource) => {
    const error = await open(dataSource);
    expect(error).toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    expect(error.message).toContain('cannot open the data source of type');
    expect(inspect(error.message)).not.toContain('SECRET');
  });
});
