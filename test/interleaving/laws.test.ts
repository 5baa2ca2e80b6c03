import type { Server } from 'node:http';
import { setImmediate as turnOfTheLoop } from 'node:timers/promises';
import {
  Controller,
  Get,
  Headers,
  Injectable,
  Module,
  UseGuards,
  type CanActivate,
  type MiddlewareConsumer,
  type NestModule,
} from '@nestjs/common';
import { IdentityService, SkipVisit } from 'nest-visit';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CurrentRequest } from '../../lib/context/current-request.js';
import { RequestStory } from '../../lib/request/request.story.js';
import { RequestContext } from '../../lib/context/request.context.js';
import { Turn, TurnQueue } from '../../lib/context/turn.js';
import { SignIn } from '../../lib/identity/sign-in.js';
import { NO_KEY, VisitResolver } from '../../lib/key/visit.resolver.js';
import { OutgoingResponse } from '../../lib/request/outgoing.response.js';
import { SessionSaver } from '../../lib/session/session.saver.js';
import { Batcher } from '../../lib/store/batching/batcher.js';
import { VisitWriter } from '../../lib/visit/visit.writer.js';
import { platforms, startApp, type PlatformName, type RunningApp } from '../support/app.js';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { explore, type TwinScene } from './explorer.js';
import { cutSqliteTransactions, gateOf, type Gate } from './gate.js';
import { FailedOrder, Laboratory, type Rewrite, type Scene } from './lab.js';
import { Process } from './process.js';

/** What the library would be without a law, and how that shows. */
interface Breach {
  /** In an order of these statements … */
  readonly scene?: Scene | TwinScene;
  /** … where this is violated. */
  readonly violates?: RegExp;
  readonly rewrite?: Rewrite;
  /** Puts the fault in. */
  readonly commit?: () => void;
}

type Method = (...args: any[]) => any;

const undoing: (() => void)[] = [];

/** Until the test is over, a method (or a getter) is another one. */
function replace(target: object, name: string, by: (original: Method) => Method): void {
  const before = Object.getOwnPropertyDescriptor(target, name)!;
  const isGetter = before.get !== undefined;
  // oxlint-disable-next-line typescript/unbound-method -- called with an object each time
  const after = by((isGetter ? before.get : before.value) as Method);
  Object.defineProperty(target, name, isGetter ? { ...before, get: after } : { ...before, value: after });
  undoing.push(() => void Object.defineProperty(target, name, before));
}

const atOnce = (acts: string, others: readonly ('endAll' | 'load')[], situation: Scene['situation']): TwinScene => ({
  operations: [`at once: ${acts}`, ...others],
  situation,
  twin: { operations: [`in order: ${acts}`, ...others], situation },
});

/** Turn and queue as they would be without turns. */
const withoutTurns = (): void => {
  replace(
    TurnQueue.prototype,
    'add',
    () =>
      function (this: TurnQueue, start: () => Promise<unknown>) {
        return this.note(start());
      },
  );
};

const explored: Record<string, Breach> = {
  'law 2: a touch that writes the data, too': {
    scene: { operations: ['touch', 'set'], situation: 'signedIn' },
    rewrite: (sql) => sql.replace(/^(UPDATE.* SET )([`"]accessed[`"] =)/, '$1session_data = NULL, $2'),
    violates: /^B9/,
  },
  'law 4: a sign-in that leaves the old key a grace': {
    scene: { operations: ['login', 'load'], situation: 'anonymous' },
    commit: () =>
      replace(
        VisitWriter.prototype,
        'rekey',
        (rekey) =>
          function (this: VisitWriter, turn: Turn, change: object, key: string) {
            return rekey.call(this, turn, { isRenewal: true, ...change }, key);
          },
      ),
    violates: /^B24/,
  },
  'law 6: writes that take no turn, of entries': {
    scene: atOnce('update, login', [], 'anonymous'),
    commit: withoutTurns,
    violates: /^[BR]\d/,
  },
  'law 6: writes that take no turn, of keys': {
    scene: atOnce('login, renew', ['load'], 'anonymous'),
    commit: withoutTurns,
    violates: /^[BR]\d/,
  },
  'law 6: writes that take no turn, of whole visits': {
    scene: atOnce('login, update', [], 'new'),
    commit: withoutTurns,
    violates: /^[BR]\d/,
  },
  'law 7: a response that waits for nothing': {
    scene: { operations: ['answered first: update, save'], situation: 'anonymous' },
    commit: () =>
      replace(
        OutgoingResponse.prototype,
        'watch',
        (watch) =>
          function (this: OutgoingResponse, context: RequestContext, save: Method) {
            const start = (): undefined => void (save(context) as Promise<void> | undefined)?.catch(() => {});
            return watch.call(this, context, start);
          },
      ),
    violates: /^B10/,
  },
  'law 7: a sign-in whose key leaves before the checks': {
    scene: { operations: ['login', 'endAll'], situation: 'signedIn' },
    commit: () => {
      for (const name of ['storeCurrent', 'rekey']) {
        replace(
          VisitWriter.prototype,
          name,
          (write) =>
            function (this: VisitWriter, turn: Turn, change: object) {
              return write.call(this, turn, change, 'send');
            },
        );
      }
      // Nor is what the response was to say before brought back.
      replace(
        SignIn.prototype,
        'takeBack',
        (takeBack) =>
          function (this: SignIn, turn: Turn, reason: unknown, before: object, progress: object) {
            return takeBack.call(
              this,
              turn,
              reason,
              { ...before, outgoing: { ...turn.context.outgoing } },
              progress,
            ) as unknown;
          },
      );
    },
    violates: /^R39, R40: login \(0\) sent a key that the visit never had/,
  },
};

afterEach(() => {
  for (const undo of undoing.splice(0).toReversed()) undo();
});

describe('The explorer detects a violation of', () => {
  let database: OpenDatabase;
  let laboratory: Laboratory | undefined;

  beforeAll(async () => {
    database = await openDatabase('sqlite');
  });
  afterAll(async () => {
    await laboratory?.close();
    await database?.drop();
  });

  const run = async ({ scene, rewrite }: Breach, signal: AbortSignal): Promise<unknown> => {
    laboratory ??= await Laboratory.open('sqlite', database);
    try {
      return await explore(laboratory, scene!, { most: 60, twin: (scene as Partial<TwinScene>).twin, rewrite, signal });
    } catch (error) {
      // It may have left something under way.
      await laboratory.close();
      laboratory = undefined;
      return error;
    }
  };

  test.for(Object.entries(explored))('%s', async ([, breach], { signal }) => {
    expect(await run({ scene: breach.scene! }, signal)).toMatchObject({ orders: expect.any(Number) as number });
    breach.commit?.();
    const failure = await run(breach, signal);
    expect(failure).toBeInstanceOf(FailedOrder);
    expect((failure as FailedOrder).message).toMatch(breach.violates!);
  });
});

/** What is taken out, and a short play that shows it: by what somebody gets to see. */
interface Play<Where> {
  readonly play: (where: Where) => Promise<unknown>;
  readonly commit: () => void;
  /** What comes of it as the library is … */
  readonly sound: unknown;
  /** … and with the fault. */
  readonly faulty: unknown;
}

interface Stage {
  readonly process: Process;
  readonly gate: Gate;
  /** Begins a visit and gives its key. */
  readonly begin: () => Promise<string>;
}

const SECRET = 'what the one who signed in has written';
const secretOf = ({ session }: Process): unknown => session.get('secret');

/** Signs in with the key, which gives the visit another one, and writes something that the old key must not lead to. */
const signIn = ({ process }: Stage, key: string): Promise<unknown> =>
  process.request({ key }, async () => {
    await process.identity.login('Ann');
    process.session.set('secret', SECRET);
  });

/** The first statement of a kind waits for something else. */
const before = (gate: Gate, statement: RegExp, work: () => Promise<unknown>): void => {
  gate.pass = async (sql, execute) => {
    if (statement.test(sql)) {
      delete gate.pass;
      await work();
    }
    return execute(sql);
  };
};

const reloadsBlindly = (): void =>
  replace(
    SessionSaver.prototype,
    'reload',
    () =>
      async function (this: SessionSaver, { context }: Turn) {
        const { store } = this as unknown as {
          store: { find: (id: string) => Promise<{ sessionData: Uint8Array; sessionVersion: number }> };
        };
        const { sessionData, sessionVersion } = await store.find(context.visit.record.id);
        context.amend({ sessionData, sessionVersion });
        context.heldSession?.revert();
      },
  );

const plays: Record<string, Play<Stage>> = {
  'law 3: a queued save that takes over what another key has stored': {
    play: async (stage) => {
      const { process } = stage;
      const key = await stage.begin();
      const seen: unknown[] = [];
      let go!: () => void;
      const late = process.request({ key }, async () => {
        await new Promise<void>((resolve) => (go = resolve));
        await process.session.update('secret', (secret) => {
          seen.push(secret ?? null);
          return secret;
        });
      });
      const first = process.request({ key }, async () => {
        await process.identity.login('Ann');
        const saved = process.session.update('secret', () => SECRET);
        // Now: while this is being saved.
        go();
        await saved;
      });
      const { error } = await late;
      await first;
      return { error, seen };
    },
    commit: () =>
      replace(
        SessionSaver.prototype,
        'enqueue',
        (enqueue) =>
          function (this: SessionSaver, context: RequestContext, work: Method) {
            const { queues } = this as unknown as { queues: Map<string, Promise<{ keyHash: string } | undefined>> };
            const { id } = context.visit.record;
            const last = queues.get(id);
            if (last)
              queues.set(
                id,
                last.then((stored) => stored && { ...stored, keyHash: context.visit.key.hash }),
              );
            return enqueue.call(this, context, work);
          },
      ),
    sound: { error: 'VISIT_KEY_RETIRED', seen: [null] },
    faulty: { error: 'VISIT_KEY_RETIRED', seen: [null, SECRET] },
  },
  'law 4: a reload that does not ask whether the key is still good': {
    play: async (stage) => {
      const { process } = stage;
      const key = await stage.begin();
      const { error, value } = await process.request({ key }, async () => {
        await signIn(stage, key);
        await process.session.reload();
        return secretOf(process);
      });
      return error ?? value;
    },
    commit: reloadsBlindly,
    sound: 'VISIT_KEY_RETIRED',
    faulty: SECRET,
  },
  'law 4: exclusive access that loads without asking whether the key is still good': {
    play: async (stage) => {
      const { process, gate } = stage;
      const key = await stage.begin();
      // Its key is found good, it has the lock, and loads.
      before(gate, /^UPDATE.*lock_owner/, async () => {
        before(gate, /^SELECT/, () => signIn(stage, key));
      });
      const { error, value } = await process.request({ key, exclusive: true }, () => secretOf(process));
      return error ?? value;
    },
    commit: reloadsBlindly,
    sound: 'VISIT_KEY_RETIRED',
    faulty: SECRET,
  },
  'law 6: a write from within a write that waits for itself': {
    play: async ({ process }) => {
      let inner: string | undefined;
      const request = process.request({}, () =>
        process.session.update('counter', () => {
          const call = process.session.update('counter', () => 1);
          return Promise.race([
            call.catch((error: unknown) => (inner = (error as { code: string }).code)),
            // Nothing has to be waited for, so a refusal comes at once.
            turnOfTheLoop().then(() => (inner ??= 'still waiting')),
          ]);
        }),
      );
      await request;
      return inner;
    },
    commit: () =>
      replace(
        Turn,
        'take',
        () => (context: RequestContext, act: string, work: (turn: Turn) => Promise<unknown>) =>
          context.turns.add(async () => work(Reflect.construct(Turn, [context, act]) as Turn)),
      ),
    sound: 'VISIT_NESTED_CALL',
    faulty: 'still waiting',
  },
  'law 6: a group of inserts that fails as a whole': {
    play: async ({ process, gate }) => {
      let rows = 0;
      // As for one row among them that the database does not take.
      gate.pass = async (sql, execute) => {
        if (sql.startsWith('INSERT INTO "visit" ')) rows++;
        if (/^INSERT INTO "visit" .*\), \(/.test(sql)) throw new Error('one of them is refused');
        return execute(sql);
      };
      const begin = () => process.request({}, () => void process.session.set('a', 1));
      const answers = await Promise.all([begin(), begin()]);
      return { statuses: answers.map(({ status }) => status), rows: rows > 1 };
    },
    commit: () =>
      replace(
        Batcher.prototype,
        'askAgain',
        () =>
          async function (this: Batcher<unknown, unknown>, batch: object, _: unknown, [first]: [{ error: unknown }]) {
            const batcher = this as unknown as {
              reject: (batch: object, error: unknown) => void;
              leave: (batch: object) => void;
            };
            batcher.reject(batch, first.error);
            batcher.leave(batch);
          },
      ),
    sound: { statuses: [200, 200], rows: true },
    faulty: { statuses: [503, 503], rows: false },
  },
  'law 9: a look-up that fails is nobody': {
    play: async (stage) => {
      const { process, gate } = stage;
      const key = await stage.begin();
      await signIn(stage, key);
      gate.pass = () => Promise.reject(new Error('away'));
      const { status, value } = await process.request({ key }, () => ({ userId: process.identity.userId }));
      return { status, value };
    },
    commit: () =>
      replace(
        VisitResolver.prototype,
        'resolve',
        (resolve) =>
          function (this: VisitResolver, ...args: unknown[]) {
            return (resolve.apply(this, args) as Promise<unknown>).catch(() => NO_KEY);
          },
      ),
    sound: { status: 503, value: undefined },
    faulty: { status: 200, value: { userId: null } },
  },
};

describe('It detects a violation of', () => {
  let database: OpenDatabase;
  let dataSource: DataSource;
  let stage: Stage;
  let uncut: () => void;

  beforeAll(async () => {
    // So that its writes pass the gate as well.
    uncut = cutSqliteTransactions();
    database = await openDatabase('sqlite');
    dataSource = await openMigrated(database.options);
    const gate = gateOf(dataSource);
    const process = await Process.start({ dataSource });
    const begin = async (): Promise<string> =>
      (await process.request({}, () => void process.session.set('begun', true))).key!;
    stage = { process, gate, begin };
  });
  afterEach(() => {
    delete stage.gate.pass;
  });
  afterAll(async () => {
    await stage?.process.close();
    uncut();
    await dataSource?.destroy();
    await database?.drop();
  });

  test.for(Object.entries(plays))('%s', async ([, { play, commit, sound, faulty }]) => {
    expect(await play(stage)).toEqual(sound);
    delete stage.gate.pass;
    commit();
    expect(await play(stage)).toEqual(faulty);
  });
});

/** What the application itself got to see, by the user whose request it was. */
const seen = new Map<string, unknown>();
/** Goes on with the requests that wait. */
let goOn: (() => void) | undefined;

const attempt = (read: () => unknown): unknown => {
  try {
    return read();
  } catch (error) {
    return (error as { code?: string }).code;
  }
};

@Injectable()
class Eyes implements CanActivate {
  constructor(private readonly identity: IdentityService) {}

  canActivate(execution: { switchToHttp(): { getRequest(): { headers: Record<string, string> } } }): boolean {
    const whose = execution.switchToHttp().getRequest().headers['x-name']!;
    seen.set(
      whose,
      attempt(() => this.identity.userId),
    );
    return true;
  }
}

@Controller()
class SomeController {
  constructor(private readonly identity: IdentityService) {}

  @Get('login')
  async login(@Headers('x-name') name: string): Promise<string> {
    await this.identity.login(name);
    return name;
  }

  @Get('together')
  @UseGuards(Eyes)
  together(): string {
    return 'seen';
  }

  @Get('skipped')
  @SkipVisit()
  skipped(): unknown {
    return { userId: attempt(() => this.identity.userId) };
  }

  /** Somebody goes on after the response. */
  @Get('lasting')
  lasting(): string {
    outlasting = new Promise<void>((resolve) => (goOn = resolve)).then(() => attempt(() => this.identity.userId));
    return 'done';
  }
}

let outlasting: Promise<unknown> | undefined;

/** Two requests wait, and what goes on with both is one of them, as a pool of connections would. */
@Module({ controllers: [SomeController] })
class SomeModule implements NestModule {
  private readonly waiting: (() => void)[] = [];

  configure(consumer: MiddlewareConsumer): void {
    consumer
      .apply((_request: unknown, _response: unknown, next: () => void) => {
        this.waiting.push(next);
        if (this.waiting.length === 2) for (const one of this.waiting.splice(0)) one();
      })
      .forRoutes('together');
  }
}

const appPlays: Record<string, Play<RunningApp>> = {
  'law 8: a guard in the context of a request that it was called back in': {
    play: async (app) => {
      seen.clear();
      const names = ['Ann', 'Bob'];
      const browsers = await Promise.all(
        names.map(async (name) => {
          const browser = app.browser();
          const headers = { 'x-name': name };
          await browser.get('/login', { headers });
          return () => browser.get('/together', { headers });
        }),
      );
      await Promise.all(browsers.map((send) => send()));
      return names.every((name) => seen.get(name) === name);
    },
    commit: () =>
      replace(
        RequestStory.prototype,
        'within',
        () =>
          <T>(_: unknown, route: () => T) =>
            route(),
      ),
    sound: true,
    faulty: false,
  },
  'law 8: what outlasts its response and goes on as its user': {
    play: async (app) => {
      const browser = app.browser();
      await browser.get('/login', { headers: { 'x-name': 'Ann' } });
      const closed = new Promise((resolve) => (whenClosed = resolve));
      await browser.get('/lasting');
      await closed;
      goOn!();
      return outlasting;
    },
    commit: () => replace(RequestContext.prototype, 'isOver', () => () => false),
    sound: 'VISIT_NOT_RESOLVED',
    faulty: 'Ann',
  },
  'law 9: a handler with @SkipVisit() that knows its user': {
    play: async (app) => {
      const browser = app.browser();
      await browser.get('/login', { headers: { 'x-name': 'Ann' } });
      return JSON.parse((await browser.get('/skipped')).text) as unknown;
    },
    commit: () =>
      replace(
        CurrentRequest.prototype,
        'require',
        () =>
          function (this: CurrentRequest) {
            return this.scope!.context;
          },
      ),
    sound: { userId: 'VISIT_NOT_RESOLVED' },
    faulty: { userId: 'Ann' },
  },
};

/** The response of the last request has closed, and all that hears of it has. */
let whenClosed: (value?: unknown) => void = () => {};

describe.for(platforms)('It detects, under %s, a violation of', (platform: PlatformName) => {
  let database: OpenDatabase;
  let dataSource: DataSource;
  let app: RunningApp;

  beforeAll(async () => {
    database = await openDatabase('sqlite');
    dataSource = await openMigrated(database.options);
    app = await startApp(platform, { dataSource }, { imports: [SomeModule] });
    (app.app.getHttpServer() as Server).prependListener('request', (request, response) => {
      if (request.url === '/lasting') response.once('close', () => setImmediate(() => whenClosed()));
    });
  });
  afterAll(async () => {
    await app?.close();
    await dataSource?.destroy();
    await database?.drop();
  });

  test.for(Object.entries(appPlays))('%s', async ([, { play, commit, sound, faulty }]) => {
    expect(await play(app)).toEqual(sound);
    commit();
    expect(await play(app)).toEqual(faulty);
  });
});
