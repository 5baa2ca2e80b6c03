import { spawnSync } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { findRedis } from './installed.mjs';
import { START_TIMEOUT, startServer } from './server.mjs';

/**
 * Starts Redis, or Valkey where that is what is installed, in memory only. `args` are further arguments of the server,
 * such as `--appendonly yes` for data that survives a restart.
 */
export async function startRedis({ args: more = [] } = {}) {
  const program = findRedis();
  if (!program) throw new Error('Neither Redis nor Valkey is installed');
  const isValkey = spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.includes('Valkey');
  return startServer('redis', (folder) => ({
    name: isValkey ? 'Valkey' : 'Redis',
    command: program,
    args: (port) => [
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--dir',
      folder,
      '--save',
      '',
      '--appendonly',
      'no',
      ...more,
    ],
    options: { cwd: folder },
    readyLine: 'Ready to accept connections',
    stopSignal: 'SIGTERM',
    url: (port) => `redis://127.0.0.1:${port}`,
  }));
}

const SLOTS = 16_384;

/**
 * Starts a cluster of three servers without replicas. The URL is those of the nodes, with commas between. `args` are
 * further arguments of each.
 */
export async function startRedisCluster({ args: more = [] } = {}) {
  const nodes = [];
  const stop = async () => void (await Promise.all(nodes.map((node) => node.stop())));
  try {
    for (let index = 0; index < 3; index++)
      nodes.push(await startRedis({ args: ['--cluster-enabled', 'yes', ...more] }));
    await becomeCluster(nodes);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    name: `${nodes[0].name} cluster`,
    url: nodes.map(({ url }) => url).join(','),
    port: nodes.map(({ port }) => port).join(', 127.0.0.1:'),
    nodes,
    stop,
  };
}

/** Makes servers one cluster: a share of the slots for each, and acquaintance with each other. */
async function becomeCluster(nodes) {
  const { createClient } = await import('redis');
  const clients = nodes.map(({ url }) => createClient({ url }).on('error', () => {}));
  await Promise.all(clients.map((client) => client.connect()));
  try {
    const share = Math.ceil(SLOTS / nodes.length);
    for (const [index, client] of clients.entries()) {
      const [first, last] = [index * share, Math.min(SLOTS, (index + 1) * share) - 1];
      await client.sendCommand(['CLUSTER', 'ADDSLOTSRANGE', String(first), String(last)]);
      if (index > 0) await client.sendCommand(['CLUSTER', 'MEET', '127.0.0.1', String(nodes[0].port)]);
    }
    const isJoined = async (client) => {
      const info = String(await client.sendCommand(['CLUSTER', 'INFO']));
      return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${nodes.length}`);
    };
    const deadline = Date.now() + START_TIMEOUT;
    while (!(await Promise.all(clients.map(isJoined))).every(Boolean)) {
      if (Date.now() > deadline) throw new Error('The servers do not become a cluster');
      await pause(50);
    }
  } finally {
    for (const client of clients) client.destroy();
  }
}
