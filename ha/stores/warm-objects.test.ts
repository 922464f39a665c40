import { afterEach, expect, test } from 'vitest';
import { graphOf } from '../../src/dispatcher/testing/model-peers.ts';
import { asFencingToken, type JobId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { openHaStores } from './ha-stores.ts';
import { WarmObjects, type WarmObjectsOptions } from './warm-objects.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** A leader that stores, and a standby beside it. */
async function world(options: WarmObjectsOptions = {}) {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const memory = new MemoryObjectStore(clock);
  const keys = new ClusterKeys('test');
  const reads: string[] = [];
  const objects = Object.assign(Object.create(memory) as MemoryObjectStore, {
    get: (key: string) => {
      reads.push(key);
      return memory.get(key);
    },
  });
  const deps = { clock, random: new SeededRandom(1), log: silentLogger, coordination: model.client() };
  const leading = model.txn({ guards: [], then: [{ kind: 'put', key: keys.leader, value: 'me' }] });
  const token = asFencingToken(leading.revision);
  const leader = openHaStores({ ...deps, objects: memory }, 'test');
  const warm = WarmObjects.start({ ...deps, objects, keys }, options);
  closers.push(async () => {
    const closed = warm.close();
    await clock.advance(100);
    await closed;
  });
  const standby = openHaStores({ ...deps, objects: warm }, 'test');
  const submit = async (n: number) => {
    const graph = graphOf(n);
    await leader.jobGraphs.submit(graph, token, {});
    return graph.jobId;
  };
  return { clock, model, memory, keys, reads, leader, token, warm, standby, submit };
}

const jobIds = (count: number, submit: (n: number) => Promise<JobId>) =>
  Promise.all(Array.from({ length: count }, (_, i) => submit(i)));

test('a standby holds every graph, so that taking over reads none', async () => {
  const { clock, reads, standby, submit } = await world();
  const ids = await jobIds(20, submit);
  await clock.advance(1_000);
  expect(reads).toHaveLength(20);
  reads.length = 0;
  for (const jobId of ids) {
    const graph = await standby.jobGraphs.load(jobId);
    expect(graph.jobId).toBe(jobId);
    // Decoded ahead, too: it is not done again.
    expect(await standby.jobGraphs.load(jobId)).toBe(graph);
  }
  expect(reads).toEqual([]);
});

test('what changed since is read at the takeover, and what is gone is forgotten', async () => {
  const { clock, model, keys, reads, warm, standby, submit } = await world();
  const [first] = await jobIds(3, submit);
  await clock.advance(1_000);
  reads.length = 0;
  const late = await submit(99);
  expect((await standby.jobGraphs.load(late)).jobId).toBe(late);
  expect(reads).toHaveLength(1);
  model.txn({ guards: [], then: [{ kind: 'delete', key: keys.job(first as JobId) }] });
  await clock.advance(1_000);
  expect(warm.warm.some((key) => key.includes(first ?? ''))).toBe(false);
  expect(warm.warm).toHaveLength(3);
});

test('one graph that is damaged, and one record, block nothing: that job alone fails when it is loaded', async () => {
  const { clock, model, memory, keys, standby, submit } = await world();
  const ids = await jobIds(5, submit);
  const [damaged, unreadable, ...rest] = ids as [JobId, JobId, ...JobId[]];
  for await (const { key } of memory.list(keys.jobObjects(damaged))) {
    await memory.delete([key]);
    await memory.put(key, new Uint8Array([1, 2, 3]));
  }
  model.txn({ guards: [], then: [{ kind: 'put', key: keys.job(unreadable), value: 'not JSON' }] });
  await clock.advance(1_000);
  await expect(standby.jobGraphs.load(damaged)).rejects.toMatchObject({ code: 'CORRUPT' });
  await expect(standby.jobGraphs.load(unreadable)).rejects.toMatchObject({ code: 'CORRUPT' });
  for (const jobId of rest) expect((await standby.jobGraphs.load(jobId)).jobId).toBe(jobId);
});

test('what does not fit is left out and read when it is needed', async () => {
  const { clock, warm, standby, submit } = await world({ bytesMax: 1 });
  const [jobId] = await jobIds(3, submit);
  await clock.advance(1_000);
  expect(warm.warm).toEqual([]);
  expect((await standby.jobGraphs.load(jobId as JobId)).jobId).toBe(jobId);
});

test('a leader keeps what it needs to recover, and then nothing', async () => {
  const { clock, reads, warm, submit } = await world();
  await jobIds(3, submit);
  await clock.advance(1_000);
  warm.pause();
  expect(warm.warm).toHaveLength(3);
  await submit(50);
  await clock.advance(16_000);
  expect(warm.warm).toEqual([]);
  reads.length = 0;
  warm.resume();
  await clock.advance(1_000);
  expect(warm.warm).toHaveLength(4);
});
