import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const STATEMENT = /^(?:import|export)\s+(?!type\b)(?:[^'"]*?\sfrom\s+)?'([^']+)'/gm;

/** What a file imports when it is loaded, and what that imports. */
function loadedBy(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(STATEMENT))
    if (name.startsWith('.')) loadedBy(resolve(dirname(file), name), seen);
    else seen.add(name);
  return seen;
}

test('a slot’s thread loads no client of a coordination store: jobs wait for that thread after the loss of a worker', () => {
  const loaded = loadedBy(fileURLToPath(new URL('./slot-worker.ts', import.meta.url)));
  expect(loaded).toContain('zod');
  for (const name of ['etcd3', '@grpc/grpc-js', 'cockatiel', 'lmdb', '@aws-sdk/client-s3'])
    expect(loaded).not.toContain(name);
});
