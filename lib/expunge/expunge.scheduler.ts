import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
} from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { CronJob } from 'cron';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { withDeadline } from '../store/deadline.js';
import { ExpungeService } from './expunge.service.js';
import { reasonOf } from '../errors/failure.js';

/** How long shutdown waits for the current batch, in milliseconds. */
const LONGEST_BATCH = 2000;

/** The part of the `SchedulerRegistry` of `@nestjs/schedule` that the library uses. */
interface Registry {
  addCronJob(name: string, job: CronJob): void;
  deleteCronJob(name: string): void;
  doesExist(type: 'cron', name: string): boolean;
}

/**
 * Runs the clean-up on its schedules, never inside a request. The jobs are registered with the host's scheduler if
 * it has one. Importing `ScheduleModule` here instead would make every `@Cron()` of the host run twice.
 */
@Injectable()
export class ExpungeScheduler implements OnApplicationBootstrap, OnModuleDestroy, BeforeApplicationShutdown {
  private readonly logger = new Logger('Visit');
  private readonly jobs = new Map<string, CronJob>();
  private registry: Registry | undefined;
  private running = new Set<Promise<void>>();

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(ExpungeService) private readonly expunge: ExpungeService,
    @Inject(ModuleRef) private readonly modules: ModuleRef,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    this.registry = await this.findRegistry();
    this.schedule('nest-visit:expunge', this.options.expunge.schedule, async () => {
      const { visits, identities } = await this.expunge.run();
      if (visits > 0) this.logger.log(`Expunged ${visits} visits and ${identities} identities`);
    });
    this.schedule('nest-visit:wipe', this.options.wipe.schedule, async () => {
      const wiped = await this.expunge.wipeExpired();
      if (wiped > 0) this.logger.log(`Wiped the session data of ${wiped} expired visits`);
    });
  }

  /** Stops running clean-up after its batch, without waiting: other writes at shutdown come first. */
  onModuleDestroy(): void {
    this.expunge.stop();
    for (const [name, job] of this.jobs) {
      void Promise.resolve(job.stop()).catch(() => {});
      if (this.registry?.doesExist('cron', name)) this.registry.deleteCronJob(name);
    }
    this.jobs.clear();
  }

  /** The data source may be closed after this. A batch that hangs is abandoned. */
  async beforeApplicationShutdown(): Promise<void> {
    await withDeadline(Promise.all(this.running), LONGEST_BATCH).catch(() =>
      this.logger.warn('The application is shutting down while a clean-up batch is still running in the store'),
    );
  }

  private schedule(name: string, expression: string | false, work: () => Promise<void>): void {
    if (expression === false) return;
    const onTick = async (): Promise<void> => {
      const run = work().catch((error: unknown) =>
        this.logger.error(`${name} failed and will be tried again: ${reasonOf(error)}`),
      );
      this.running.add(run);
      await run;
      this.running.delete(run);
    };
    // unrefTimeout: a schedule does not keep the process alive. waitForCompletion: a long run is not overtaken by the
    // next.
    const job = CronJob.from({
      name,
      cronTime: expression,
      onTick,
      unrefTimeout: true,
      waitForCompletion: true,
      start: true,
    });
    this.jobs.set(name, job);
    this.registry?.addCronJob(name, job);
  }

  private async findRegistry(): Promise<Registry | undefined> {
    try {
      const { SchedulerRegistry } = await import('@nestjs/schedule');
      return this.modules.get(SchedulerRegistry, { strict: false });
    } catch {
      return undefined; // Not installed, or not imported by the host: the jobs run by themselves.
    }
  }
}
