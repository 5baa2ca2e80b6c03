/** What the framework costs alone: nothing is kept but one number in memory. */
export function prepare() {
  let counter = 0;
  return {
    handlers: {
      static: () => 'static',
      read: () => ({ counter }),
      write: () => ({ counter: ++counter }),
      login: () => ({ counter }),
    },
  };
}
