import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntitySubscriberInterface, QueryRunner } from 'typeorm';
import { VisitOpenTransactionError } from '../../errors/visit.error.js';

/**
 * The application's own transactions, where the pool has one connection: what is called within one, and needs a
 * connection, too, would wait for itself until its deadline, and all other requests with it. Code is within a
 * transaction from the call that begins it; what it calls beside it, not waiting for it, counts as well.
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
