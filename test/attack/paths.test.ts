import { Controller, Get, Param, UseGuards, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { IdentityService, MemoryVisitStore, RequireIdentity, UseVisit, VisitModule, VisitService } from 'nest-visit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { send } from '../fuzz/wire.js';
import { platforms, type PlatformName } from '../support/app.js';
import { ofToday } from '../support/today.js';
import { target } from './target.js';

/** The guard that the documentation shows. */
class OwnGuard implements CanActivate {
  constructor(
    private readonly visits: VisitService,
    private readonly identity: IdentityService,
  ) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    await this.visits.resolve(execution);
    return this.identity.userId !== null;
  }
}
Reflect.defineMetadata('design:paramtypes', [VisitService, IdentityService], OwnGuard);

@Controller('admin')
@RequireIdentity()
class AdminController {
  @Get()
  all() {
    return 'the vault is open';
  }

  @Get('files/:name')
  file(@Param('name') name: string) {
    return `the vault is open: ${name}`;
  }
}

@Controller('own')
@UseGuards(OwnGuard)
class OwnController {
  @Get()
  all() {
    return 'the vault is open';
  }
}

@Controller('app')
@UseVisit({ path: '/app' })
class PathController {
  constructor(private readonly identity: IdentityService) {}

  @Get('enter')
  enter() {
    return this.identity.login('Ann');
  }

  @Get('enter/:name')
  enterBy() {
    return this.identity.login('Ann');
  }
}

/** `/a/b` spelled in ways that some router, proxy or file system takes for the same. */
const SPELLINGS: ((path: string) => string)[] = [
  (path) => path,
  (path) => `${path}/`,
  (path) => `${path}//`,
  (path) => `/${path}`,
  (path) => `//${path}`,
  (path) => path.replace('/', '/./'),
  (path) => `/x/..${path}`,
  (path) => `/.${path}`,
  (path) => `${path}/.`,
  (path) => `${path}/x/..`,
  (path) => path.toUpperCase(),
  (path) => path.replace(/[a-z]/, (letter) => letter.toUpperCase()),
  (path) => path.replace(/[a-z]/, (letter) => `%${letter.charCodeAt(0).toString(16)}`),
  (path) => path.replaceAll(/[a-z]/g, (letter) => `%${letter.charCodeAt(0).toString(16)}`),
  (path) => path.replace(/[a-z]/, (letter) => `%25${letter.charCodeAt(0).toString(16)}`),
  (path) => `/${path.slice(1).replaceAll('/', '%2f')}`,
  (path) => path.replaceAll('/', '%2F'),
  (path) => path.replaceAll('/', '\\'),
  (path) => `/%2e${path}`,
  (path) => `/%2f${path}`,
  (path) => `${path}%2f`,
  (path) => `${path}%00`,
  (path) => `${path}%20`,
  (path) => `${path}%0a`,
  (path) => `${path};x=1`,
  (path) => `${path};/x`,
  (path) => path.replace('/', '/;/'),
  (path) => `${path}.json`,
  (path) => `${path}?x=/me`,
  (path) => `${path}#/me`,
  (path) => `${path}%3fx`,
  (path) => `http://localhost${path}`,
  (path) => `http://localhost:1/${path}`,
  (path) => `${path}?_method=GET&/me`,
];

/** As an attacker asks: methods, too, can be written in several places. */
const MANNERS: readonly [method: string, headers: string][] = [
  ['GET', ''],
  ['HEAD', ''],
  ['GET', 'X-Original-URL: /me\r\n'],
  ['GET', 'X-Rewrite-URL: /me\r\nX-Forwarded-Prefix: /me\r\n'],
  ['POST', 'X-HTTP-Method-Override: GET\r\n'],
];

/** Routers take more for the same path when they are told to. */
const routers: Record<string, Record<PlatformName, () => ExpressAdapter | FastifyAdapter>> = {
  'with their defaults': { express: () => new ExpressAdapter(), fastify: () => new FastifyAdapter() },
  'that are lenient': {
    express: () => new ExpressAdapter(),
    fastify: () =>
      new FastifyAdapter({
        routerOptions: {
          ignoreTrailingSlash: true,
          ignoreDuplicateSlashes: true,
          caseSensitive: false,
          ...({ useSemicolonDelimiter: true } as object),
        },
      }),
  },
};

describe.each(platforms)('Paths under %s', (platform) => {
  describe.each(Object.keys(routers))('with routers %s', (kind) => {
    // With and without a prefix by turns: on any day, each platform and each kind of router has both.
    const shift = platforms.indexOf(platform) + Object.keys(routers).indexOf(kind);

    describe.each(ofToday(['', 'api'], shift))('and the prefix "%s"', (prefix) => {
      let app: Awaited<ReturnType<typeof open>>;
      let port: number;
      let key: string;

      async function open() {
        const module = await Test.createTestingModule({
          imports: [
            VisitModule.forRoot({
              store: new MemoryVisitStore(),
              expunge: { schedule: false },
              wipe: { schedule: false },
            }),
          ],
          controllers: [...target.controllers, AdminController, OwnController, PathController],
          providers: target.providers,
        })
          .setLogger(false as never)
          .compile();
        const nest = module.createNestApplication(routers[kind]![platform]() as ExpressAdapter, { logger: false });
        if (prefix) nest.setGlobalPrefix(prefix);
        await nest.listen(0, '127.0.0.1');
        return nest;
      }

      beforeAll(async () => {
        app = await open();
        port = Number(new URL(await app.getUrl()).port);
        key = (await app.get(VisitService).create({ userId: 'Ann' })).key;
      });
      afterAll(() => app?.close());

      const ask = (method: string, path: string, headers: string) =>
        send(
          port,
          Buffer.from(
            `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n${headers}\r\n`,
            'latin1',
          ),
        );

      test('B30: for any spelling of a path, the guard runs before the handler', async () => {
        const reached = new Set<string>();
        for (const path of ['/admin', '/admin/files/a', '/own'].map((one) => (prefix ? `/${prefix}${one}` : one))) {
          for (const spelled of SPELLINGS.map((spell) => spell(path))) {
            // One handler is enough for the other manners.
            for (const [method, headers] of path.endsWith('/admin') ? MANNERS : MANNERS.slice(0, 1)) {
              const { status, body } = await ask(method, spelled, headers);
              expect(body, `${method} ${spelled}`).not.toContain('vault');
              expect([400, 401, 403, 404], `${method} ${spelled}`).toContain(status);
            }
            const { status, body } = await ask('GET', spelled, `Cookie: visit=${key}\r\n`);
            if (status === 200 && body.includes('vault')) reached.add(spelled);
          }
        }
        // Several spellings do lead there, for who may.
        expect(reached.size).toBeGreaterThan(6);
      });

      test('B30, R17: the path of a cookie is that of the options or the handler, for any request', async () => {
        const path = (one: string): string => (prefix ? `/${prefix}${one}` : one);
        const paths = [
          path('/app/enter'),
          path('/app/enter/a;Path=%2f;Domain=evil.example'),
          path('/app/enter/%0d%0aSet-Cookie:%20a=b'),
          `${path('/app/enter')}?path=/evil;Path=/evil`,
          `http://evil.example${path('/app/enter')}`,
        ];
        const cookies = [];
        for (const one of paths) {
          const { head } = await ask('GET', one, 'X-Forwarded-Prefix: /evil\r\nX-Forwarded-Host: evil.example\r\n');
          cookies.push(
            ...[...head.matchAll(/^set-cookie: (.*)$/gim)].map(([, cookie]) =>
              cookie!.trim().replace(/=[^;]*/, '=key'),
            ),
          );
        }
        expect(cookies.length).toBeGreaterThanOrEqual(4);
        expect([...new Set(cookies)]).toEqual(['visit=key; Path=/app; HttpOnly; SameSite=Lax']);
      });
    });
  });
});
