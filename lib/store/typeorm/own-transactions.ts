import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntitySubscriberInterface, QueryRunner } from 'typeorm';
import { VisitOpenTransactionError } from '../../errors/visit.error.js';

/** What has begun a transaction that code runs in. */
interface Running {
  readonly owner: OwnTransactions;
  readonly queryRunner: QueryRunner;
}

/**
 * One for all data sources of the process: Node carries each storage that is in use along with every promise, whatever
 * the promise is for. A transaction of one data source may run within that of another.
 */
const running = new AsyncLocalStorage<readonly Running[]>();

/** For how many data sources it is in use. */
let users = 0;

/**
 * Tracks the application's transactions if the pool has one connection: a call inside one that needs a connection would
 * wait for itself until its deadline, and delay all other requests. Code is inside a transaction from the call that
 * begins it, including calls that it does not await.
 */
export class OwnTransactions {
  private readonly subscriber: EntitySubscriberInterface = {
    // TypeORM calls it before it waits for anything: so the asynchronous context is that of whoever begins the
    // transaction, and goes on in all that they call from there.
    beforeTransactionStart: ({ queryRunner }) =>
      running.enterWith([...open().filter((one) => one.queryRunner !== queryRunner), { owner: this, queryRunner }]),
  };

  private isClosed = false;

  constructor(private readonly dataSource: DataSource) {
    this.subscribe();
    users++;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    // A data source that was initialized again has other subscribers.
    const { subscribers } = this.dataSource;
    const index = subscribers.indexOf(this.subscriber);
    if (index >= 0) subscribers.splice(index, 1);
    if (--users === 0) running.disable();
  }

  private subscribe(): void {
    const { subscribers } = this.dataSource;
    if (!subscribers.includes(this.subscriber)) subscribers.push(this.subscriber);
  }

  /** @throws VisitOpenTransactionError in the asynchronous context of a transaction that has not ended */
  refuse(): void {
    // A data source that was initialized again has forgotten its subscribers. Until the next call of the store, it tells
    // of no transactions.
    if (!this.isClosed) this.subscribe();
    if (open().some(({ owner }) => owner === this)) throw new VisitOpenTransactionError();
  }
}

/** Those that have not ended. */
function open(): readonly Running[] {
  return (running.getStore() ?? []).filter(
    ({ queryRunner }) => queryRunner.isTransactionActive && !queryRunner.isReleased,
  );
}
