/**
 * What the framework costs alone: nothing is kept but one number in memory. With `store: 'interceptor'`, behind one
 * that does nothing.
 */
export function prepare({ store }) {
  let counter = 0;
  return {
    handlers: {
      static: () => 'static',
      read: () => ({ counter }),
      write: () => ({ counter: ++counter }),
      login: () => ({ counter }),
    },
    install(app) {
      if (store === 'interceptor') app.useGlobalInterceptors({ intercept: (_, next) => next.handle() });
    },
  };
}
