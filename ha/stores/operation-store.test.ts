import { expect, test } from 'vitest';
import { graphOf } from '../../src/dispatcher/testing/model-peers.ts';
import { failedWith, type Operation, succeeded, type TriggerId } from '../../src/contracts/operations.ts';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { openHaStores } from './ha-stores.ts';
import { SavepointPaths } from './savepoint-paths.ts';

const JOB = graphOf(1);
const triggerOf = (n: number) => n.toString(16).padStart(32, '0') as TriggerId;
const operation = (n: number): Operation => ({
  triggerId: triggerOf(n),
  jobId: JOB.jobId,
  request: { kind: 'SAVEPOINT', location: `test/savepoints/s${n}/` },
  startedWallMs: n,
});

async function world() {
  const clock = new ManualClock();
  const etcd = new EtcdModel({ clock });
  const objects = new MemoryObjectStore(clock);
  const deps = { clock, objects, random: new SeededRandom(1), log: silentLogger };
  const stores = openHaStores({ ...deps, coordination: etcd.client({ name: 'a' }) }, 'test');
  const lead = () => {
    const { revision } = etcd.txn({ guards: [], then: [{ kind: 'put', key: stores.keys.leader, value: 'x' }] });
    return asFencingToken(revision);
  };
  const token = lead();
  await stores.jobGraphs.submit(JOB, token, {});
  return { stores, token, lead };
}

test('an operation begins once under its id, and its first result stays', async () => {
  const { stores, token } = await world();
  const { operations } = stores;
  expect((await operations.begin(operation(1), token)).outcome).toBe('created');
  const again = { ...operation(1), startedWallMs: 99 };
  expect(await operations.begin(again, token)).toEqual({ outcome: 'existing', operation: operation(1) });
  expect(await operations.pending(JOB.jobId)).toEqual([operation(1)]);
  expect(await operations.finish(JOB.jobId, triggerOf(1), succeeded(7), token)).toEqual(succeeded(7));
  const late = failedWith({ code: 'TIMEOUT', message: 'late' });
  expect(await operations.finish(JOB.jobId, triggerOf(1), late, token)).toEqual(succeeded(7));
  expect(await operations.pending(JOB.jobId)).toEqual([]);
  expect(await operations.get(JOB.jobId, triggerOf(1))).toMatchObject({ result: succeeded(7) });
});

test('an old leader neither begins nor ends an operation, and none begins of a job that is not there', async () => {
  const { stores, token, lead } = await world();
  const { operations } = stores;
  await operations.begin(operation(1), token);
  const stranger = { ...operation(2), jobId: graphOf(2).jobId };
  await expect(operations.begin(stranger, token)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  lead();
  await expect(operations.begin(operation(3), token)).rejects.toMatchObject({ code: 'FENCED' });
  await expect(operations.finish(JOB.jobId, triggerOf(1), succeeded(), token)).rejects.toMatchObject({
    code: 'FENCED',
  });
});

test('results are bounded: the oldest make room, what is in progress stays', async () => {
  const { stores, token } = await world();
  const { operations } = stores;
  await operations.begin(operation(1), token);
  for (let n = 2; n <= 40; n++) {
    await operations.begin(operation(n), token);
    await operations.finish(JOB.jobId, triggerOf(n), succeeded(n), token);
  }
  expect(await operations.get(JOB.jobId, triggerOf(1))).toBeDefined();
  expect(await operations.get(JOB.jobId, triggerOf(2))).toBeUndefined();
  expect(await operations.get(JOB.jobId, triggerOf(40))).toBeDefined();
});

test.each([
  ['s3://bucket/ns', 's3://bucket/ns/test/savepoints/a/b/_metadata', 'test/savepoints/a/b/_metadata'],
  ['s3://bucket/ns', 's3://bucket/ns/test/savepoints/a', 'test/savepoints/a/_metadata'],
  ['file:/data', 'file:///data/test/savepoints/a', 'test/savepoints/a/_metadata'],
  ['file:/data', '/data/test/savepoints/a/', 'test/savepoints/a/_metadata'],
  ['memory:', 'test/jobs/x/checkpoints/3/metadata-1-ab', 'test/jobs/x/checkpoints/3/metadata-1-ab'],
])('in %s the path %s is found', async (store, path, key) => {
  const { stores } = await world();
  const paths = new SavepointPaths(stores.keys, store);
  expect(paths.resolve(path)).toBe(key);
  expect(paths.resolve(paths.urlOf(key))).toBe(key);
});
