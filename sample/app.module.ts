import { Module } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import { CsrfGuard, VisitModule } from 'nest-visit';
import { visitMigrations } from 'nest-visit/typeorm';
import { environment } from './environment.js';
import { BrowserCount } from './features/browser-count.plugin.js';
import { CounterService } from './features/counter.service.js';
import { GuestbookController } from './features/guestbook.controller.js';
import { HomeController } from './features/home.controller.js';
import { PreferencesController } from './features/preferences.controller.js';
import { SignInController } from './features/sign-in.controller.js';
import { VisitsController } from './features/visits.controller.js';
import { WithoutCookiesController } from './features/without-cookies.controller.js';
import { findUser } from './users.js';
import { AssetsController } from './web/assets.controller.js';
import { ConnectionCloser } from './web/connection-closer.js';
import { Pages } from './web/pages.js';
import { ProblemFilter } from './web/problem.filter.js';

@Module({
  imports: [
    VisitModule.forRoot({
      // The tables come from the library's migrations. An application runs its own beside them, each in a transaction.
      dataSource: {
        ...environment.database.options,
        migrations: visitMigrations,
        migrationsRun: true,
        migrationsTransactionMode: 'each',
      },
      // Visits end after 20 minutes without a request; those of "remember me" are kept for a month.
      permanentTimeout: '30d',
      // Only the page "Without cookies" needs more than 'cookie', the default.
      source: 'cookie, form',
      identity: { loadUser: findUser },
    }),
  ],
  controllers: [
    HomeController,
    PreferencesController,
    SignInController,
    VisitsController,
    GuestbookController,
    WithoutCookiesController,
    AssetsController,
  ],
  providers: [
    CounterService,
    BrowserCount,
    Pages,
    ConnectionCloser,
    // Every change here is a POST, and none is taken from a page of another site.
    { provide: APP_GUARD, useExisting: CsrfGuard },
    { provide: APP_FILTER, useClass: ProblemFilter },
  ],
})
export class AppModule {}
