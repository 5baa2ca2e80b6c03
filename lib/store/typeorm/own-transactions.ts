import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntitySubscriberInterface, QueryRunner } from 'typeorm';
import { VisitOpenTransactionError } from '../../errors/visit.error.js';

/**
 * Tracks the application's transactions if the pool has one connection: a call inside one that needs a connection would
 * wait for itself until its deadline, and delay all other requests. Code is inside a transaction from the call that
 * begins it, including calls that it does not await.
 */
export class OwnTransactions {
  private readonly running = new AsyncLocalStorage<QueryRunner>();

  private readonly subscriber: EntitySubscriberInterface = {
    // TypeORM calls it before it waits for anything: so the asynchronous context is that of whoever begins the
    // transaction, and goes on in all that they call from there.
    beforeTransactionStart: ({ queryRunner }) => this.running.enterWith(queryRunner),
  };

  constructor(private readonly dataSource: DataSource) {
    dataSource.subscribers.push(this.subscriber);
  }

  close(): void {
    const { subscribers } = this.dataSource;
    const index = subscribers.indexOf(this.subscriber);
    if (index >= 0) subscribers.splice(index, 1);
    // Node carries it along with every promise as long as it is in use.
    this.running.disable();
  }

  /** @throws VisitOpenTransactionError in the asynchronous context of a transaction that has not ended */
  refuse(): void {
    const queryRunner = this.running.getStore();
    if (queryRunner?.isTransactionActive && !queryRunner.isReleased) throw new VisitOpenTransactionError();
  }
}
