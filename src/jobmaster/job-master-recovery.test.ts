import { expect, test } from 'vitest';
import { emptyMetadata, objectState, SOURCE_OPERATOR } from '../checkpoint/checkpoint.fixture.ts';
import { CorruptError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import { asOperatorId } from '../kernel/ids.ts';
import { JobBench } from './job-bench.fixture.ts';

const CORRUPT = new CorruptError('digest does not match');

function benchWithTwo(recoveryFallback: 'none' | 'previous' | 'fresh') {
  const bench = new JobBench({ recoveryFallback });
  bench.stores.seed(emptyMetadata(6, '1-1'));
  bench.stores.seed(emptyMetadata(7, '1-1'));
  bench.stores.unreadable.set(7, CORRUPT);
  return bench;
}

const restoredFrom = (bench: JobBench) => bench.worker(0).deployments.at(-1)?.tasks[0]?.restore?.checkpointId;

test('a corrupt newest checkpoint: the job says so, starts from nothing else, and tries again until it can be read', async () => {
  const bench = await benchWithTwo('none').started();
  expect(bench.status).toBe('RESTARTING');
  const details = bench.master.details();
  expect(details.waitingFor).toMatch(/trying again to restore \(failed once\): checkpoint 7 cannot be read: digest/);
  expect(details.exceptions.root).toMatchObject({ name: 'CORRUPT' });
  await bench.pass(120_000);
  expect(bench.deployments()).toEqual([]);
  expect(bench.outcome).toBeUndefined();
  expect(bench.master.details().exceptions.history).toHaveLength(1);
  bench.stores.unreadable.clear();
  await bench.pass(35_000);
  expect(bench.status).toBe('RUNNING');
  expect(restoredFrom(bench)).toBe(7);
});

test('told to, a job takes the checkpoint before the corrupt one, and the exception stays visible', async () => {
  const bench = await benchWithTwo('previous').started();
  expect(bench.status).toBe('RUNNING');
  expect(restoredFrom(bench)).toBe(6);
  expect(bench.master.details().exceptions.root?.name).toBe('CORRUPT');
  // Ids go on above the corrupt one.
  await bench.pass(1_000);
  expect(bench.stores.pointers.has(8)).toBe(true);
});

test('told to take the previous one, a job with none that can be read waits all the same', async () => {
  const bench = benchWithTwo('previous');
  bench.stores.unreadable.set(6, CORRUPT);
  await bench.started();
  expect(bench.master.details().waitingFor).toContain('none of 2 completed checkpoints can be read');
  expect(bench.deployments()).toEqual([]);
});

test('told to, a job starts empty when its newest checkpoint is corrupt', async () => {
  const bench = await benchWithTwo('fresh').started();
  expect(bench.status).toBe('RUNNING');
  expect(restoredFrom(bench)).toBeUndefined();
});

test('a store that is away is waited for, whatever the fallback', async () => {
  for (const fallback of ['none', 'previous', 'fresh'] as const) {
    const bench = benchWithTwo(fallback);
    bench.stores.unreadable.set(7, new UnavailableError('S3 is away'));
    await bench.started();
    await bench.pass(60_000);
    expect(bench.deployments()).toEqual([]);
    bench.stores.unreadable.clear();
    await bench.pass(35_000);
    expect(restoredFrom(bench)).toBe(7);
  }
});

test('a checkpoint with state that the graph has no place for is never dropped silently', async () => {
  const bench = new JobBench();
  const metadata = emptyMetadata(3, '1-1');
  const stranger = asOperatorId('9'.repeat(32));
  const [operator] = metadata.operators;
  if (operator === undefined) throw new Error('operator');
  bench.stores.seed({
    ...metadata,
    operators: [{ ...operator, operatorId: stranger, subtasks: [objectState(stranger, 'x')] }],
  });
  await bench.started();
  expect(bench.status).toBe('RESTARTING');
  expect(bench.deployments()).toEqual([]);
});

test('a savepoint is restored on the first start; once the job has a checkpoint of its own that one counts', async () => {
  const bench = new JobBench({ restoreFrom: { metadataKey: 'their/savepoint', allowNonRestoredState: false } });
  const metadata = emptyMetadata(41, '1-1');
  bench.stores.external.set('their/savepoint', {
    ...metadata,
    kind: 'SAVEPOINT',
    operators: metadata.operators.map((operator) =>
      operator.operatorId === SOURCE_OPERATOR
        ? { ...operator, subtasks: [objectState(SOURCE_OPERATOR, 'their/state')] }
        : operator,
    ),
  });
  await bench.started();
  expect(restoredFrom(bench)).toBe(41);
  expect(bench.master.details().checkpoints.latestRestored).toMatchObject({ id: 41, isSavepoint: true });
  bench.failTask(bench.worker(0));
  await bench.pass(200);
  expect(restoredFrom(bench)).toBe(41);
  await bench.pass(1_000);
  bench.failTask(bench.worker(0));
  await bench.pass(200);
  expect(restoredFrom(bench)).toBe(1);
});

test('a savepoint that does not exist fails the job at once: no retry could help', async () => {
  const bench = await new JobBench({
    restoreFrom: { metadataKey: 'nowhere', allowNonRestoredState: false },
  }).started();
  expect(bench.outcome).toMatchObject({ status: 'FAILED', error: { code: 'NOT_FOUND' } });
  expect(bench.deployments()).toEqual([]);
});

test('a savepoint that cannot be reached is waited for', async () => {
  const bench = new JobBench({ restoreFrom: { metadataKey: 'nowhere', allowNonRestoredState: false } });
  bench.stores.away = new UnavailableError('S3 is away');
  await bench.started();
  await bench.pass(60_000);
  expect(bench.outcome).toBeUndefined();
  expect(bench.status).toBe('RESTARTING');
});

test('a fence found while reading ends this master', async () => {
  const bench = new JobBench();
  bench.stores.away = new MillraceError('FENCED', 'no longer leading');
  await bench.started();
  expect(bench.fenced).toHaveLength(1);
});

test('a new term cancels at once what was to be cancelled, and ends what an earlier term left running', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  await bench.master.close();
  bench.start({ cancelRequested: true }, 2);
  await bench.pass(100);
  expect(bench.status).toBe('CANCELLING');
  expect(bench.cluster.liveDeployments().size).toBe(0);
  await bench.pass(2_000);
  expect(bench.outcome?.status).toBe('CANCELED');
  expect(bench.deployments()).toEqual(['1-1']);
});
