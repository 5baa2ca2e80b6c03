import { visitEntities, visitMigrations, type TypeOrmVisitStore } from 'nest-visit/typeorm';
import { DataSource } from 'typeorm';
import { VisitKey } from '../../lib/key/visit-key.js';
import { Monitor } from '../interleaving/monitor.js';
import { Process, TOUCH_INTERVAL, type Told } from '../interleaving/process.js';
import type { DatabaseName, OpenDatabase } from '../support/databases.js';
import { expectBetween, expectSame } from './expectations.js';
import { ABSOLUTE_TIMEOUT, PERMANENT_TIMEOUT, type Model } from './model.js';

/** Two processes on one database, whose clocks are one. */
export class World {
  private lastFlush: number;

  private constructor(
    readonly processes: readonly [Process, Process],
    private readonly monitor: Monitor,
    private readonly closers: readonly (() => unknown)[],
  ) {
    this.lastFlush = this.now;
  }

  /** `storeOf`: another store than the library's own. */
  static async open(
    name: DatabaseName,
    { options }: OpenDatabase,
    storeOf?: (dataSource: DataSource) => TypeOrmVisitStore,
  ): Promise<World> {
    const closers: (() => unknown)[] = [];
    const connect = async (more: object = {}): Promise<DataSource> => {
      const dataSource = await new DataSource({ ...options, entities: visitEntities, ...more }).initialize();
      closers.unshift(() => dataSource.destroy());
      return dataSource;
    };
    const start = async (dataSource: DataSource): Promise<Process> => {
      const where = storeOf ? { store: storeOf(dataSource) } : { dataSource };
      const lifetimes = { permanentTimeout: PERMANENT_TIMEOUT, absoluteTimeout: ABSOLUTE_TIMEOUT };
      const process = await Process.start({ ...where, ...lifetimes });
      closers.unshift(() => process.close());
      return process;
    };
    const first = await connect({ migrations: visitMigrations, migrationsRun: true });
    const processes = [await start(first), await start(await connect())] as const;
    processes[1].clock.set(processes[0].clock.now());
    return new World(processes, new Monitor(name, first), closers);
  }

  get now(): number {
    return this.processes[0].clock.now();
  }

  async close(): Promise<void> {
    for (const close of this.closers) await close();
  }

  /** Time goes by. The timers of the processes do not follow this clock, so what they would do is done here. */
  async wait(model: Model, milliseconds: number): Promise<void> {
    if (this.now + milliseconds - this.lastFlush >= TOUCH_INTERVAL) await this.flush();
    model.now = this.now + milliseconds;
    for (const { clock } of this.processes) clock.set(model.now);
  }

  /**
   * Nothing happens twice in one millisecond. Where it is for the library to say whether a visit has expired, the model
   * takes note.
   */
  async next(model: Model): Promise<void> {
    await this.wait(model, 1);
    for (const visit of model.visits.filter((one) => model.isUncertain(one))) {
      const found = await this.processes[0].visits.find(visit.id!);
      const expiry = found?.expiry.getTime();
      expectBetween('R22: expiry', expiry, visit.expiresFrom, visit.expiresUntil);
      visit.expiresFrom = visit.expiresUntil = expiry!;
    }
  }

  async flush(): Promise<void> {
    this.lastFlush = this.now;
    for (const { visits } of this.processes) await visits.flush();
  }

  takeTold(): Told[] {
    return this.processes.flatMap((process) => process.takeTold());
  }

  /** The tables are what the history must have left. */
  async compare(model: Model): Promise<void> {
    await this.next(model);
    await this.flush();
    const rows = await this.monitor.sample();
    const hashOf = (text: string | undefined): string | null => VisitKey.parse(text)?.hash ?? null;
    expectSame([...rows.keys()].sort(), model.known.map(({ id }) => id!).sort(), 'R61: the visits that there are');
    for (const visit of model.known) {
      const row = rows.get(visit.id!)!;
      // A key that nobody was given cannot be compared.
      const isPreviousSeen = !visit.previous || visit.previous.text !== undefined;
      const isCurrentSeen = visit.current.text !== undefined;
      const {
        keyHash,
        previousKeyHash,
        created,
        absoluteExpiry,
        permanent,
        userId,
        authenticatedAt,
        endedAt,
        endReason,
        data,
      } = row;
      expectSame(
        {
          keyHash: isCurrentSeen && keyHash,
          previousKeyHash: isPreviousSeen && previousKeyHash,
          created,
          absoluteExpiry,
          permanent,
          userId,
          authenticatedAt,
          endedAt,
          endReason,
          data,
        },
        {
          keyHash: isCurrentSeen && hashOf(visit.current.text),
          previousKeyHash: isPreviousSeen && hashOf(visit.previous?.text),
          created: visit.created,
          absoluteExpiry: visit.absoluteExpiry,
          permanent: visit.permanent,
          userId: visit.user,
          authenticatedAt: visit.authenticatedAt,
          endedAt: visit.ended?.at ?? null,
          endReason: visit.ended?.reason ?? null,
          data: visit.data.size === 0 ? null : Object.fromEntries(visit.data),
        },
        `the row of visit ${visit.id}`,
      );
      // A touch that waits for a visit that ends is void.
      expectBetween('R22: expiry', row.expiry, visit.ended ? 0 : visit.expiresFrom, visit.expiresUntil);
    }
    for (const user of ['Ann', 'Bob'] as const) {
      for (const { visits } of this.processes) {
        const found = (await visits.listForUser(user)).map(({ id }) => id);
        const live = model.liveOf(user).map(({ id }) => id!);
        expectSame(found.sort(), live.sort(), `R42: the visits of ${user}`);
      }
    }
  }

  async tidy(): Promise<void> {
    await this.flush();
    await this.monitor.empty();
    this.takeTold();
  }
}
