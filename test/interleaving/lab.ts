import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { DefaultSessionSerializer, type VisitRecord } from 'nest-visit';
import { TypeOrmVisitStore, visitEntities, visitMigrations } from 'nest-visit/typeorm';
import { DataSource } from 'typeorm';
import { VisitKey } from '../../lib/key/visit-key.js';
import type { DatabaseName, OpenDatabase } from '../support/databases.js';
import { digestOf, type Digest } from './digest.js';
import { cutSqliteTransactions, gateOf, type Gate } from './gate.js';
import { checkEnding, checkStep, MissingEvent, type Ending } from './invariants.js';
import { Monitor, type Sample } from './monitor.js';
import {
  INITIAL,
  operationOf,
  timeOf,
  type OperationName,
  type Outcome,
  type Situation,
  type World,
} from './operations.js';
import { Conductor, type Course, type CourseOptions, type Part } from './order.js';
import { codeOf, Process, TIMEOUT, type Told } from './process.js';
import { created } from '../../lib/store/visit.record.js';

/** Which operations run side by side, and from where. */
export interface Scene {
  readonly operations: readonly OperationName[];
  readonly situation: Situation;
}

/** An order as it is printed when it fails, to be run again. */
export interface Order extends Scene {
  /** Statements are not the same everywhere, and so neither are their orders. */
  readonly database: DatabaseName;
  readonly schedule: readonly number[];
}

/** A guard that is taken out: the statement as the database gets it. */
export type Rewrite = (sql: string) => string;

export type RunOptions = Pick<CourseOptions, 'schedule' | 'choose' | 'skipReads' | 'signal'> & {
  readonly rewrite?: Rewrite | undefined;
};

interface Lab {
  readonly process: Process;
  readonly dataSource: DataSource;
  readonly gate: Gate;
  readonly connection: number;
}

/** How long an event that is missing is waited for, only to say whether it is lost. In milliseconds. */
const LATE = 10_000;

/** Why an order fails, with all that is needed to see it again. */
export class FailedOrder extends Error {}

/** Three processes with a connection each, and somebody who watches, on one database. */
export class Laboratory {
  private constructor(
    readonly database: DatabaseName,
    private readonly labs: readonly Lab[],
    private readonly observer: Process,
    private readonly monitor: Monitor,
    private readonly store: TypeOrmVisitStore,
    private readonly closers: readonly (() => unknown)[],
  ) {}

  static async open(name: DatabaseName, { options }: OpenDatabase): Promise<Laboratory> {
    const closers: (() => unknown)[] = [];
    const connect = async (more: object = {}): Promise<DataSource> => {
      // Otherwise PostgreSQL's pool gives up its connection after ten seconds, and takes one of another number.
      const extra = { ...(options.extra as object), ...(name === 'postgres' ? { idleTimeoutMillis: 0 } : {}) };
      // The timeout is SQLite's for locks. Whoever would wait for one is not let go, see order.ts.
      const single = { ...options, extra, poolSize: 1, timeout: 0, entities: visitEntities, ...more };
      const dataSource = await new DataSource(single as never).initialize();
      closers.unshift(() => dataSource.destroy());
      // Whoever waits for a lock waits until an order lets the other one go on.
      if (name === 'mariadb') await dataSource.query('SET SESSION innodb_lock_wait_timeout = 100000');
      return dataSource;
    };
    const start = async (dataSource: DataSource): Promise<Process> => {
      const process = await Process.start({ dataSource });
      closers.unshift(() => process.close());
      return process;
    };
    if (name === 'sqlite') closers.push(cutSqliteTransactions());
    const watching = await connect({ migrations: visitMigrations, migrationsRun: true });
    const monitor = new Monitor(name, watching);
    const labs: Lab[] = [];
    for (let slot = 0; slot < 3; slot++) {
      const dataSource = await connect();
      labs.push({
        dataSource,
        gate: gateOf(dataSource),
        process: await start(dataSource),
        connection: await monitor.connectionOf(dataSource),
      });
    }
    return new Laboratory(name, labs, await start(watching), monitor, new TypeOrmVisitStore(watching), closers);
  }

  async close(): Promise<void> {
    for (const close of this.closers) await close();
  }

  /** Runs one order and checks it. What it came to, see `digestOf`, is known besides. @throws FailedOrder */
  async run(scene: Scene, options: RunOptions): Promise<Course & { readonly digest: Digest }> {
    // Whether a statement has been sent since the last sample was taken.
    let isUnderWay = false;
    const world = { ...(await this.begin(scene.situation)), steps: () => samples.length - 1 + Number(isUnderWay) };
    const rewrite: Rewrite = (sql) => {
      isUnderWay = true;
      return options.rewrite?.(sql) ?? sql;
    };
    const names = scene.operations;
    const outcomes: Outcome[] = [];
    const samples: Sample[] = [await this.monitor.sample()];
    const trace: string[] = [];
    const actors: number[] = [];
    const movers: (readonly number[])[] = [];
    const parts = names.map((name, slot): Part => {
      const { process, gate, connection } = this.labs[slot]!;
      process.clock.set(timeOf(name, world, slot));
      return {
        gate,
        connection,
        run: async () => {
          outcomes[slot] = await operationOf(name)
            .run(process, world, slot)
            .catch((error: unknown) => ({ error: codeOf(error) }));
        },
      };
    });
    try {
      const course = await new Conductor(parts, {
        database: this.database,
        monitor: this.monitor,
        ...options,
        rewrite,
        onStep: async ({ actor, sql, moved }) => {
          actors.push(actor);
          movers.push(moved);
          const freed = moved.slice(1).map((slot) => `, which lets ${names[slot]} (${slot}) go on`);
          trace.push(`${names[actor]} (${actor})${freed.join('')}: ${sql.replace(/\s+/g, ' ').slice(0, 160)}`);
          samples.push(await this.monitor.sample());
          isUnderWay = false;
          checkStep(world, names, moved, samples.at(-2)!, samples.at(-1)!);
        },
      }).run();
      const told = this.takeTold();
      const ending: Ending = {
        world,
        names,
        outcomes,
        samples,
        moved: movers,
        told,
        bearers: await this.bearers(world, outcomes),
      };
      try {
        checkEnding(ending);
      } catch (error) {
        if (!(error instanceof MissingEvent) || !(await this.isToldLate())) throw error;
        throw new Error(`${error.message}, but late: after the last answer`, { cause: error });
      }
      return { ...course, digest: (without) => digestOf(ending, without) };
    } catch (error) {
      throw new FailedOrder(this.report(error as Error, scene, actors, trace, outcomes), { cause: error });
    } finally {
      await this.tidy(samples);
    }
  }

  private async begin(situation: Situation): Promise<Omit<World, 'steps'>> {
    const start = 1_900_000_000_000;
    const key = VisitKey.create();
    const user = `user ${randomBytes(4).toString('hex')}`;
    const visit: VisitRecord = created({
      id: key.id,
      keyHash: key.hash,
      created: start,
      expiry: start + TIMEOUT,
      sessionData: new DefaultSessionSerializer().encode(new Map(Object.entries(INITIAL))),
      identity: situation === 'anonymous' ? null : { userId: user, created: start, authenticatedAt: start },
    });
    if (situation !== 'new') await this.store.create([visit]);
    return { start, visitId: key.id, key: key.text, user, situation };
  }

  private takeTold(): Told[] {
    return this.labs.flatMap(({ process }) => process.takeTold());
  }

  /** Whether the plugins are told something more: what is late is another fault than what is lost. */
  private async isToldLate(): Promise<boolean> {
    const heard = Promise.race(this.labs.map(({ process }) => process.hears()));
    await Promise.race([heard, pause(LATE)]);
    return this.takeTold().length > 0;
  }

  private async bearers(world: World, outcomes: readonly Outcome[]): Promise<Map<string, string | null | undefined>> {
    const { observer } = this;
    observer.clock.set(timeOf('load', world));
    const bearers = new Map<string, string | null | undefined>();
    for (const key of [world.key, ...outcomes.flatMap(({ key: sent }) => sent ?? [])]) {
      const { value, visitId } = await observer.request({ key, passive: true }, () => observer.identity.userId);
      bearers.set(key, key.startsWith(visitId ?? '-') ? value : undefined);
    }
    return bearers;
  }

  private async tidy(samples: readonly Sample[]): Promise<void> {
    this.takeTold();
    for (const { process } of this.labs) {
      for (const sample of samples) for (const id of sample.keys()) process.touches.forget(id);
    }
    await this.monitor.empty();
  }

  private report(
    error: Error,
    { operations, situation }: Scene,
    actors: readonly number[],
    trace: readonly string[],
    outcomes: readonly Outcome[],
  ): string {
    const order = `{ database: '${this.database}', operations: [${operations.map((name) => `'${name}'`).join(', ')}], situation: '${situation}', schedule: [${actors.join(', ')}] }`;
    return [
      error.message,
      '',
      'To see it again, put this into KNOWN_ORDERS of test/interleaving/orders.ts:',
      `  ${order},`,
      '',
      ...trace,
      ...operations.map(
        (name, slot) => `${name} (${slot}) ends with ${JSON.stringify(outcomes[slot] ?? 'nothing yet')}`,
      ),
    ].join('\n');
  }
}
