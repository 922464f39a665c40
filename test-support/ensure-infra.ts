import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type InfraNeed = 'etcd' | 's3' | 'browser' | 'compose' | 'net' | 'clocks';

/**
 * Sees to it that the Debian packages for these needs are installed, or rejects with one sentence
 * that says what to install. Quick when they are. The work is that of `scripts/setup.mjs`, in a
 * process of its own because that file is not compiled with the others.
 */
export async function ensureInfra(needs: readonly InfraNeed[]): Promise<void> {
  const setup = join(packageRoot(), 'scripts', 'setup.mjs');
  const child = spawn(process.execPath, [setup, ...needs], { stdio: ['ignore', 'inherit', 'pipe'] });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString('utf8');
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(complaint.trim() || `set-up of ${needs.join(', ')} ended with code ${code}`);
}

/** The folder of package.json: one up from the sources, two from what was compiled of them. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('found no package.json above this file');
    folder = parent;
  }
  return folder;
}
