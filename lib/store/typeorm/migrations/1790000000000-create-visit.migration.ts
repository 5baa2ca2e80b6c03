import { Table, type MigrationInterface, type QueryRunner, type TableColumnOptions } from 'typeorm';
import { VisitOptionError } from '../../../errors/visit.error.js';
import type { SqlFamily } from '../../sql/sql.dialect.js';
import { familyOf } from '../connections/family.js';
import { VisitIdentity } from '../visit-identity.entity.js';
import { VisitRevocation } from '../visit-revocation.entity.js';
import { Visit } from '../visit.entity.js';
import { migrateAlone } from '../schema-turn.js';
import { defaultNamesOf, namesOf } from '../visit.tables.js';

type Shape = Omit<TableColumnOptions, 'name'>;

// A migration is history: these shapes do not change when the entities do.
const MYSQL_HEX = { charset: 'ascii', collation: 'ascii_bin' };
const MYSQL_BYTEWISE = { charset: 'utf8mb4', collation: 'utf8mb4_bin' };
const MYSQL_TEXT = { charset: 'utf8mb4' };
/** MySQL alone has engines, and servers may have another usual one, without transactions. */
const MADE = { engine: 'InnoDB' };
const BINARY = { mysql: 'mediumblob', postgres: 'bytea', sqlite: 'blob' } as const;

function shapes(family: SqlFamily) {
  const text = (length: number, mysql: Shape | object, more: object = {}): Shape => ({
    type: 'varchar',
    length: String(length),
    ...(family === 'mysql' ? mysql : {}),
    ...more,
  });
  const nullable = { isNullable: true };
  const instant: Shape = { type: 'bigint' };
  return {
    visit: {
      id: text(32, MYSQL_HEX, { isPrimary: true }),
      keyHash: text(64, MYSQL_HEX),
      previousKeyHash: text(64, MYSQL_HEX, nullable),
      previousKeyUntil: { ...instant, ...nullable },
      keyChanged: instant,
      created: instant,
      accessed: instant,
      expiry: instant,
      absoluteExpiry: { ...instant, ...nullable },
      endedAt: { ...instant, ...nullable },
      endReason: text(32, MYSQL_TEXT, nullable),
      permanent: { type: family === 'mysql' ? 'tinyint' : 'boolean' },
      remoteAddress: text(45, MYSQL_TEXT, nullable),
      userAgent: text(255, MYSQL_TEXT, nullable),
      sessionData: { type: BINARY[family], ...nullable },
      sessionVersion: { type: family === 'sqlite' ? 'integer' : 'int' },
      lockOwner: text(32, MYSQL_HEX, nullable),
      lockedUntil: { ...instant, ...nullable },
    } satisfies Record<string, Shape>,
    identity: {
      visitId: text(32, MYSQL_HEX, { isPrimary: true }),
      userId: text(255, MYSQL_BYTEWISE),
      created: instant,
      authenticatedAt: instant,
    } satisfies Record<string, Shape>,
    revocation: {
      userHash: text(64, MYSQL_HEX, { isPrimary: true }),
      endedAt: instant,
    } satisfies Record<string, Shape>,
  };
}

/** Creates `visit`, `visit_identity` and `visit_revocation`, under the names that the data source gives them. */
export class CreateVisit1790000000000 implements MigrationInterface {
  readonly name = 'CreateVisit1790000000000';

  /**
   * Creates the tables with their indexes. One that is there is left: MySQL has no transactions for tables, so a
   * process that died in between has made some of them, each with its indexes. So has another process that migrates at
   * the same time.
   */
  async up(queryRunner: QueryRunner): Promise<void> {
    const tables = tablesOf(queryRunner);
    await migrateAlone(queryRunner, tables.family, () => this.make(queryRunner, tables));
  }

  private async make(
    queryRunner: QueryRunner,
    { family, visit, identity, revocation }: ReturnType<typeof tablesOf>,
  ): Promise<void> {
    const shape = shapes(family);
    await queryRunner.createTable(
      new Table({
        name: visit.path,
        ...MADE,
        columns: named(shape.visit, visit.columns),
        indices: [{ columnNames: [visit.columns.expiry] }, { columnNames: [visit.columns.endedAt] }],
      }),
      true,
    );
    await queryRunner.createTable(
      new Table({
        name: identity.path,
        ...MADE,
        columns: named(shape.identity, identity.columns),
        indices: [{ columnNames: [identity.columns.userId] }],
        foreignKeys: [
          {
            columnNames: [identity.columns.visitId],
            referencedTableName: visit.path,
            referencedColumnNames: [visit.columns.id],
            onDelete: 'CASCADE',
            onUpdate: 'NO ACTION',
          },
        ],
      }),
      true,
    );
    await queryRunner.createTable(
      new Table({
        name: revocation.path,
        ...MADE,
        columns: named(shape.revocation, revocation.columns),
        indices: [{ columnNames: [revocation.columns.endedAt] }],
      }),
      true,
    );
  }

  /** Drops the tables, and with them all visits. */
  async down(queryRunner: QueryRunner): Promise<void> {
    const { visit, identity, revocation } = tablesOf(queryRunner);
    await queryRunner.dropTable(revocation.path);
    await queryRunner.dropTable(identity.path);
    await queryRunner.dropTable(visit.path);
  }
}

function tablesOf(queryRunner: QueryRunner) {
  // `connection` is what TypeORM 0.3 calls it, and the deprecated name in 1.x.
  const dataSource = queryRunner.dataSource ?? queryRunner.connection;
  const family = familyOf(dataSource);
  if (!family)
    throw new VisitOptionError(
      `the migrations of nest-visit do not support data sources of type "${dataSource.options.type}"`,
    );
  return {
    family,
    visit: namesOf(dataSource, Visit) ?? defaultNamesOf(dataSource, Visit),
    identity: namesOf(dataSource, VisitIdentity) ?? defaultNamesOf(dataSource, VisitIdentity),
    revocation: namesOf(dataSource, VisitRevocation) ?? defaultNamesOf(dataSource, VisitRevocation),
  };
}

function named<K extends string>(shape: Record<K, Shape>, names: Readonly<Record<K, string>>): TableColumnOptions[] {
  return (Object.keys(shape) as K[]).map((property) => ({ name: names[property], ...shape[property] }));
}
