import { execFile } from 'node:child_process';
import { appendFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { guardMount, unguardMount } from '../../test-support/guardian.ts';

const run = promisify(execFile);

/** A file system in memory of this size in the folder, until the function it resolves with is called. Needs root. */
export async function mountSmall(folder: string, bytes: number): Promise<() => Promise<void>> {
  guardMount(folder);
  await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'millrace-chaos', folder]);
  return async () => {
    await run('umount', ['-l', folder]);
    unguardMount(folder);
  };
}

/** Hidden, as readers of the output take no such file. */
const FILLER = '.filler';

export function fillDisk(folder: string): void {
  for (const bytes of [1 << 16, 1 << 12]) {
    try {
      for (;;) appendFileSync(join(folder, FILLER), Buffer.alloc(bytes));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }
}

export function giveRoom(folder: string): void {
  rmSync(join(folder, FILLER), { force: true });
}
