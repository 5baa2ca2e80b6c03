import { AsyncLocalStorage } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type * as Module from '../../lib/store/typeorm/own-transactions.js';

const driver = createRequire(import.meta.url)('libsql') as unknown;

// A module of its own: other files of this process may have left a store open.
const own = '../../lib/store/typeorm/own-transactions.js?own';
const { OwnTransactions } = (await import(own)) as typeof Module;

describe('Transactions of the application', () => {
  let sources: DataSource[];
  let stores: Module.OwnTransactions[];
  beforeEach(async () => {
    const open = () => new DataSource({ type: 'better-sqlite3', driver, database: ':memory:' }).initialize();
    sources = await Promise.all([open(), open()]);
    stores = sources.map((source) => new OwnTransactions(source));
  });
  afterEach(async () => {
    for (const store of stores) store.close();
    await Promise.all(sources.map((source) => source.destroy()));
  });

  /** Which of the stores refuse a call here. */
  const refusing = (): number[] =>
    stores.flatMap((store, index) => {
      try {
        store.refuse();
        return [];
      } catch (error) {
        expect(error).toMatchObject({ code: 'VISIT_OPEN_TRANSACTION' });
        return [index];
      }
    });

  test('within those of two data sources, the stores of both refuse, until each has ended', async () => {
    const [one, two] = sources as [DataSource, DataSource];
    expect(refusing()).toEqual([]);
    await one.transaction(async () => {
      expect(refusing()).toEqual([0]);
      await two.transaction(async () => {
        expect(refusing()).toEqual([0, 1]);
        await Promise.resolve();
        expect(refusing()).toEqual([0, 1]);
      });
      expect(refusing()).toEqual([0]);
    });
    expect(refusing()).toEqual([]);
  });

  test('those that have ended are forgotten, however many there were in one context', async () => {
    const [one, two] = sources as [DataSource, DataSource];
    const entered = vi.spyOn(AsyncLocalStorage.prototype, 'enterWith');
    try {
      for (let count = 0; count < 3; count++) {
        await one.transaction(() => two.transaction(() => Promise.resolve()));
      }
      const depths = entered.mock.calls.map(([transactions]) => (transactions as readonly object[]).length);
      expect(depths).toEqual([1, 2, 1, 2, 1, 2]);
    } finally {
      entered.mockRestore();
    }
  });

  test('one storage serves all data sources: Node carries each along with every promise', async () => {
    const entered = vi.spyOn(AsyncLocalStorage.prototype, 'enterWith');
    try {
      for (const source of sources) await source.transaction(() => Promise.resolve());
      expect(entered).toHaveBeenCalledTimes(2);
      expect(new Set(entered.mock.contexts).size).toBe(1);
    } finally {
      entered.mockRestore();
    }
  });

  test('those of a data source that was opened again are known from the next call on', async () => {
    await sources[0]!.destroy();
    await sources[0]!.initialize();
    expect(refusing()).toEqual([]);
    await sources[0]!.transaction(() => {
      expect(refusing()).toEqual([0]);
      return Promise.resolve();
    });
    expect(sources[0]!.subscribers).toHaveLength(1);
  });

  test('the storage is in use until the last store is closed, even one whose data source was opened again', async () => {
    await sources[0]!.destroy();
    await sources[0]!.initialize();
    const disabled = vi.spyOn(AsyncLocalStorage.prototype, 'disable');
    try {
      stores[0]!.close();
      stores[0]!.close();
      expect(disabled).not.toHaveBeenCalled();
      await sources[1]!.transaction(() => {
        expect(refusing()).toEqual([1]);
        return Promise.resolve();
      });
      stores[1]!.close();
      expect(disabled).toHaveBeenCalledTimes(1);
    } finally {
      disabled.mockRestore();
    }
  });
});
