import { createRequire } from 'node:module';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';

/** Records the text of each statement that is sent to a database. */
export interface StatementTap {
  /** The URL of the database through the proxy. */
  readonly url: string;
  close(): Promise<void>;
}

const PROTOCOLS = { mariadb: statementsOfMysql, postgres: statementsOfPostgres };

/** A proxy between an application and its database: it records what the server receives from any driver. */
export async function tapStatements(
  name: 'mariadb' | 'postgres',
  target: string,
  note: (text: string) => void,
): Promise<StatementTap> {
  const url = new URL(target);
  const { hostname, port } = url;
  const ends = new Set<() => void>();
  const listener = createServer((client) => {
    const server = connect({ host: hostname, port: Number(port) });
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    ends.add(end);
    const read = PROTOCOLS[name](note);
    client.on('data', (data) => {
      read(data);
      server.write(data);
    });
    server.on('data', (data) => client.write(data));
    for (const one of [client, server]) {
      one.on('error', () => {});
      one.on('close', () => {
        ends.delete(end);
        end();
      });
    }
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  url.port = String((listener.address() as AddressInfo).port);
  return {
    url: url.href,
    async close() {
      listener.close();
      for (const end of ends) end();
      await once(listener, 'close');
    },
  };
}

/** Collects data into messages, whose length the function reads from their beginning; undefined: not yet known. */
function messages(
  lengthOf: (bytes: Buffer) => number | undefined,
  take: (message: Buffer) => void,
): (data: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (data) => {
    rest = Buffer.concat([rest, data]);
    for (let length = lengthOf(rest); length !== undefined && rest.length >= length; length = lengthOf(rest)) {
      take(rest.subarray(0, length));
      rest = rest.subarray(length);
    }
  };
}

const COM_QUERY = 0x03;
const COM_STMT_PREPARE = 0x16;
const COM_STMT_EXECUTE = 0x17;

/** Gathers the packets of MySQL that begin a command. */
function commandsOfMysql(take: (packet: Buffer) => void): (data: Buffer) => void {
  return messages(
    (bytes) => (bytes.length < 4 ? undefined : 4 + bytes.readUIntLE(0, 3)),
    // A command is the first of its packets; those of the greeting are not commands.
    (packet) => packet[3] === 0 && take(packet),
  );
}

function statementsOfMysql(note: (text: string) => void): (data: Buffer) => void {
  return commandsOfMysql((packet) => {
    if ([COM_QUERY, COM_STMT_PREPARE].includes(packet[4]!)) note(packet.toString('utf8', 5));
  });
}

/**
 * What a connection of MySQL asks the server to do, as text: the text of a prepared statement is in what asks to
 * execute it, and not in what asks to prepare it.
 */
export function mysqlRequests(): (data: Buffer) => string {
  const texts = new Map<number, string>();
  let prepared = '';
  let asked = '';
  const read = commandsOfMysql((packet) => {
    if (packet[4] === COM_STMT_PREPARE) prepared = packet.toString('latin1', 5);
    else if (packet[4] === COM_STMT_EXECUTE) {
      const id = packet.readUInt32LE(5);
      // The driver executes at once what it has prepared.
      const text = texts.get(id) ?? prepared;
      texts.set(id, text);
      asked += text;
    } else asked += packet.toString('latin1', 5);
  });
  return (data) => {
    asked = '';
    read(data);
    return asked;
  };
}

function statementsOfPostgres(note: (text: string) => void): (data: Buffer) => void {
  let isGreeting = true;
  return messages(
    (bytes) => {
      if (isGreeting) return bytes.length < 4 ? undefined : bytes.readUInt32BE(0);
      return bytes.length < 5 ? undefined : 1 + bytes.readUInt32BE(1);
    },
    (message) => {
      // A request for TLS would come first; none of these drivers sends one here.
      if (isGreeting) isGreeting = false;
      // Query; or Parse, which begins with the name of the prepared statement.
      else if (message[0] === 0x51) note(message.toString('utf8', 5, message.length - 1));
      else if (message[0] === 0x50) {
        const from = message.indexOf(0, 5) + 1;
        note(message.toString('utf8', from, message.indexOf(0, from)));
      }
    },
  );
}

interface Libsql {
  prototype: Record<'prepare' | 'exec' | 'pragma', (text: string, ...more: unknown[]) => unknown>;
}

/** The same for SQLite, in the driver itself. Returns a function that ends it. */
export function tapSqlite(note: (text: string) => void): () => void {
  const { prototype } = createRequire(import.meta.url)('libsql') as Libsql;
  const names = ['prepare', 'exec'] as const;
  const before = names.map((name) => prototype[name]);
  for (const [index, name] of names.entries()) {
    prototype[name] = function (this: unknown, text, ...more) {
      note(text);
      return before[index]!.call(this, text, ...more);
    };
  }
  return () => names.forEach((name, index) => (prototype[name] = before[index]!));
}
