import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { until } from '../../test-support/until.ts';
import { brief, coordinationContract, put, values, watching } from './coordination.contract.ts';
import { LmdbCoordination, type LmdbCoordinationDeps, type LmdbCoordinationOptions } from './lmdb-coordination.ts';

const clock = new SystemClock();

let directory: string;

beforeEach(() => {
  directory = makeTempFolder('coordination');
});

afterEach(() => removeTempFolder(directory));

function open(
  options: Partial<LmdbCoordinationOptions> = {},
  deps: Partial<LmdbCoordinationDeps> = {},
): Promise<LmdbCoordination> {
  return LmdbCoordination.start({ clock, log: silentLogger, ...deps }, { directory, ...options });
}

describe('the contract', () => {
  coordinationContract(async () => ({
    client: () => open({ historyMax: 100 }),
    compact: async ([client]) => {
      for (let i = 0; i < 110; i++) await client?.txn({ guards: [], then: [put('compaction', String(i))] });
      await client?.txn({ guards: [], then: [{ kind: 'delete', key: 'compaction' }] });
    },
    minTtlMs: 600,
    expiryLagMs: 0,
    close: async () => undefined,
  }));
});

test('the directory is made for its owner alone', async () => {
  const nested = join(directory, 'deep', 'down');
  const store = await open({ directory: nested });
  expect((await stat(nested)).mode & 0o777).toBe(0o700);
  await store.close();
});

test('what was written is there after all have closed, and revisions go on', async () => {
  const first = await open();
  const lease = await first.grantLease(60_000);
  const { revision } = await first.txn({ guards: [], then: [put('k', 'v'), put('leased', 'v', lease.id)] });
  await first.close();
  const second = await open();
  expect(await second.get('k')).toMatchObject({ value: 'v', modRevision: revision });
  expect((await second.get('leased'))?.lease).toBe(lease.id);
  expect((await second.txn({ guards: [], then: [put('k', 'w')] })).revision).toBe(revision + 1n);
  expect((await second.grantLease(1_000)).id).not.toBe(lease.id);
  await second.close();
});

test('a lease expires by its stored deadline although nobody looked in between', async () => {
  let nowMs = 1_000_000;
  const deps = { monotonicMs: () => nowMs };
  const holder = await open({}, deps);
  const lease = await holder.grantLease(2_000);
  await holder.txn({ guards: [], then: [put('k', 'v', lease.id)] });
  nowMs += 1_999;
  expect((await holder.get('k'))?.value).toBe('v');
  await holder.close();
  const other = await open({}, deps);
  expect((await other.get('k'))?.value).toBe('v');
  nowMs += 1;
  expect(await other.get('k')).toBeUndefined();
  expect((await other.list('')).entries).toEqual([]);
  await other.close();
});

test('after a restart of the machine all leases have expired, whatever its clock says', async () => {
  const before = await open({}, { monotonicMs: () => 5_000, bootId: 'first' });
  const lease = await before.grantLease(3_600_000);
  const { revision } = await before.txn({ guards: [], then: [put('leased', 'v', lease.id), put('kept', 'v')] });
  await before.close();
  const after = await open({}, { monotonicMs: () => 5_001, bootId: 'second' });
  expect((await after.list('')).entries.map((entry) => entry.key)).toEqual(['kept']);
  const seen = watching(after, '', revision);
  await until('the deletion to be watched', () => seen.length > 0);
  expect(seen.map(brief)).toEqual(['delete leased']);
  await after.close();
});

test('where the system tells no boot id, a clock that started over expires the leases', async () => {
  const before = await open({}, { monotonicMs: () => 9_000_000, bootId: 'unknown' });
  const lease = await before.grantLease(10_000);
  await before.txn({ guards: [], then: [put('leased', 'v', lease.id)] });
  await before.close();
  const after = await open({}, { monotonicMs: () => 30, bootId: 'unknown' });
  expect(await after.get('leased')).toBeUndefined();
  await after.close();
});

test('a watcher further behind than one poll hands out gets everything in order', async () => {
  const store = await open();
  const { revision } = await store.list('');
  const count = 1_200;
  for (let start = 0; start < count; start += 600)
    await Promise.all(
      Array.from({ length: 600 }, (_, i) => store.txn({ guards: [], then: [put('w', String(start + i))] })),
    );
  const seen = watching(store, 'w', revision);
  await until('all changes', () => seen.length >= count);
  expect(values(seen)).toEqual(Array.from({ length: count }, (_, i) => String(i)));
  await store.close();
});

test('more writes at once than the disk could take are refused, and nothing of them happens', async () => {
  // A deadline out of reach: on a slow disk some of those accepted would end by it.
  const store = await open({ deadlineMs: 60_000 });
  const calls = Array.from({ length: 1_100 }, (_, i) => store.txn({ guards: [], then: [put(`k/${i}`, 'v')] }));
  const ends = await Promise.allSettled(calls);
  const refused = ends.filter((end) => end.status === 'rejected');
  expect(refused).toHaveLength(1_100 - 1_024);
  expect((refused[0] as PromiseRejectedResult).reason).toMatchObject({ code: 'UNAVAILABLE' });
  expect((await store.list('k/')).entries).toHaveLength(1_024);
  await store.close();
});

test('a store written by a newer version is refused by name', async () => {
  const store = await open();
  await store.close();
  const { open: openLmdb } = await import('lmdb');
  const raw = openLmdb({
    path: join(directory, 'coordination.mdb'),
    noSubdir: true,
    encoding: 'string',
    overlappingSync: false,
  });
  raw.putSync('m', JSON.stringify({ format: 2 }));
  await raw.close();
  await expect(open()).rejects.toMatchObject({ code: 'UNSUPPORTED_VERSION' });
});

test('options that cannot work are refused with all that is wrong', async () => {
  await expect(open({ pollMs: 0, historyMax: -1 })).rejects.toThrow(/pollMs.*historyMax/);
  const file = join(directory, 'file');
  await writeFile(file, '');
  await expect(open({ directory: join(file, 'below') })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});
