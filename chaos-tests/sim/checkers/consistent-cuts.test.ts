import { expect, test } from 'vitest';
import { ClusterKeys } from '../../../ha/stores/cluster-keys.ts';
import { asJobId } from '../../../src/kernel/ids.ts';
import type { CheckpointAck } from '../../../src/contracts/task.ts';
import { makeConfig } from '../sim-config.ts';
import type { SimWorld } from '../sim-world.ts';
import { consistentCuts } from './consistent-cuts.ts';

/** One job with one source of one split, and one task that counts, of which the checker hears. */
function story({ after = false } = {}) {
  const keys = new ClusterKeys('sim');
  const config = makeConfig(1);
  const [job] = config.jobs;
  if (job === undefined) throw new Error('a schedule has a job');
  const vertex = (id: string, kind: string, splits?: readonly object[]) => ({
    ...{ id, name: kind, parallelism: 1, maxParallelism: 8, slotSharingGroup: 'default' },
    operators: [{ id, name: kind, kind, inputs: [], ...(splits === undefined ? {} : { splits }) }],
  });
  const vertices = [vertex('source', 'source', [{ split: 0, next: 0, end: 100 }]), vertex('count', 'count')];
  const former = asJobId('f'.repeat(32));
  const restoreFrom = { metadataKey: 'm', allowNonRestoredState: false };
  const graph = { ...job.graph, ...(after ? { restoreFrom } : {}), vertices: vertices as never };
  const violations: string[] = [];
  const world = {
    ...{ keys, config: { ...config, jobs: [{ ...job, graph, after: after ? former : undefined }] } },
    violated: (_: number, message: string) => void violations.push(message),
  };
  const checker = consistentCuts(world as never as SimWorld);
  const { jobId } = graph;
  type Seen = { readonly read?: number; readonly records?: number; readonly final?: boolean };
  const ack = (vertexId: string, checkpointId: number, seen: Seen, by = jobId) =>
    checker.checkpointAcked?.(
      { jobId: by, vertexId, subtaskIndex: 0, attemptId: vertexId, checkpointId } as never as CheckpointAck,
      seen.final ?? false,
      {
        splits: seen.read === undefined ? [] : [{ split: 0, next: seen.read, end: 100 }],
        records: seen.records ?? 0,
      },
    );
  const pointer = (checkpointId: number, value: object = {}) => {
    const key = keys.checkpoint(jobId, checkpointId);
    const entry = { key, value: JSON.stringify(value), modRevision: 1n, createRevision: 1n };
    const set = { revision: 1n, changes: [{ kind: 'put', entry }] };
    checker.changed?.({ set, writer: 'm0', transaction: undefined, leaderBefore: undefined } as never);
  };
  const start = (vertexId: string, checkpointId: number) => {
    const task = { vertexId, subtaskIndex: 0, attemptId: vertexId, restore: { checkpointId, operators: [] } };
    checker.taskStarted?.('w0', { jobId, graph, tasks: [task] } as never, vertexId as never);
  };
  return { ack, pointer, start, former, violations };
}

test('a source that finished because its job stopped counts with what it had read by then', () => {
  const { ack, pointer, violations } = story();
  ack('source', 4, { read: 40, final: true });
  ack('count', 4, { records: 40, final: true });
  pointer(4, { stop: 'DRAIN' });
  ack('count', 6, { records: 40, final: true }); // The next leader lets it finish; the source has finished.
  pointer(6);
  expect(violations).toEqual([]);
});

test('a record that was read by the stop and is not counted behind it is found', () => {
  const { ack, pointer, violations } = story();
  ack('source', 4, { read: 40, final: true });
  ack('count', 4, { records: 40, final: true });
  pointer(4, { stop: 'DRAIN' });
  ack('count', 6, { records: 39, final: true });
  pointer(6);
  expect(violations).toEqual([expect.stringContaining('read 40 records and counted 39')]);
});

test('a source that finished without a stop counts with all its input, whatever it had told of before', () => {
  const { ack, pointer, violations } = story();
  ack('source', 4, { read: 40, final: true }); // Of a stop that was given up: it has no pointer.
  ack('count', 5, { records: 40, final: true });
  pointer(5);
  expect(violations).toEqual([expect.stringContaining('read 100 records and counted 40')]);
});

test('a source that finished before its job stopped counts with all its input', () => {
  const { ack, pointer, violations } = story();
  ack('count', 4, { records: 100, final: true });
  pointer(4, { stop: 'SUSPEND' });
  ack('count', 6, { records: 100, final: true });
  pointer(6);
  expect(violations).toEqual([]);
});

test('a job that starts twice from a savepoint is counted from there, also when it began a checkpoint of the same id', () => {
  const { ack, pointer, start, former, violations } = story({ after: true });
  ack('count', 1, { records: 30 }, former);
  start('count', 1);
  ack('count', 1, { records: 11 }); // Its own first, which was given up.
  start('count', 1);
  ack('source', 2, { read: 50 });
  ack('count', 2, { records: 20 });
  pointer(2);
  expect(violations).toEqual([]);
});
