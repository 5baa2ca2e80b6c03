import { once } from 'node:events';
import { connect } from 'node:net';
import { findMemcached } from './installed.mjs';
import { startServer } from './server.mjs';
import { isRoot } from './watched.mjs';

/** Starts memcached, which keeps nothing but in memory. */
export async function startMemcached() {
  const program = findMemcached();
  if (!program) throw new Error('memcached is not installed');
  return startServer('memcached', (folder) => ({
    name: 'memcached',
    command: program,
    args: (port) => ['-l', '127.0.0.1', '-p', String(port), '-U', '0', '-vv', ...(isRoot ? ['-u', 'root'] : [])],
    options: { cwd: folder },
    readyLine: 'server listening',
    // It only says so when it is told to say everything.
    prepare: async (port) => {
      const socket = connect(port, '127.0.0.1');
      socket.end('verbosity 0\r\nquit\r\n');
      await once(socket.resume(), 'close');
    },
    stopSignal: 'SIGTERM',
    url: (port) => `127.0.0.1:${port}`,
  }));
}
