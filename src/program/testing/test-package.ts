import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/**
 * Builds a small package `millrace` in `root` out of the sources: the API and the planner's worker. So
 * these tests run real threads on real modules, whatever state `dist` is in.
 */
export async function buildTestPackage(
  root: string,
): Promise<{ readonly packageRoot: string; readonly workerUrl: URL }> {
  const dist = join(root, 'dist');
  mkdirSync(dist, { recursive: true });
  writeFileSync(
    join(root, 'package.json'),
    JSON.stringify({ name: 'millrace', version: '0.0.0', type: 'module', exports: { '.': './dist/library.js' } }),
  );
  await build({
    entryPoints: { library: here('library.fixture.ts'), 'plan-worker': here('../plan-worker.ts') },
    outdir: dist,
    bundle: true,
    // Both share one copy of the API, as they do in the built product.
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
  return { packageRoot: root, workerUrl: pathToFileURL(join(dist, 'plan-worker.js')) };
}
