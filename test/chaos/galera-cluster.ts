import { chmodSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { delimiter, join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { vi } from 'vitest';
import { PATIENCE } from '../support/patience.js';
import { findGalera, findMariaDb, startMariaDb, temporaryFolder, type TestServer } from '../support/servers.mjs';

type Row = Record<string, unknown>;

const NODES = 3;
/** The method of state transfer; MariaDB starts the program `wsrep_sst_<method>`. */
const METHOD = 'by_files';

/** The programs that are missing for a cluster, by name. */
export function missingForGalera(): string[] {
  return [
    ...(findMariaDb() ? [] : ['MariaDB, installed']),
    ...(findGalera() ? [] : [`Galera (libgalera_smm.so, of the package galera-4)`]),
  ];
}

/**
 * How a node gets its data when it joins: all nodes are on one machine, so the donor copies its files. The programs
 * that MariaDB brings for this need its whole package, with a service, and others such as rsync. The words that are
 * printed are MariaDB's protocol; "flush tables" lets nothing write to the donor's files until "continue".
 */
const STATE_TRANSFER = `#!/bin/sh
bypass=
previous=
tries=0
for argument; do
  case "$previous" in
    --role) role=$argument ;;
    --address) address=$argument ;;
    --datadir) data=$argument ;;
    --parent) parent=$argument ;;
    --gtid) state=$argument ;;
    --gtid-domain-id) domain=$argument ;;
  esac
  [ "$argument" = --bypass ] && bypass=yes
  previous=$argument
done
case "$role" in
  joiner)
    cd "$data" || exit 1
    rm -f transferred
    echo "ready $data"
    until [ -f transferred ]; do
      kill -0 "$parent" || exit 1
      sleep 0.1
    done
    cat transferred
    rm transferred
    ;;
  donor)
    cd "$data" || exit 1
    state="$state $domain"
    if [ -z "$bypass" ]; then
      rm -f tables_flushed sst_error
      echo 'flush tables'
      until grep -q : tables_flushed 2>/dev/null; do
        [ -f sst_error ] || [ "$((tries += 1))" -gt 200 ] && exit 1
        sleep 0.1
      done
      state=$(cat tables_flushed)
      rm tables_flushed
      own='galera.cache grastate.dat gvwstate.dat'
      for file in "$address"/*; do
        case " $own " in *" \${file##*/} "*) ;; *) rm -rf "$file" ;; esac
      done
      for file in *; do
        case " $own " in *" $file "*) ;; *) cp -Rp "$file" "$address/" || exit 1 ;; esac
      done
    fi
    echo continue
    echo "$state" > "$address/transferred.part"
    mv "$address/transferred.part" "$address/transferred"
    echo "done $state"
    ;;
esac
`;

/** A node that a test can break. */
export class GaleraNode {
  constructor(private readonly server: TestServer) {}

  /** For a TypeORM DataSource. */
  get dataSource(): { type: 'mariadb'; url: string } {
    return { type: 'mariadb', url: this.server.url };
  }

  get log(): string {
    return this.server.log();
  }

  /** With a connection for this one query. */
  async ask(sql: string): Promise<Row[]> {
    const connection = await createConnection(this.server.url);
    connection.on('error', () => {});
    try {
      return (await connection.query(sql))[0] as Row[];
    } finally {
      await connection.end().catch(() => connection.destroy());
    }
  }

  /** A counter of the server, such as `wsrep_local_cert_failures`, or a state. */
  async status(name: string): Promise<string> {
    return String((await this.ask(`SHOW GLOBAL STATUS LIKE '${name}'`))[0]?.['Value']);
  }

  /** Resolves when it serves applications, in a cluster of this size. */
  async isMemberOf(size: number): Promise<void> {
    const expected = { wsrep_cluster_size: String(size), wsrep_ready: 'ON', wsrep_local_state_comment: 'Synced' };
    let found = {};
    try {
      await vi.waitUntil(
        async () => {
          const names = Object.keys(expected);
          const values = await Promise.all(names.map((name) => this.status(name))).catch((error: Error) => [
            error.message,
          ]);
          found = Object.fromEntries(names.map((name, index) => [name, values[index]]));
          return JSON.stringify(found) === JSON.stringify(expected);
        },
        { timeout: PATIENCE, interval: 50 },
      );
    } catch (error) {
      throw new Error(`The node is not a member of ${size}: ${JSON.stringify(found)}\n${this.log}`, { cause: error });
    }
  }

  /**
   * From now on, it does not apply writes of other nodes, until `catchUp`. `ask` queries it without waiting for them.
   */
  async fallBehind(): Promise<{ ask(sql: string): Promise<Row[]>; catchUp(): Promise<void> }> {
    const connection = await createConnection(this.server.url);
    await connection.query('SET SESSION wsrep_sync_wait = 0');
    await connection.query('FLUSH TABLES WITH READ LOCK');
    return {
      ask: async (sql) => (await connection.query(sql))[0] as Row[],
      async catchUp() {
        await connection.query('UNLOCK TABLES');
        await connection.end();
      },
    };
  }

  kill(): Promise<void> {
    return this.server.kill();
  }

  /** Call it after `kill`, but not for the first node, which would begin a new cluster. */
  restart(): Promise<void> {
    return this.server.restart();
  }

  stop(): Promise<void> {
    return this.server.stop();
  }
}

export interface GaleraCluster {
  readonly nodes: readonly GaleraNode[];
  /** The sum of all nodes. */
  sum(counter: string): Promise<number>;
  stop(): Promise<void>;
}

/** Starts three MariaDB servers as one cluster. `args` are further arguments of each server. */
export async function startGalera({ args = [] }: { args?: readonly string[] } = {}): Promise<GaleraCluster> {
  const folder = temporaryFolder('galera');
  const program = join(folder.path, `wsrep_sst_${METHOD}`);
  writeFileSync(program, STATE_TRANSFER);
  chmodSync(program, 0o755);
  const path = process.env['PATH'] ?? '';
  // Servers inherit it, and search the program there.
  process.env['PATH'] = [path, folder.path].filter(Boolean).join(delimiter);

  const nodes: GaleraNode[] = [];
  const stop = async (): Promise<void> => {
    // One after the other, so that the last one knows that it was the last.
    for (const node of nodes.splice(0)) await node.stop();
    process.env['PATH'] = path;
    await folder.remove();
  };
  try {
    const ports = await freePorts(2 * NODES);
    const [groupPorts, transferPorts] = [ports.slice(0, NODES), ports.slice(NODES)];
    const members = groupPorts.map((port) => `127.0.0.1:${port}`).join();
    for (const [index, port] of groupPorts.entries()) {
      const options = {
        'gmcast.listen_addr': `tcp://127.0.0.1:${port}`,
        'ist.recv_addr': `127.0.0.1:${transferPorts[index]}`,
        'gcache.size': '32M',
      };
      const server = await startMariaDb({
        args: [
          '--wsrep-on=ON',
          `--wsrep-provider=${findGalera()}`,
          '--wsrep-cluster-name=nest-visit-test',
          `--wsrep-cluster-address=gcomm://${members}`,
          `--wsrep-node-address=127.0.0.1:${port}`,
          `--wsrep-node-name=node-${index + 1}`,
          `--wsrep-provider-options=${Object.entries(options)
            .map((option) => option.join('='))
            .join(';')}`,
          `--wsrep-sst-method=${METHOD}`,
          // Rows of several transactions are applied at the same time, as on servers that are in use.
          '--wsrep-slave-threads=4',
          '--binlog-format=ROW',
          '--default-storage-engine=InnoDB',
          '--innodb-autoinc-lock-mode=2',
          '--innodb-flush-log-at-trx-commit=1',
          // Little data must be copied when a node joins.
          '--innodb-log-file-size=8M',
          '--innodb-buffer-pool-size=32M',
          ...(index === 0 ? ['--wsrep-new-cluster'] : []),
          ...args,
        ],
      });
      nodes.push(new GaleraNode(server));
      await nodes[index]!.isMemberOf(index + 1);
    }
    await Promise.all(nodes.map((node) => node.isMemberOf(NODES)));
  } catch (error) {
    await stop();
    throw error;
  }
  const all = [...nodes];
  return {
    nodes: all,
    async sum(counter) {
      const values = await Promise.all(all.map((node) => node.status(counter)));
      return values.reduce((total, value) => total + Number(value), 0);
    },
    stop,
  };
}

/** Unused ports below the range of ephemeral ports, so that they stay free for a restart. */
async function freePorts(count: number): Promise<number[]> {
  const probes = new Map<number, Server>();
  while (probes.size < count) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (isFree) probes.set(port, probe);
  }
  await Promise.all([...probes.values()].map((probe) => new Promise((resolve) => probe.close(resolve))));
  return [...probes.keys()];
}
