import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { JobId } from '../kernel/ids.ts';
import { rangeSource, type RangeRecord, Valve } from '../subtask/testing/range-source.ts';
import { TransactionalStore } from '../subtask/testing/transactional-store.ts';
import { InProcessCluster } from './testing/in-process-cluster.ts';

/** Jobs of which some sources have long ended while others run on. */
type Count = { readonly key: string; readonly n: number };

const clusters: InProcessCluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((cluster) => cluster.close()));
});

async function cluster(): Promise<InProcessCluster> {
  const made = await InProcessCluster.start(8);
  clusters.push(made);
  return made;
}

const SHORT = 25;
const LONG = 1_000_000;
const KEYS = 6;

interface World {
  readonly store: TransactionalStore<Count>;
  readonly valve: Valve;
}

/** Two subtasks of one source, of which the first ends early, and a second source that ends early as a whole. */
const counting =
  ({ store, valve }: World, parallelism: number, extra?: World) =>
  (env: StreamExecutionEnvironment): void => {
    env.enableCheckpointing(20);
    env.getCheckpointConfig().setExternalizedCheckpointRetention('RETAIN_ON_CANCELLATION');
    env.setBufferTimeout(1);
    const named =
      (name: string) =>
      ({ n }: RangeRecord): Count => ({ key: `${name}${n % KEYS}`, n: 1 });
    const mixed = env
      .fromSource(rangeSource([SHORT, LONG], valve))
      .uid('mixed')
      .setParallelism(2)
      .map(named('mixed'))
      .setParallelism(2);
    const early = env
      .fromSource(rangeSource([SHORT]))
      .uid('early')
      .setParallelism(1)
      .map(named('early'))
      .setParallelism(1);
    mixed
      .union(early)
      .keyBy(({ key }) => key)
      .reduce((a, b) => ({ key: a.key, n: a.n + b.n }))
      .uid('counts')
      .setParallelism(parallelism)
      .sinkTo(store.sink())
      .uid('store')
      .setParallelism(parallelism);
    if (extra === undefined) return;
    env
      .fromSource(rangeSource([LONG], extra.valve))
      .uid('added')
      .setParallelism(1)
      .map(named('added'))
      .setParallelism(1)
      .sinkTo(extra.store.sink())
      .uid('added store')
      .setParallelism(1);
  };

const world = (limit: number): World => ({ store: new TransactionalStore(), valve: new Valve(limit) });

/** So many of the long split, and all of the two short ones: each count once. */
function expectExact({ store }: World, long: number): void {
  const byKey = new Map<string, number[]>();
  for (const { key, n } of store.committed) byKey.set(key, [...(byKey.get(key) ?? []), n]);
  const among = (end: number, key: number) => Math.ceil((end - key) / KEYS);
  for (let key = 0; key < KEYS; key++) {
    const counts = (name: string, of: number) =>
      expect({ name, key, counts: (byKey.get(`${name}${key}`) ?? []).sort((a, b) => a - b) }).toEqual({
        name,
        key,
        counts: Array.from({ length: of }, (_, i) => i + 1),
      });
    counts('mixed', among(SHORT, key) + among(long, key));
    counts('early', among(SHORT, key));
  }
}

const committed = (at: World, long: number) =>
  until(`${long} of the long split`, () => at.store.committed.length === long + 2 * SHORT);

/** Both early ends are past, and checkpoints have completed since. */
async function longAfterTheEnds(at: InProcessCluster, jobId: JobId): Promise<string> {
  const view = () => at.leading(() => at.dispatcher.requestJob(jobId));
  await until('two subtasks to finish', async () => {
    const finished = (await view()).vertices.flatMap(({ subtasks }) =>
      subtasks.filter(({ state }) => state === 'FINISHED'),
    );
    return finished.length >= 2;
  });
  const { completed } = (await view()).checkpoints.counts;
  await until('checkpoints without them', async () => (await view()).checkpoints.counts.completed >= completed + 2);
  const newest = (await view()).checkpoints.latestCompleted?.metadataKey;
  if (newest === undefined) throw new Error('no checkpoint');
  return newest;
}

test.each([1, 3])(
  'checkpoints go on after some sources have finished; restored from one with %i subtasks they do not run again',
  async (parallelism) => {
    const [at, w] = [await cluster(), world(60)];
    const first = await at.run(counting(w, 2));
    await committed(w, 60);
    await longAfterTheEnds(at, first);
    await at.dispatcher.cancelJob(first);
    expect(await at.ended(first)).toBe('CANCELED');
    const pointers = await at.stores.checkpoints.completed(first).listIds();
    expect(pointers).toEqual([]); // kept, but nobody's any more
    const kept: string[] = [];
    for await (const { key } of at.objects.list(`test/jobs/${first}/checkpoints/`)) kept.push(key);
    const metadataKey = kept.at(-1) ?? '';
    expect(kept).toHaveLength(1);

    w.valve.open(90);
    const second = await at.run(counting(w, parallelism), { metadataKey, allowNonRestoredState: false });
    await at.running(second).catch(() => undefined); // the ended ones may have finished again by now
    await committed(w, 90);
    expectExact(w, 90);
  },
);

test('a savepoint taken long after some sources have finished stands on its own, and they do not run again', async () => {
  const [at, w] = [await cluster(), world(60)];
  const first = await at.run(counting(w, 2));
  await committed(w, 60);
  await longAfterTheEnds(at, first);
  const triggerId = await at.dispatcher.triggerSavepoint(first, { stop: 'SUSPEND' });
  const { location = '' } = await at.result(first, triggerId);
  // The state of finished tasks was copied: nothing of the job is needed any more.
  const left: string[] = [];
  await until('the clean-up', async () => {
    left.length = 0;
    for await (const { key } of at.objects.list(`test/jobs/${first}/`)) left.push(key);
    return left.every((key) => key.includes('/details-'));
  });
  w.valve.open(80);
  const metadataKey = at.stores.savepoints.resolve(location);
  await at.run(counting(w, 3), { metadataKey, allowNonRestoredState: false });
  await committed(w, 80);
  expectExact(w, 80);
});

test('a source that a restored job did not have before begins at its beginning', async () => {
  const [at, w, extra] = [await cluster(), world(60), world(SHORT)];
  const first = await at.run(counting(w, 2));
  await committed(w, 60);
  const triggerId = await at.dispatcher.triggerSavepoint(first, { stop: 'SUSPEND' });
  const { location = '' } = await at.result(first, triggerId);
  w.valve.open(70);
  const metadataKey = at.stores.savepoints.resolve(location);
  const second = await at.run(counting(w, 2, extra), { metadataKey, allowNonRestoredState: false });
  await committed(w, 70);
  await until('the new source', () => extra.store.committed.length === SHORT);
  expectExact(w, 70);

  // The other way round: state of a source that is gone is dropped only if that is allowed.
  const again = await at.dispatcher.triggerSavepoint(second, { stop: 'SUSPEND' });
  const { location: other = '' } = await at.result(second, again);
  const restoreFrom = { metadataKey: at.stores.savepoints.resolve(other), allowNonRestoredState: false };
  const refused = await at.run(counting(w, 2), restoreFrom);
  expect(await at.ended(refused)).toBe('FAILED');
  const job = await at.leading(() => at.dispatcher.requestJob(refused));
  expect(job.exceptions.root?.message).toContain('which the job does not have any more');
  w.valve.open(75);
  await at.run(counting(w, 2), { ...restoreFrom, allowNonRestoredState: true });
  await committed(w, 75);
});

test('keyed state of another maxParallelism is refused, with what to do', async () => {
  const [at, w] = [await cluster(), world(60)];
  const first = await at.run(counting(w, 2));
  await committed(w, 60);
  const triggerId = await at.dispatcher.triggerSavepoint(first, { stop: 'SUSPEND' });
  const { location = '' } = await at.result(first, triggerId);
  const wider = await at.run(
    (env) => {
      env.setMaxParallelism(64);
      counting(w, 2)(env);
    },
    { metadataKey: at.stores.savepoints.resolve(location), allowNonRestoredState: false },
  );
  expect(await at.ended(wider)).toBe('FAILED');
  const job = await at.leading(() => at.dispatcher.requestJob(wider));
  expect(job.exceptions.root?.message).toContain('128 key groups');
});
