// The small application of the matrix: what it shows is in ../../visit.mjs and ../test/app.spec.ts.
import 'reflect-metadata';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Controller, Get, Injectable, Module, Post, Res, UseGuards, type CanActivate } from '@nestjs/common';
import {
  CsrfGuard,
  CurrentUserId,
  CurrentVisit,
  ExclusiveSession,
  IdentityService,
  RequireIdentity,
  Session,
  VisitModule,
  VisitPlugin,
  VisitService,
  type VisitPluginHooks,
  type VisitSummary,
} from 'nest-visit';
import type { DataSource } from 'typeorm';

/** As code in the folder of the application would: a bundle lies elsewhere. */
export const requireHere = createRequire(join(process.cwd(), 'package.json'));

@Injectable()
export class Counter {
  constructor(private readonly session: Session) {}

  add(): number {
    this.session.count = (this.session.count ?? 0) + 1;
    return this.session.count;
  }
}

@VisitPlugin()
export class Visitors implements VisitPluginHooks {
  count = 0;
  onNewVisit(visit: CurrentVisit): void {
    if (visit.isNew) this.count++;
  }
}

/** Never called: it compiles with this version of TypeORM. */
export const withOpenDataSource = (dataSource: DataSource): unknown => VisitModule.forRoot({ dataSource });

/** Nothing to await: the visit is known before guards. */
@Injectable()
class SignedIn implements CanActivate {
  constructor(private readonly identity: IdentityService) {}

  canActivate(): boolean {
    return this.identity.userId !== null;
  }
}

@Controller()
export class AppController {
  constructor(
    private readonly counter: Counter,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly visitors: Visitors,
  ) {}

  @Get()
  home(@Session() session: Session<{ name: string }>, @CurrentVisit() visit: CurrentVisit): string {
    const name: string = session.get('name', 'nobody');
    return `${this.counter.add()} ${name} ${visit.id.length} ${this.visitors.count}`;
  }

  @Post('login')
  @ExclusiveSession()
  async login(): Promise<void> {
    await this.identity.login(7);
  }

  @Get('visits')
  @RequireIdentity()
  list(@CurrentUserId() userId: string): Promise<VisitSummary[]> {
    return this.visits.listForUser(userId);
  }

  /** Saves nothing itself: the response waits for what was changed before, see the platform. */
  @Get('early')
  early(@Res() response: { status(code: number): { redirect(address: string): void } }): void {
    // Nest gives responses of Fastify another status before.
    response.status(302).redirect('/late');
  }

  @Get('late')
  late(@Session() session: Session<{ early: string }>): string {
    return session.get('early', 'nothing');
  }

  @Get('mine')
  @UseGuards(SignedIn)
  mine(): string {
    return 'mine';
  }

  @Post('logout')
  @UseGuards(CsrfGuard)
  logout(): Promise<void> {
    return this.identity.logout();
  }
}

/**
 * It is native code, which no bundle can hold. TypeORM before 0.3.28 calls it without new, which better-sqlite3 permits
 * and libsql does not.
 */
function driver(file: string, options: object): object {
  return new (requireHere('libsql'))(file, options);
}

export const parts = { controllers: [AppController], providers: [Counter, Visitors] };

@Module({
  imports: [
    VisitModule.forRoot({ dataSource: { type: 'better-sqlite3', driver, database: ':memory:', migrationsRun: true } }),
  ],
  ...parts,
})
export class AppModule {}
