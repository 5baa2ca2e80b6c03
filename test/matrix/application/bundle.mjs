// Puts the compiled application and all its packages into one file: `node bundle.mjs esbuild|webpack esm|commonjs FILE`.
import { isBuiltin } from 'node:module';
import { basename, dirname, resolve } from 'node:path';

const [bundler, format, target] = process.argv.slice(2);
const isEsm = format === 'esm';
const entry = resolve('dist/src/main.js');

// Nest, TypeORM and nest-visit ask for optional packages, and go on without them. Those that are not installed are
// missing in the bundle, too.
const missing = {
  name: 'missing',
  setup(build) {
    build.onResolve({ filter: /^[^./]/ }, async ({ path, pluginData, ...options }) => {
      if (pluginData === 'asked' || isBuiltin(path)) return undefined;
      const found = await build.resolve(path, { ...options, pluginData: 'asked' });
      return found.errors.length > 0 ? { path, namespace: 'missing' } : found;
    });
    build.onLoad({ filter: /.*/, namespace: 'missing' }, ({ path }) => ({
      contents: `throw Object.assign(new Error("Cannot find module '${path}'"), { code: 'MODULE_NOT_FOUND' });`,
    }));
  },
};

async function byEsbuild() {
  const { build } = await import('esbuild');
  await build({
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: isEsm ? 'esm' : 'cjs',
    outfile: target,
    logLevel: 'error',
    plugins: [missing],
    // Packages in CommonJS ask by it for what Node brings.
    ...(isEsm && {
      banner: {
        js: `import { createRequire as ofBundle } from 'node:module'; const require = ofBundle(import.meta.url);`,
      },
    }),
  });
}

/** Also in the words of Yarn's Plug'n'Play. */
const MISSING = /^Module not found: Error: (Can't resolve '[^./]|.+ tried to access [^./])/;

async function byWebpack() {
  const { default: webpack } = await import('webpack');
  const compiler = webpack({
    // As the command line of Nest does it: NODE_ENV stays what it is when the application starts.
    mode: 'none',
    target: 'node20',
    entry,
    // A module that is not found throws where it is asked for.
    optimization: { emitOnErrors: true },
    output: {
      path: dirname(target),
      filename: basename(target),
      ...(isEsm && { module: true, chunkFormat: 'module', library: { type: 'module' } }),
    },
    experiments: { outputModule: isEsm },
    // What is asked of `createRequire` is asked when the application runs.
    module: { parser: { javascript: { createRequire: false } } },
    plugins: [new webpack.optimize.LimitChunkCountPlugin({ maxChunks: 1 })],
  });
  const { errors } = await new Promise((resolved, rejected) => {
    compiler.run((error, stats) => {
      if (error) rejected(error);
      else compiler.close(() => resolved(stats.toJson({ all: false, errors: true })));
    });
  });
  const others = errors.filter(({ message }) => !MISSING.test(message));
  if (others.length > 0) throw new Error(others.map(({ message }) => message).join('\n'));
}

await (bundler === 'esbuild' ? byEsbuild() : byWebpack());
