import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { JobId } from '../kernel/ids.ts';
import { rangeSource, Valve } from '../subtask/testing/range-source.ts';
import { TransactionalStore } from '../subtask/testing/transactional-store.ts';
import { InProcessCluster } from './testing/in-process-cluster.ts';

/** Savepoints as a user meets them, over the whole control plane, with leaders that are replaced in between. */
type Count = { readonly key: number; readonly n: number };

const clusters: InProcessCluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((cluster) => cluster.close()));
});

async function cluster(slots = 4): Promise<InProcessCluster> {
  const made = await InProcessCluster.start(slots);
  clusters.push(made);
  return made;
}

const KEYS = 7;
const END = Number.MAX_SAFE_INTEGER;

interface World {
  readonly store: TransactionalStore<Count>;
  readonly valve: Valve;
}

/** Counts the numbers of three endless sources by key; every count goes to a sink that commits with checkpoints. */
const counting =
  ({ store, valve }: World, parallelism = 2, intervalMs = 20) =>
  (env: StreamExecutionEnvironment) => {
    env.setParallelism(parallelism);
    env.enableCheckpointing(intervalMs);
    env.setBufferTimeout(1);
    env
      .fromSource(rangeSource([END, END, END], valve, { endless: true }))
      .uid('numbers')
      .map(({ n }): Count => ({ key: n % KEYS, n: 1 }))
      .keyBy(({ key }) => key)
      .reduce((a, b) => ({ key: a.key, n: a.n + b.n }))
      .uid('counts')
      .sinkTo(store.sink())
      .uid('store');
  };

const world = (limit: number): World => ({ store: new TransactionalStore(), valve: new Valve(limit) });

/** Each count from 1 to the last, once: nothing lost, nothing twice. */
function expectExact({ store }: World, perSource: number): void {
  const byKey = new Map<number, number[]>();
  for (const { key, n } of store.committed) byKey.set(key, [...(byKey.get(key) ?? []), n]);
  for (let key = 0; key < KEYS; key++) {
    const of = 3 * Math.ceil((perSource - key) / KEYS);
    expect((byKey.get(key) ?? []).sort((a, b) => a - b)).toEqual(Array.from({ length: of }, (_, i) => i + 1));
  }
}

const committed = (at: World, perSource: number) =>
  until(`${perSource} of each source to be committed`, () => at.store.committed.length === 3 * perSource);

async function location(
  at: InProcessCluster,
  jobId: JobId,
  trigger: Parameters<typeof at.dispatcher.triggerSavepoint>[1] = {},
) {
  const id = await at.dispatcher.triggerSavepoint(jobId, trigger);
  const result = await at.result(jobId, id);
  if (result.location === undefined) throw new Error(result.failure?.message);
  return result.location;
}

const objectsUnder = async (at: InProcessCluster, prefix: string) => {
  const found: string[] = [];
  for await (const { key } of at.objects.list(prefix)) found.push(key);
  return found;
};

test('a savepoint is its own folder; the job goes on, and another starts from it with another parallelism', async () => {
  const [at, w] = [await cluster(), world(40)];
  const first = await at.run(counting(w));
  await at.running(first);
  await committed(w, 40);
  const path = await location(at, first, { targetDirectory: 'weekly' });
  expect(path).toMatch(/^memory:test\/savepoints\/weekly\/savepoint-[0-9a-f]{6}-[0-9a-f]{12}$/);
  const metadataKey = at.stores.savepoints.resolve(path);
  const { metadata } = await at.stores.checkpoints.readExternal(metadataKey);
  expect(metadata.kind).toBe('SAVEPOINT');
  const folder = metadataKey.slice(0, metadataKey.lastIndexOf('/') + 1);
  const objects = metadata.operators.flatMap(({ subtasks }) =>
    subtasks.flatMap(({ keyed, operator }) => [...keyed, ...operator].map(({ handle }) => handle)),
  );
  const keys = objects.flatMap((handle) => (handle.kind === 'object' ? [handle.key] : []));
  expect(keys.length).toBeGreaterThan(0);
  for (const key of keys) expect(key.startsWith(folder)).toBe(true);

  w.valve.open(50);
  await committed(w, 50);
  await at.dispatcher.cancelJob(first);
  expect(await at.ended(first)).toBe('CANCELED');
  expectExact(w, 50);
  // What was counted since the savepoint is counted again: it is the past.
  const again = { store: new TransactionalStore<Count>(), valve: w.valve };
  const second = await at.run(counting(again, 3), { metadataKey, allowNonRestoredState: false });
  await until('the rest', () => again.store.committed.length === 30);
  expect(again.store.committed.every(({ n }) => n > 3 * Math.floor(40 / KEYS))).toBe(true);
  await at.dispatcher.cancelJob(second);
  await at.ended(second);
});

test('a stopped job has FINISHED, its output is committed, and it goes on from the savepoint with another parallelism', async () => {
  const [at, w] = [await cluster(), world(40)];
  const jobId = await at.run(counting(w, 2));
  await at.running(jobId);
  const path = await location(at, jobId, { stop: 'SUSPEND' });
  expect(await at.status(jobId)).toBe('FINISHED');
  const sofar = w.store.committed.length;
  w.valve.open(70);
  const metadataKey = at.stores.savepoints.resolve(path);
  const second = await at.run(counting(w, 4), { metadataKey, allowNonRestoredState: false });
  await committed(w, 70);
  expect(sofar).toBeLessThanOrEqual(120);
  expectExact(w, 70);
  await location(at, second, { stop: 'DRAIN' });
  expect(await at.status(second)).toBe('FINISHED');
  expectExact(w, 70);
});

test('a trigger id stands for one savepoint, however often it is sent, also behind the end of the job', async () => {
  const [at, w] = [await cluster(), world(20)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  const triggerId = at.random.hex(16) as never;
  expect(await at.dispatcher.triggerSavepoint(jobId, { triggerId, stop: 'SUSPEND' })).toBe(triggerId);
  expect(await at.dispatcher.triggerSavepoint(jobId, { triggerId, stop: 'SUSPEND' })).toBe(triggerId);
  const { location: path } = await at.result(jobId, triggerId);
  expect(await at.dispatcher.triggerSavepoint(jobId, { triggerId, stop: 'SUSPEND' })).toBe(triggerId);
  // A second stop is refused, and the first one's success stays what it is.
  await expect(at.dispatcher.triggerSavepoint(jobId, { stop: 'DRAIN' })).rejects.toMatchObject({ code: 'CONFLICT' });
  expect(await at.result(jobId, triggerId)).toMatchObject({ location: path });
  const all = await objectsUnder(at, 'test/savepoints/');
  expect(all.filter((key) => key.endsWith('_metadata'))).toHaveLength(1);
});

test('a savepoint that was asked for survives the leader: the next one takes it, under the same trigger', async () => {
  const [at, w] = [await cluster(), world(30)];
  const jobId = await at.run(counting(w, 2, 100_000));
  await at.running(jobId);
  at.lost.add('triggerCheckpoint');
  const triggerId = await at.dispatcher.triggerSavepoint(jobId, {});
  at.replaceLeader();
  at.lost.clear();
  const result = await at.result(jobId, triggerId);
  expect(result.failure).toBeUndefined();
  // In a folder of its own: the former leader may still write to the one that it was asked for.
  expect(result.location).toMatch(new RegExp(`/${at.token}$`));
  const metadataKey = at.stores.savepoints.resolve(result.location ?? '');
  expect((await at.stores.checkpoints.readExternal(metadataKey)).metadata.kind).toBe('SAVEPOINT');
  await at.dispatcher.cancelJob(jobId);
  await at.ended(jobId);
});

test('a job that was told to stop stops under the next leader, with its output exact', async () => {
  const [at, w] = [await cluster(), world(40)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  at.lost.add('triggerCheckpoint');
  const triggerId = await at.dispatcher.triggerSavepoint(jobId, { stop: 'SUSPEND' });
  at.replaceLeader();
  at.lost.clear();
  const { location: path } = await at.result(jobId, triggerId);
  expect(await at.status(jobId)).toBe('FINISHED');
  w.valve.open(60);
  const metadataKey = at.stores.savepoints.resolve(path ?? '');
  await at.run(counting(w, 3), { metadataKey, allowNonRestoredState: false });
  await committed(w, 60);
  expectExact(w, 60);
});

test('a leader that dies between the savepoint and the end of the tasks leaves a job that only finishes', async () => {
  const [at, w] = [await cluster(), world(40)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  at.lost.add('notifyCheckpointComplete');
  const triggerId = await at.dispatcher.triggerSavepoint(jobId, { stop: 'SUSPEND' });
  await until('the savepoint', async () => {
    const operation = await at.stores.operations.get(jobId, triggerId);
    return operation?.result?.kind === 'SUCCESS';
  });
  // In Flink's words it is still in progress: the job has not ended.
  expect(await at.dispatcher.requestOperation(jobId, 'SAVEPOINT', triggerId)).toEqual({ status: 'IN_PROGRESS' });
  w.valve.open(60);
  at.replaceLeader();
  at.lost.clear();
  const { location: path } = await at.result(jobId, triggerId);
  expect(await at.status(jobId)).toBe('FINISHED');
  expect(w.store.committed.length).toBeLessThanOrEqual(120);
  const metadataKey = at.stores.savepoints.resolve(path ?? '');
  await at.run(counting(w, 1), { metadataKey, allowNonRestoredState: false });
  await committed(w, 60);
  expectExact(w, 60);
});

test('cancelled with a savepoint, a job is CANCELED and the savepoint holds what was not committed', async () => {
  const [at, w] = [await cluster(), world(40)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  const path = await location(at, jobId, { cancelJob: true });
  expect(await at.ended(jobId)).toBe('CANCELED');
  w.valve.open(60);
  const metadataKey = at.stores.savepoints.resolve(path);
  await at.run(counting(w, 3), { metadataKey, allowNonRestoredState: false });
  await committed(w, 60);
  expectExact(w, 60);
});

test('NO_CLAIM leaves a savepoint to its user, who may dispose of it; CLAIM hands it to the job, which removes it', async () => {
  const [at, w] = [await cluster(), world(20)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  const path = await location(at, jobId, { stop: 'SUSPEND' });
  const metadataKey = at.stores.savepoints.resolve(path);

  const kept = await at
    .run(counting({ ...w, store: new TransactionalStore() }), {
      metadataKey,
      allowNonRestoredState: false,
      claimMode: 'NO_CLAIM',
    })
    .catch((error: unknown) => error);
  // The sink of another world does not know the transactions of this one: that job can only fail.
  await at.dispatcher.cancelJob(kept as JobId);
  await at.ended(kept as JobId);
  expect(await objectsUnder(at, 'test/savepoints/')).toContain(metadataKey);

  const owner = await at.run(counting(w), { metadataKey, allowNonRestoredState: false, claimMode: 'CLAIM' });
  await at.running(owner);
  w.valve.open(30);
  await committed(w, 30);
  await until(
    'the claimed savepoint to be subsumed',
    async () => (await objectsUnder(at, 'test/savepoints/')).length === 0,
  );
  expectExact(w, 30);
  await expect(
    at.run(counting(w), { metadataKey, allowNonRestoredState: false, claimMode: 'CLAIM' }).then((id) => at.ended(id)),
  ).resolves.toBe('FAILED');

  const own = await location(at, owner);
  await at.dispatcher.cancelJob(owner);
  await at.ended(owner);
  const disposal = await at.dispatcher.disposeSavepoint(own);
  await until('the disposal', async () => (await at.dispatcher.requestDisposal(disposal)).status === 'COMPLETED');
  expect(await at.dispatcher.requestDisposal(disposal)).toEqual({ status: 'COMPLETED' });
  expect(await objectsUnder(at, 'test/savepoints/')).toEqual([]);
  const again = await at.dispatcher.disposeSavepoint(own);
  await until('the refusal', async () => {
    const view = await at.dispatcher.requestDisposal(again);
    return view.status === 'COMPLETED' && view.failure?.code === 'NOT_FOUND';
  });
});

test('a checkpoint on request is taken without an interval, and its id is told', async () => {
  const [at, w] = [await cluster(), world(20)];
  const jobId = await at.run(counting(w, 2, 100_000));
  await at.running(jobId);
  const triggerId = await at.dispatcher.triggerCheckpoint(jobId, { full: true });
  const { checkpointId, location: none } = await at.result(jobId, triggerId, 'CHECKPOINT');
  expect(none).toBeUndefined();
  const [newest] = await at.stores.checkpoints.completed(jobId).listIds();
  expect(newest).toMatchObject({ checkpointId, kind: 'CHECKPOINT' });
  await until('what it covers to be committed', () => w.store.committed.length > 0);
  await expect(at.dispatcher.requestOperation(jobId, 'SAVEPOINT', triggerId)).rejects.toMatchObject({
    code: 'NOT_FOUND',
  });
});

test('what cannot be is refused: unknown jobs, jobs that do not run, targets outside of the store', async () => {
  const [at, w] = [await cluster(), world(20)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  for (const targetDirectory of ['ftp://elsewhere/x', 'file:/elsewhere', '../up', 'a b', 'memory:test/jobs/x']) {
    await expect(at.dispatcher.triggerSavepoint(jobId, { targetDirectory })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  }
  await expect(at.dispatcher.triggerSavepoint('e'.repeat(32) as JobId, {})).rejects.toMatchObject({
    code: 'NOT_FOUND',
  });
  await at.dispatcher.cancelJob(jobId);
  await at.ended(jobId);
  await expect(at.dispatcher.triggerSavepoint(jobId, {})).rejects.toMatchObject({ code: 'CONFLICT' });
});

test('a second stop while the first is under way is refused, and the first one’s success stays what it is', async () => {
  const [at, w] = [await cluster(), world(20)];
  const jobId = await at.run(counting(w));
  await at.running(jobId);
  at.lost.add('notifyCheckpointComplete');
  const first = await at.dispatcher.triggerSavepoint(jobId, { stop: 'SUSPEND' });
  await expect(at.dispatcher.triggerSavepoint(jobId, { stop: 'DRAIN' })).rejects.toMatchObject({ code: 'CONFLICT' });
  // Nor by another leader, which knows of it from the store alone.
  at.replaceLeader();
  await expect(at.leading(() => at.dispatcher.triggerSavepoint(jobId, { stop: 'SUSPEND' }))).rejects.toMatchObject({
    code: expect.stringMatching(/CONFLICT|NOT_FOUND/),
  });
  at.lost.clear();
  expect(await at.ended(jobId)).toBe('FINISHED');
  const { location: path } = await at.result(jobId, first);
  expect(path).toBeDefined();
  const all = await objectsUnder(at, 'test/savepoints/');
  expect(all.filter((key) => key.endsWith('_metadata'))).toHaveLength(1);
});
