import { mkdirSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { Configuration } from './config/options.ts';

/** The folder for caches: of this user alone, because what is in it is run. */
export function temporaryDir(c: Configuration): string {
  const dir = c.tmpDir ?? join(tmpdir(), `millrace-${userInfo().uid}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return dir;
}
