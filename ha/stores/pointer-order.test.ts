import { expect, test } from 'vitest';
import { emptyMetadata, objectState, SOURCE_OPERATOR } from '../../src/checkpoint/checkpoint.fixture.ts';
import { detailsOf, graphOf, jobIdOf } from '../../src/dispatcher/testing/model-peers.ts';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { openHaStores } from './ha-stores.ts';

/** Stores in memory whose every deletion of an object is looked at when it happens. */
function watched() {
  const clock = new ManualClock();
  const etcd = new EtcdModel({ clock });
  const objects = new MemoryObjectStore(clock);
  const coordination = etcd.client({ name: 'a' });
  const stores = openHaStores({ coordination, objects, clock, random: new SeededRandom(1), log: silentLogger }, 'test');
  const { revision } = etcd.txn({ guards: [], then: [{ kind: 'put', key: stores.keys.leader, value: 'x' }] });
  const token = asFencingToken(revision);
  const deleted: string[] = [];
  const tooEarly: string[] = [];
  /** State that a checkpoint names which a pointer names. */
  const stateOf = new Map<string, string[]>();
  objects.intercept = ({ kind, key }) => {
    if (kind !== 'delete') return;
    deleted.push(key);
    for (const entry of etcd.list('').entries) {
      // A result also notes which graph is to go: nobody reads that.
      const named = entry.value.includes(`"objectKey":"${key}"`);
      const needed = [...stateOf].some(([metadata, keys]) => keys.includes(key) && entry.value.includes(metadata));
      if (named || needed) tooEarly.push(`${key} is deleted while ${entry.key} needs it`);
    }
  };
  const complete = async (jobId: ReturnType<typeof jobIdOf>, checkpointId: number, shared: string) => {
    const own = stores.keys.stateObjectPrefix(jobId);
    const keys = [`${own}s-${checkpointId}`, `${own}${shared}`];
    for (const key of keys) await objects.put(key, new Uint8Array(10));
    const metadata = emptyMetadata(checkpointId, '1-1');
    const [first, ...rest] = metadata.operators;
    if (first === undefined) throw new Error('operator');
    const subtasks = keys.map((key) => objectState(SOURCE_OPERATOR, key));
    const completed = await stores.checkpoints
      .completed(jobId)
      .add({ ...metadata, jobId, operators: [{ ...first, parallelism: 2, subtasks }, ...rest] }, token);
    stateOf.set(completed.metadataKey, keys);
  };
  return { clock, etcd, objects, stores, token, deleted, tooEarly, complete };
}

test('no object is deleted while a record still needs it: subsuming, ending, cleaning up, forgetting, sweeping', async () => {
  const { clock, stores, token, deleted, tooEarly, complete } = watched();
  for (const n of [1, 2]) {
    const jobId = jobIdOf(n);
    await stores.jobGraphs.submit(graphOf(n), token, {});
    for (let id = 1; id <= 4; id++) {
      await complete(jobId, id, id < 3 ? 'shared-1' : 'shared-2');
      await stores.checkpoints.completed(jobId).subsume(2, token);
    }
    const result = { jobId, name: 'x', status: 'FINISHED' as const, error: undefined, endedWallMs: n };
    await stores.jobResults.complete(result, detailsOf(graphOf(n), 'FINISHED'), token);
    await stores.jobResults.cleanUp(jobId, token);
    await clock.advance(24 * 3_600_000);
    await stores.sweeper({ graceMs: 3_600_000, intervalMs: 3_600_000 }).sweep(token);
  }
  await stores.jobResults.expire(0, token);
  expect(tooEarly).toEqual([]);
  // Something of each kind went at all.
  for (const part of ['/s-1', '/shared-1', '/s-4', '/shared-2', 'graph', 'metadata', 'details'])
    expect(
      deleted.some((key) => key.includes(part)),
      part,
    ).toBe(true);
});

test('a submission that is refused leaves no object behind', async () => {
  const { objects, stores, token } = watched();
  // Both have looked before either was stored.
  const outcomes = await Promise.all([1, 2].map(() => stores.jobGraphs.submit(graphOf(1), token, {})));
  expect(outcomes.map(({ outcome }) => outcome).sort()).toEqual(['created', 'duplicate']);
  const left: string[] = [];
  for await (const { key } of objects.list('')) left.push(key);
  expect(left).toHaveLength(1);
});
