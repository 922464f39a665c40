import { expect, test } from 'vitest';
import type { OperatorSnapshot } from '../contracts/state-handles.ts';
import type { TriggerId } from '../contracts/operations.ts';
import type { TaskManagerGateway } from '../contracts/task-manager-gateway.ts';
import { type ErrorInfo, UnavailableError } from '../kernel/errors.ts';
import { asAttemptId, asTaskManagerId, type DeploymentId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import {
  ackOf,
  emptyMetadata,
  ModelCheckpointStores,
  objectState,
  SINK,
  SINK_OPERATOR,
  SOURCE,
  SOURCE_OPERATOR,
  token,
  twoVertexGraph,
} from './checkpoint.fixture.ts';
import { CheckpointDriver, type ContinuedTasks } from './checkpoint-driver.ts';
import type { RunTask } from './coordinator-state.ts';

const WORKER = asTaskManagerId('w');
const DEPLOYMENT = '1-1' as DeploymentId;

class Bench {
  readonly clock = new ManualClock();
  readonly stores = new ModelCheckpointStores();
  readonly calls: string[] = [];
  /** Calls that do not arrive. */
  readonly lost = new Set<string>();
  readonly failovers: ErrorInfo[] = [];
  readonly fenced: string[] = [];
  readonly driver: CheckpointDriver;
  readonly tasks: RunTask[] = [
    { vertexId: SOURCE, subtaskIndex: 0, attemptId: asAttemptId('a'.repeat(32)), deployment: DEPLOYMENT, upstream: [] },
    {
      vertexId: SINK,
      subtaskIndex: 0,
      attemptId: asAttemptId('b'.repeat(32)),
      deployment: DEPLOYMENT,
      upstream: [SOURCE],
    },
  ];

  constructor(checkpointing: Parameters<typeof twoVertexGraph>[0] = {}) {
    const graph = twoVertexGraph(checkpointing);
    this.driver = new CheckpointDriver({
      clock: this.clock,
      random: new SeededRandom(1),
      log: silentLogger,
      graph,
      token: token(1),
      store: this.stores.completed(graph.jobId),
      counter: this.stores.counter(graph.jobId),
      enqueue: (work) => work(),
      operations: this.stores.operations,
      onCancel: () => this.calls.push('cancel'),
      onFailover: (error) => this.failovers.push(error),
      onFenced: (reason) => this.fenced.push(reason),
    });
  }

  async run(continues?: ContinuedTasks): Promise<this> {
    const call = (name: string) => async (request: { checkpointId: number }) => {
      if (this.lost.has(name)) throw new UnavailableError(`${name} did not arrive`);
      this.calls.push(`${name} ${request.checkpointId}`);
      return {};
    };
    const gateway = {
      triggerCheckpoint: call('trigger'),
      notifyCheckpointComplete: call('complete'),
      notifyCheckpointAborted: call('aborted'),
    } as unknown as TaskManagerGateway;
    this.driver.startRun({
      deployment: DEPLOYMENT,
      tasks: this.tasks.map((task) => ({ ...task, taskManagerId: WORKER })),
      gateways: new Map([[WORKER, gateway]]),
      ...(continues === undefined ? {} : { continues }),
    });
    for (const index of [0, 1]) this.driver.taskChanged(index, 'running', { atEnd: false });
    await this.clock.advance(0);
    return this;
  }

  ack(index: number, checkpointId: number, key?: string) {
    const task = this.tasks[index];
    if (task === undefined) throw new Error('task');
    const operatorId = index === 0 ? SOURCE_OPERATOR : SINK_OPERATOR;
    const state: OperatorSnapshot[] = key === undefined ? [] : [objectState(operatorId, key)];
    return this.driver.acknowledge(ackOf(task, DEPLOYMENT, checkpointId, state));
  }

  async complete(checkpointId: number, keys: readonly [string, string]): Promise<void> {
    this.ack(0, checkpointId, keys[0]);
    this.ack(1, checkpointId, keys[1]);
    await this.clock.advance(0);
  }

  keysOf(checkpointId: number): string[] {
    const handles = this.stores.pointers
      .get(checkpointId)
      ?.operators.flatMap((operator) => operator.subtasks.flatMap((subtask) => subtask.keyed));
    return (handles ?? []).flatMap(({ handle }) => (handle.kind === 'object' ? handle.key : []));
  }
}

test('a completed checkpoint holds every operator and subtask, also those without state', async () => {
  const bench = await new Bench().run();
  await bench.clock.advance(1_000);
  expect(bench.calls).toEqual(['trigger 1']);
  bench.ack(0, 1, 's1');
  bench.ack(1, 1);
  await bench.clock.advance(0);
  expect(bench.stores.pointers.get(1)).toMatchObject({
    checkpointId: 1,
    deployment: DEPLOYMENT,
    stateBytes: 20,
    operators: [
      { operatorId: SOURCE_OPERATOR, parallelism: 1, subtasks: [{ keyed: [{ handle: { key: 's1' } }] }] },
      { operatorId: SINK_OPERATOR, subtasks: [{ operatorId: SINK_OPERATOR, keyed: [], operator: [] }] },
    ],
  });
  expect(bench.calls).toEqual(['trigger 1', 'complete 1']);
});

test('what a finished task left in the last checkpoint is carried into the next', async () => {
  const bench = await new Bench({ checkpointing: { numRetained: 5 } }).run();
  await bench.clock.advance(1_000);
  await bench.complete(1, ['source-end', 'sink-1']);
  bench.driver.taskChanged(0, 'finished', { atEnd: true });
  await bench.clock.advance(1_000);
  expect(bench.ack(0, 2)).toBe('unknown');
  expect(bench.ack(1, 2, 'sink-2')).toBe('acked');
  await bench.clock.advance(0);
  expect(bench.keysOf(2)).toEqual(['source-end', 'sink-2']);
});

test('an acknowledgement with state of a stranger is not completed: restoring would lose that state', async () => {
  const bench = await new Bench({ checkpointing: { tolerableFailedCheckpoints: 0 } }).run();
  await bench.clock.advance(1_000);
  const [source] = bench.tasks;
  if (source === undefined) throw new Error('task');
  bench.driver.acknowledge(ackOf(source, DEPLOYMENT, 1, [objectState(SINK_OPERATOR, 'x')]));
  bench.ack(1, 1);
  await bench.clock.advance(0);
  expect(bench.stores.pointers.size).toBe(0);
  expect(bench.failovers).toMatchObject([{ code: 'INTERNAL' }]);
});

test('objects that a restorable checkpoint refers to are never discarded, whoever else refers to them', async () => {
  const bench = new Bench({ checkpointing: { timeoutMs: 500, numRetained: 1 } });
  const external = emptyMetadata(9, '0-1');
  const [operator] = external.operators;
  if (operator === undefined) throw new Error('operator');
  const shared = { ...operator, subtasks: [objectState(SOURCE_OPERATOR, 'external')] };
  bench.driver.restored(
    { metadata: { ...external, operators: [shared] }, metadataKey: 'k', metadataBytes: 1 },
    { own: false },
  );
  await bench.run();
  await bench.clock.advance(1_000);
  await bench.complete(1, ['shared-1', 'own-1']);
  await bench.clock.advance(1_000);
  bench.ack(0, 2, 'shared-1');
  await bench.clock.advance(500);
  await bench.clock.advance(500);
  bench.ack(0, 3, 'external');
  await bench.clock.advance(500);
  await bench.clock.advance(500);
  bench.ack(0, 4, 'own-4');
  await bench.clock.advance(500);
  expect(bench.driver.view().counts).toMatchObject({ completed: 1, failed: 3 });
  expect(bench.stores.discarded).toEqual(['own-4']);
});

test('pointers appear in the order of their ids, also when several checkpoints are ready at once', async () => {
  const bench = await new Bench({ checkpointing: { maxConcurrent: 3, numRetained: 5 } }).run();
  let open = () => {};
  bench.stores.gate = new Promise((resolve) => {
    open = resolve;
  });
  for (const id of [1, 2, 3]) {
    await bench.clock.advance(1_000);
    await bench.complete(id, [`a${id}`, `b${id}`]);
  }
  expect(bench.stores.log).toEqual([]);
  open();
  await bench.clock.advance(0);
  expect(bench.stores.log.filter((line) => line.startsWith('completed'))).toEqual([
    'completed 1',
    'completed 2',
    'completed 3',
  ]);
  expect(bench.calls.filter((call) => call.startsWith('complete'))).toEqual(['complete 1', 'complete 2', 'complete 3']);
});

test('what a finished task left is taken from the checkpoint before, also from one that was still being written', async () => {
  const bench = await new Bench({ checkpointing: { maxConcurrent: 2, numRetained: 1 } }).run();
  await bench.clock.advance(1_000);
  await bench.complete(1, ['source-1', 'sink-1']);
  let open = () => {};
  bench.stores.gate = new Promise((resolve) => {
    open = resolve;
  });
  await bench.clock.advance(1_000);
  await bench.complete(2, ['source-2', 'sink-2']);
  bench.driver.taskChanged(0, 'finished', { atEnd: true });
  await bench.clock.advance(1_000);
  expect(bench.ack(1, 3, 'sink-3')).toBe('acked');
  open();
  await bench.clock.advance(0);
  // What only checkpoint 1 refers to is deleted when 2 is there.
  expect(bench.keysOf(3)).toEqual(['source-2', 'sink-3']);
});

test('a checkpoint that has its answers after a newer one gets no pointer, and costs the job nothing', async () => {
  const bench = await new Bench({
    checkpointing: { maxConcurrent: 2, numRetained: 5, tolerableFailedCheckpoints: 0 },
  }).run();
  let open = () => {};
  bench.stores.gate = new Promise((resolve) => {
    open = resolve;
  });
  await bench.clock.advance(1_000);
  await bench.clock.advance(1_000);
  await bench.complete(2, ['source-2', 'sink-2']);
  await bench.complete(1, ['source-1', 'sink-1']);
  open();
  await bench.clock.advance(0);
  expect([...bench.stores.pointers.keys()]).toEqual([2]);
  expect(bench.calls.slice(-2)).toEqual(['complete 2', 'aborted 1']);
  expect(bench.stores.discarded).toEqual(['source-1', 'sink-1']);
  expect(bench.failovers).toEqual([]);
});

test('nothing gets a pointer behind the savepoint with which the job stops', async () => {
  const bench = await new Bench({ checkpointing: { maxConcurrent: 2, numRetained: 5 } }).run();
  let open = () => {};
  bench.stores.gate = new Promise((resolve) => {
    open = resolve;
  });
  await bench.clock.advance(1_000);
  const triggerId = 'f'.repeat(32) as TriggerId;
  bench.driver.request({
    triggerId,
    request: { kind: 'SAVEPOINT', location: 's/', stop: 'SUSPEND' },
    startedWallMs: 0,
  });
  await bench.clock.advance(0);
  await bench.complete(2, ['s/source-2', 's/sink-2']);
  await bench.complete(1, ['source-1', 'sink-1']);
  open();
  await bench.clock.advance(0);
  expect([...bench.stores.pointers.keys()]).toEqual([2]);
  expect(bench.stores.discarded).toEqual(['source-1', 'sink-1']);
  expect(bench.failovers).toEqual([]);
});

test('a job that has stopped ends although some of its tasks finished before others were lost', async () => {
  const bench = await new Bench().run();
  const metadata = { ...emptyMetadata(0, DEPLOYMENT), kind: 'SAVEPOINT' as const };
  const [first, ...rest] = metadata.operators;
  if (first === undefined) throw new Error('operator');
  const operators = [{ ...first, subtasks: [objectState(SOURCE_OPERATOR, 's/source')] }, ...rest];
  const checkpoint = { metadata: { ...metadata, operators }, metadataKey: 's/_metadata', metadataBytes: 1 };
  bench.driver.stopRun('a region restarts');
  bench.driver.restored(checkpoint, { own: true });
  bench.driver.startRun({
    deployment: DEPLOYMENT,
    tasks: bench.tasks.map((task) => ({ ...task, taskManagerId: WORKER })),
    gateways: new Map(),
    suspended: true,
    continues: { checkpoint, adopted: false },
  });
  bench.driver.taskChanged(0, 'finished', { atEnd: true });
  bench.driver.taskChanged(1, 'running', { atEnd: false });
  await bench.clock.advance(0);
  expect(bench.ack(1, 1, 'sink')).toBe('acked');
  await bench.clock.advance(0);
  expect(bench.keysOf(1)).toEqual(['s/source', 'sink']);
});

test('tasks that go on while others restart are told again that the savepoint failed with which the job was to stop', async () => {
  const bench = await new Bench().run();
  const { jobId } = twoVertexGraph();
  const triggerId = 'a'.repeat(32) as TriggerId;
  const request = { kind: 'SAVEPOINT', location: 'savepoints/s/', stop: 'SUSPEND' } as const;
  bench.driver.request({ triggerId, jobId, startedWallMs: 0, request });
  await bench.clock.advance(0);
  bench.lost.add('aborted');
  bench.driver.stopRun('a worker was lost', { partly: true });
  await bench.clock.advance(0);
  expect(bench.calls).toEqual(['trigger 1']);
  await bench.run({ checkpoint: undefined, adopted: false });
  bench.lost.clear();
  await bench.clock.advance(1_000);
  expect(bench.calls).toContain('aborted 1');
});

test('history is bounded, newest first, and says which checkpoints are gone', async () => {
  const bench = await new Bench({ checkpointing: { numRetained: 2 } }).run();
  for (let id = 1; id <= 14; id++) {
    await bench.clock.advance(1_000);
    await bench.complete(id, ['a', 'b']);
  }
  const view = bench.driver.view();
  expect(view.history.map((entry) => entry.id)).toEqual([14, 13, 12, 11, 10, 9, 8, 7, 6, 5]);
  expect(view.history.filter((entry) => !entry.discarded).map((entry) => entry.id)).toEqual([14, 13]);
  expect(view.counts).toEqual({ restored: 0, total: 14, inProgress: 0, completed: 14, failed: 0 });
  expect(view.latestCompleted).toMatchObject({ id: 14, acknowledged: 2, subtasks: 2, metadataKey: 'metadata-14' });
});

test('while it is suspended no notice leaves; afterwards all do', async () => {
  const bench = await new Bench().run();
  await bench.clock.advance(1_000);
  bench.driver.suspend();
  await bench.complete(1, ['a', 'b']);
  expect(bench.calls).toEqual(['trigger 1']);
  bench.driver.resume();
  await bench.clock.advance(0);
  expect(bench.calls).toEqual(['trigger 1', 'complete 1']);
});

test('closing leaves nothing behind: no timer, no repetition', async () => {
  const bench = await new Bench().run();
  await bench.clock.advance(1_000);
  bench.stores.fates = Array.from({ length: 50 }, () => 'lost-undone' as const);
  await bench.complete(1, ['a', 'b']);
  await bench.driver.close();
  await bench.clock.advance(0);
  expect(bench.clock.pending).toBe(0);
  expect(bench.stores.discarded).toEqual([]);
});
