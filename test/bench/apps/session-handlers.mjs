/** For the peers, which all keep a plain object at `request.session`. */
export const sessionHandlers = {
  static: () => 'static',
  read: ({ session }) => ({ counter: session.counter }),
  write: ({ session }) => ({ counter: ++session.counter }),
  login: ({ session }) => {
    session.userId = 'somebody';
    session.counter = 0;
    return { counter: 0 };
  },
};

export const SECRET = 'only for the benchmark, so it is no secret';

/** Connections that each variant may open to its database: what the drivers take by themselves. */
export const POOL_SIZE = 10;
