import { mkdir, readdir, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { DirectoryObjectStore } from './directory-object-store.ts';
import { bytesOf, keysOf, objectStoreContract, same } from './object-store.contract.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };

let directory: string;

beforeEach(() => {
  directory = makeTempFolder('objects');
});

afterEach(() => removeTempFolder(directory));

describe('the contract', () => {
  objectStoreContract(async () => ({
    store: await DirectoryObjectStore.start(deps, { directory }),
    other: await DirectoryObjectStore.start(deps, { directory }),
    close: async () => undefined,
  }));
});

describe('the contract, without fsync', () => {
  objectStoreContract(async () => {
    const store = await DirectoryObjectStore.start(deps, { directory, fsync: false });
    return { store, other: store, close: async () => undefined };
  });
});

test('the directory and all in it are for the owner alone', async () => {
  const root = join(directory, 'new', 'store');
  const store = await DirectoryObjectStore.start(deps, { directory: root });
  await store.put('a/b', bytesOf(1));
  expect((await stat(root)).mode & 0o777).toBe(0o700);
  expect((await stat(join(root, 'a'))).mode & 0o777).toBe(0o700);
  expect((await stat(join(root, 'a', 'b~'))).mode & 0o777).toBe(0o600);
});

test('what dead writers left is never listed, and is swept once it is old; fresh work is kept', async () => {
  const dying = await DirectoryObjectStore.start(deps, { directory });
  const upload = await dying.upload('k');
  await upload.write(bytesOf(10));
  const unfinished = join(directory, '~unfinished');
  const [old] = await readdir(unfinished);
  const longAgo = Date.now() / 1_000 - 7_200;
  await utimes(join(unfinished, old as string), longAgo, longAgo);
  const fresh = await dying.upload('fresh');
  await fresh.write(bytesOf(20));

  const next = await DirectoryObjectStore.start(deps, { directory });
  expect(await keysOf(next, '')).toEqual([]);
  expect(await readdir(unfinished)).toHaveLength(1);
  await fresh.complete();
  expect(await keysOf(next, '')).toEqual(['fresh']);
  // The writer was not dead after all: it is told, and no torn object appears.
  await expect(upload.complete()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(await keysOf(next, '')).toEqual(['fresh']);
});

test('deleting the last object of a folder removes the folder, and never the root', async () => {
  const store = await DirectoryObjectStore.start(deps, { directory });
  await store.put('a/b/c/d', bytesOf(1));
  await store.put('a/x', bytesOf(1));
  await store.delete(['a/b/c/d']);
  expect(await readdir(join(directory, 'a'))).toEqual(['x~']);
  await store.delete(['a/x']);
  expect(await readdir(directory)).toEqual(['~unfinished']);
});

test('a put replaces an object in one step: a reader finds the old or the new, never a mix', async () => {
  const store = await DirectoryObjectStore.start(deps, { directory, fsync: false });
  const versions = [bytesOf(200_000, 1), bytesOf(200_000, 2)] as const;
  await store.put('k', versions[0]);
  let writing = true;
  const reader = (async () => {
    let reads = 0;
    while (writing) {
      const bytes = await store.get('k');
      expect(versions.some((version) => same(version, bytes))).toBe(true);
      reads++;
    }
    return reads;
  })();
  for (let i = 0; i < 50; i++) await store.put('k', versions[i % 2 === 0 ? 1 : 0]);
  writing = false;
  expect(await reader).toBeGreaterThan(0);
});

test('files that are no objects, and links, are left alone and not listed', async () => {
  const store = await DirectoryObjectStore.start(deps, { directory });
  await mkdir(join(directory, 'a'));
  await writeFile(join(directory, 'a', 'stray'), 'x');
  await symlink('/etc', join(directory, 'etc'));
  await store.put('a/b', bytesOf(1));
  expect(await keysOf(store, '')).toEqual(['a/b']);
});

test('a directory that cannot be made is UNAVAILABLE with a hint', async () => {
  const file = join(directory, 'file');
  await writeFile(file, '');
  await expect(DirectoryObjectStore.start(deps, { directory: join(file, 'below') })).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    hint: expect.stringContaining('writable'),
  });
});
