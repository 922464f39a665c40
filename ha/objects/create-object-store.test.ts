import { expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { createObjectStore } from './create-object-store.ts';
import { bytesOf, keysOf } from './object-store.contract.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };

test('file: names a directory, with or without slashes before its path', async () => {
  const directory = makeTempFolder('objects');
  const short = await createObjectStore(deps, `file:${directory}/store`);
  const long = await createObjectStore(deps, `file://${directory}/store`, { directory: { fsync: false } });
  await short.put('k', bytesOf(1));
  expect(await keysOf(long, '')).toEqual(['k']);
  expect(long.description).toBe(`file:${directory}/store`);
  removeTempFolder(directory);
});

test('memory: is new each time', async () => {
  const one = await createObjectStore(deps, 'memory:');
  await one.put('k', bytesOf(1));
  expect(await keysOf(await createObjectStore(deps, 'memory:'), '')).toEqual([]);
});

test.each([
  ['s3://bucket', 's3://bucket'],
  ['s3://bucket/', 's3://bucket'],
  ['s3://bucket/a/b/', 's3://bucket/a/b'],
])('%s is opened as %s, whether or not the server is there', async (uri, description) => {
  const s3 = { endpoint: 'http://127.0.0.1:1', credentials: { accessKeyId: 'key', secretAccessKey: 'hidden-secret' } };
  const store = await createObjectStore(deps, uri, { s3 });
  expect(store.description).toBe(description);
  expect(JSON.stringify(store.description)).not.toContain('hidden');
  await expect(store.put('k', bytesOf(1))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await store.close();
});

test.each([
  ['ftp://host/x', 'not one that is known'],
  ['/plain/path', 'not one that is known'],
  ['', 'not one that is known'],
  ['s3:bucket', 's3://bucket/prefix'],
  ['s3://', 's3://bucket/prefix'],
  ['s3://Upper_Case', 'bucket name'],
  ['s3://bucket/a b', 'prefix'],
  ['s3://bucket/../x', 'prefix'],
  ['file:/', 'no directory'],
  ['file://host/x', 'host'],
])('"%s" is a configuration error that says why', async (uri, why) => {
  await expect(createObjectStore(deps, uri)).rejects.toMatchObject({
    code: 'CONFIGURATION',
    message: expect.stringContaining(why),
  });
});

test('a secret in the URI is refused and not repeated; all wrong options are named at once', async () => {
  const refused = await createObjectStore(deps, 's3://me:hunter2@bucket/x').catch((error: Error) => error);
  expect(refused).toMatchObject({ code: 'CONFIGURATION' });
  expect(String(refused)).not.toContain('hunter2');
  const s3 = { endpoint: 'nowhere', attemptsMax: 0, credentials: { accessKeyId: '', secretAccessKey: 'x' } };
  await expect(createObjectStore(deps, 's3://bucket', { s3 })).rejects.toThrow(/endpoint.*both be set.*attemptsMax/);
});
