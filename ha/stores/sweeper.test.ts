import { expect, test } from 'vitest';
import type { Leadership } from '../../src/contracts/leadership.ts';
import { asFencingToken, type JobId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { openHaStores } from './ha-stores.ts';
import { endOf, graphOf, World } from './store-world.fixture.ts';

const HOUR_MS = 3_600_000;
const OPTIONS = { graceMs: HOUR_MS, intervalMs: 600_000 };
const JOB = graphOf(1);

function setUp() {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const objects = new MemoryObjectStore(clock);
  const world = new World({ coordination: model.client(), objects });
  const stores = openHaStores(
    { coordination: model.client(), objects, clock, random: new SeededRandom(1), log: silentLogger },
    world.keys.clusterId,
  );
  const elect = () =>
    asFencingToken(model.txn({ guards: [], then: [{ kind: 'put', key: world.keys.leader, value: 'x' }] }).revision);
  const put = (key: string) => objects.put(key, new Uint8Array([1]));
  const orphan = (jobId: JobId, name: string) => put(`${world.keys.stateObjectPrefix(jobId)}${name}`);
  return { clock, model, objects, world, stores, elect, put, orphan };
}

test('an orphan goes when it is older than the grace, by the object store’s clock, and not before', async () => {
  const { clock, stores, elect, orphan, world } = setUp();
  const token = elect();
  const sweeper = stores.sweeper(OPTIONS);
  await orphan(JOB.jobId, 'a');
  await clock.advance(HOUR_MS);
  expect(await sweeper.sweep(token)).toEqual({ listed: 1, removed: 0, more: false });
  await clock.advance(1);
  expect(await sweeper.sweep(token)).toEqual({ listed: 1, removed: 1, more: false });
  expect(await world.objectKeys()).toEqual([]); // Its own probes included.
});

test('state of a running job waits for its checkpoint timeout, however long that is', async () => {
  const { clock, stores, elect, orphan } = setUp();
  const token = elect();
  const checkpointing = { ...JOB.config.checkpointing, timeoutMs: 5 * HOUR_MS };
  await stores.jobGraphs.submit({ ...JOB, config: { ...JOB.config, checkpointing } }, token, {});
  await orphan(JOB.jobId, 'a');
  const sweeper = stores.sweeper(OPTIONS);
  await clock.advance(4 * HOUR_MS);
  expect((await sweeper.sweep(token)).removed).toBe(0);
  await clock.advance(2 * HOUR_MS);
  expect((await sweeper.sweep(token)).removed).toBe(1);
});

test('what cannot be read protects what it could have pointed to, and nothing else', async () => {
  const { clock, stores, elect, orphan, objects, world, model } = setUp();
  const token = elect();
  for (const n of [1, 2, 3, 4]) {
    await stores.jobGraphs.submit(graphOf(n), token, {});
    await orphan(graphOf(n).jobId, 'orphan');
  }
  // Damaged metadata, a damaged pointer, a record of a newer version; and all well.
  const { metadataKey } = await stores.checkpoints
    .completed(graphOf(1).jobId)
    .add(await world.snapshot(graphOf(1), 1), token);
  await objects.put(metadataKey, new Uint8Array([1, 2, 3]));
  const spoil = (key: string, value: string) => model.txn({ guards: [], then: [{ kind: 'put', key, value }] });
  spoil(world.keys.checkpoint(graphOf(2).jobId, 1), '{');
  spoil(world.keys.job(graphOf(3).jobId), '{"v":99}');
  await clock.advance(2 * HOUR_MS);
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(1);
  const left = await world.objectKeys();
  for (const [n, kept] of [
    [1, true],
    [2, true],
    [3, true],
    [4, false],
  ] as const)
    expect(left.includes(`${world.keys.stateObjectPrefix(graphOf(n).jobId)}orphan`), `job ${n}`).toBe(kept);
});

test('foreign state that a damaged checkpoint may need is protected too', async () => {
  const { clock, stores, elect, orphan, objects, world } = setUp();
  const token = elect();
  const [owner, user] = [graphOf(1), graphOf(2)];
  await stores.jobGraphs.submit(user, token, {});
  await orphan(owner.jobId, 'shared');
  const shared = [`${world.keys.stateObjectPrefix(owner.jobId)}shared`];
  const completed = stores.checkpoints.completed(user.jobId);
  const { metadataKey } = await completed.add(await world.snapshot(user, 1, { shared }), token);
  await clock.advance(2 * HOUR_MS);
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(0);
  await objects.put(metadataKey, new Uint8Array([1]));
  await clock.advance(2 * HOUR_MS);
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(0);
  expect(await objects.size(shared[0] ?? '')).toBe(1);
});

test('a checkpoint that a job is to start from is kept while the job runs', async () => {
  const { clock, stores, elect, world, objects } = setUp();
  const token = elect();
  await stores.jobGraphs.submit(JOB, token, {});
  const metadata = await world.snapshot(JOB, 1);
  const { metadataKey } = await stores.checkpoints.completed(JOB.jobId).add(metadata, token);
  const restoreFrom = { metadataKey, allowNonRestoredState: false };
  await stores.jobGraphs.submit({ ...graphOf(2), restoreFrom }, token, {});
  // As if its owner had forgotten it, objects left behind.
  const { coordination } = world.backend;
  await coordination.txn({
    guards: [],
    then: [{ kind: 'delete', key: world.keys.checkpoint(JOB.jobId, 1) }],
  });
  await clock.advance(2 * HOUR_MS);
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(0);
  expect((await stores.checkpoints.readExternal(metadataKey)).metadata).toEqual(metadata);
  await objects.delete([metadataKey]); // Gone for good: nothing is protected by a name alone.
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(1);
});

test('objects of a clean-up that is not finished are left to it', async () => {
  const { clock, stores, elect, orphan } = setUp();
  const token = elect();
  await stores.jobGraphs.submit(JOB, token, {});
  const { result, details } = endOf(JOB, 'FAILED');
  await stores.jobResults.complete(result, details, token);
  await orphan(JOB.jobId, 'a');
  await clock.advance(2 * HOUR_MS);
  expect((await stores.sweeper(OPTIONS).sweep(token)).removed).toBe(0);
});

test('a pass is bounded, says so, and the next goes on', async () => {
  const { clock, stores, elect, orphan } = setUp();
  const token = elect();
  for (let i = 0; i < 25; i++) await orphan(JOB.jobId, `${i}`);
  await clock.advance(2 * HOUR_MS);
  const sweeper = stores.sweeper({ ...OPTIONS, deletionsMax: 10 });
  expect(await sweeper.sweep(token)).toMatchObject({ removed: 10, more: true });
  expect(await sweeper.sweep(token)).toMatchObject({ removed: 10, more: true });
  expect(await sweeper.sweep(token)).toMatchObject({ removed: 5, more: false });
});

test('with a store away a pass removes nothing, and says so', async () => {
  const { clock, stores, elect, orphan, objects, model, world } = setUp();
  const token = elect();
  await stores.jobGraphs.submit(JOB, token, {});
  await stores.checkpoints.completed(JOB.jobId).add(await world.snapshot(JOB, 1), token);
  await orphan(JOB.jobId, 'a');
  await clock.advance(2 * HOUR_MS);
  const before = await world.objectKeys();
  objects.intercept = ({ kind }) => {
    if (kind === 'get') throw new Error('S3 is away');
  };
  await expect(stores.sweeper(OPTIONS).sweep(token)).rejects.toThrow('S3 is away');
  objects.intercept = undefined;
  model.intercept = ({ kind }) => (kind === 'list' ? { kind: 'failBefore' } : undefined);
  await expect(stores.sweeper(OPTIONS).sweep(token)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  model.intercept = undefined;
  expect(await world.objectKeys()).toEqual(before);
});

test('it sweeps while its replica leads, pauses in doubt, and gives up leadership when fenced', async () => {
  const { clock, stores, elect, orphan, objects } = setUp();
  const token = elect();
  const abdications: string[] = [];
  let valid = true;
  const leadership: Leadership = { token, isValid: () => valid, abdicate: (reason) => void abdications.push(reason) };
  const sweeper = stores.sweeper(OPTIONS);
  const orphans = async () => {
    let count = 0;
    for await (const _ of objects.list('')) count++;
    return count;
  };
  sweeper.granted(leadership);
  await orphan(JOB.jobId, 'a');
  sweeper.suspended();
  await clock.advance(2 * HOUR_MS);
  expect(await orphans()).toBe(1);
  sweeper.resumed();
  valid = false;
  await clock.advance(HOUR_MS);
  expect(await orphans()).toBe(1);
  valid = true;
  await clock.advance(600_000);
  expect(await orphans()).toBe(0);
  elect();
  await orphan(JOB.jobId, 'b');
  await clock.advance(2 * HOUR_MS);
  expect(await orphans()).toBe(1);
  expect(abdications).not.toEqual([]);
  sweeper.revoked();
  expect(clock.pending).toBe(0);
  await sweeper.close();
});

test('a grace that writers could overrun is refused', () => {
  const { stores } = setUp();
  expect(() => stores.sweeper({ graceMs: 60_000, intervalMs: 1 })).toThrow('gc.grace');
});
