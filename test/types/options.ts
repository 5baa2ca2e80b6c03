import { expectTypeOf } from 'vitest';
import {
  MemoryVisitStore,
  VisitModule,
  nistPolicies,
  type Duration,
  type NewDataSource,
  type OpenDataSource,
  type VisitModuleOptions,
  type VisitSettings,
} from 'nest-visit';
import { VisitTestingModule } from 'nest-visit/testing';
import type { DataSource, DataSourceOptions } from 'typeorm';

// Compiled and never run: what an application may write, and, by errors that are expected, what it may not.

const store = new MemoryVisitStore();
declare const dataSource: DataSource;
declare const settings: VisitSettings;

export function places(): void {
  VisitModule.forRoot({ store });
  VisitModule.forRoot({ dataSource });
  VisitModule.forRoot({ dataSource: { type: 'mysql', url: 'mysql://localhost/shop' } });
  VisitModule.forRoot({ ...settings, ...nistPolicies.aal2, store });
  VisitModule.forRoot({ store, timeout: '20m', touch: { interval: 30_000 } });
  VisitModule.forRootAsync({ useFactory: () => ({ store }) });
  VisitModule.forRootAsync({
    useFactory: async () => ({ dataSource: { type: 'postgres', url: 'postgres://localhost/shop' }, timeout: '8h' }),
  });
  VisitTestingModule.forRoot({ timeout: '1h' });

  // @ts-expect-error: it is not said where visits are kept
  VisitModule.forRoot({});
  // @ts-expect-error: nor here
  VisitModule.forRoot({ timeout: '20m' });
  // @ts-expect-error: one of both
  VisitModule.forRoot({ dataSource, store });
  // @ts-expect-error: TypeORM has no such type
  VisitModule.forRoot({ dataSource: { type: 'mysqll', url: 'mysql://localhost/shop' } });
  // @ts-expect-error: nor such an option
  VisitModule.forRoot({ dataSource: { type: 'mysql', adress: 'mysql://localhost/shop' } });
  // @ts-expect-error: there is no such option
  VisitModule.forRoot({ store, timeuot: '20m' });
  // @ts-expect-error: nor such a part of one
  VisitModule.forRoot({ store, cookie: { nmae: 'visit' } });
  // @ts-expect-error: a factory says it, too
  VisitModule.forRootAsync({ useFactory: () => ({ timeout: '20m' as const }) });
  // @ts-expect-error: visits of tests are in memory
  VisitTestingModule.forRoot({ dataSource });
}

expectTypeOf<DataSource>().toExtend<OpenDataSource>();
expectTypeOf<NewDataSource>().toEqualTypeOf<DataSourceOptions>();
expectTypeOf<VisitSettings>().toExtend<Omit<VisitModuleOptions, 'dataSource' | 'store'>>();

export const durations: Duration[] = [
  30_000,
  '30s',
  '1.5h',
  '7 d',
  '250ms',
  '2w',
  // @ts-expect-error: not a unit
  '20 minutes',
  // @ts-expect-error: no unit
  '20',
  // @ts-expect-error: no number
  'ten s',
  // @ts-expect-error: nothing
  '',
];
