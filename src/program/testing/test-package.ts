import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import type { BundleProgramLoader } from '../program-loader.ts';

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export interface TestPackage {
  readonly packageRoot: string;
  readonly childUrl: URL;
  /** The loader on the package's own modules. */
  readonly BundleProgramLoader: typeof BundleProgramLoader;
}

/**
 * Builds a small package `millrace` in `root` out of the sources: the API and the planner's process. So
 * these tests run real processes on real modules, whatever state `dist` is in.
 */
export async function buildTestPackage(root: string): Promise<TestPackage> {
  const dist = join(root, 'dist');
  mkdirSync(dist, { recursive: true });
  writeFileSync(
    join(root, 'package.json'),
    JSON.stringify({ name: 'millrace', version: '0.0.0', type: 'module', exports: { '.': './dist/library.js' } }),
  );
  await build({
    entryPoints: {
      library: here('library.fixture.ts'),
      'plan-child': here('../plan-child.ts'),
      loader: here('../program-loader.ts'),
    },
    outdir: dist,
    bundle: true,
    // Both share one copy of the API, as they do in the built product.
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
  // vitest puts its own loader in the place of `import()`; bundles have to be loaded by Node's.
  writeFileSync(join(dist, 'native-import.cjs'), 'module.exports = (url) => import(url);');
  const nativeImport = createRequire(import.meta.url)(join(dist, 'native-import.cjs')) as (
    url: string,
  ) => Promise<unknown>;
  const loader = await nativeImport(pathToFileURL(join(dist, 'loader.js')).href);
  return {
    packageRoot: root,
    childUrl: pathToFileURL(join(dist, 'plan-child.js')),
    ...(loader as Pick<TestPackage, 'BundleProgramLoader'>),
  };
}
