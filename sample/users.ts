import { scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

export interface User {
  readonly id: string;
  readonly name: string;
}

interface StoredUser extends User {
  readonly salt: string;
  /** scrypt of password and salt, 32 bytes. */
  readonly passwordHash: string;
}

// An application has these in its database, and does not print the passwords on its sign-in page.
const users: readonly StoredUser[] = [
  {
    id: 'ada',
    name: 'Ada Lovelace',
    salt: 'ZzNoWcUyUK5mRHSwcbTfww==',
    passwordHash: '5K7/KTmROvKC9YBuW5qloTGkUwDHDKatpNsg0I9Qu4c=',
  },
  {
    id: 'grace',
    name: 'Grace Hopper',
    salt: 'WfJ87J9a+k5M00cd9y3KfA==',
    passwordHash: 's5pXCoV5oooG6GLEiq1qfyLi8XmvVlVAGZNMeiCoA/A=',
  },
];

const hash = promisify<string, Buffer, number, Buffer>(scrypt);

/** The user of an id, or undefined. */
export function findUser(id: string): User | undefined {
  return users.find((user) => user.id === id);
}

/** The user whose name and password these are, or null. */
export async function authenticate(id: string, password: string): Promise<User | null> {
  const user = users.find((one) => one.id === id);
  // Also for a name that nobody has, so that the time it takes does not tell which names there are.
  const { salt, passwordHash } = user ?? users[0]!;
  const given = await hash(password, Buffer.from(salt, 'base64'), 32);
  return timingSafeEqual(given, Buffer.from(passwordHash, 'base64')) ? (user ?? null) : null;
}
