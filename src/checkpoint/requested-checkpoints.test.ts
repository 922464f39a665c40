import { expect, test } from 'vitest';
import type { TriggerId } from '../contracts/operations.ts';
import { asAttemptId, type DeploymentId } from '../kernel/ids.ts';
import { ackOf, checkpointConfig, SINK, SOURCE } from './checkpoint.fixture.ts';
import { initialCoordinator, stepCoordinator } from './checkpoint-coordinator.ts';
import type {
  CheckpointRequest,
  CoordinatorEffect,
  CoordinatorEvent,
  CoordinatorState,
  RunTask,
} from './coordinator-state.ts';

/** Savepoints and checkpoints that somebody asked for, among the periodic ones. */
const D1 = '1-1' as DeploymentId;
const D2 = '1-2' as DeploymentId;

const tasksOf = (deployment: DeploymentId): readonly RunTask[] =>
  [SOURCE, SINK].map((vertexId) => ({
    vertexId,
    subtaskIndex: 0,
    deployment,
    attemptId: asAttemptId(`${deployment}-${vertexId[0]}`.padEnd(32, '0')),
    upstream: vertexId === SINK ? [SOURCE] : [],
  }));

class Bench {
  state: CoordinatorState;
  now = 0;
  effects: CoordinatorEffect[] = [];
  private nextId = 1;

  constructor(config: Parameters<typeof checkpointConfig>[0] = {}) {
    this.state = initialCoordinator(checkpointConfig(config));
  }

  send(event: CoordinatorEvent): void {
    const { state, effects } = stepCoordinator(this.state, event, this.now);
    this.state = state;
    this.effects.push(...effects);
  }

  take(): string[] {
    const kinds = this.effects.filter((effect) => effect.kind !== 'wake').map((effect) => effect.kind);
    this.effects = [];
    return kinds;
  }

  run(deployment = D1, suspended = false): void {
    this.send({ kind: 'runStarted', deployment, tasks: tasksOf(deployment), suspended });
    for (const index of [0, 1]) this.send({ kind: 'taskChanged', deployment, index, stage: 'running', atEnd: false });
  }

  at(nowMs: number): this {
    this.now = nowMs;
    this.send({ kind: 'tick' });
    return this;
  }

  request(change: Partial<CheckpointRequest> = {}): void {
    const triggerId = 'f'.repeat(32) as TriggerId;
    this.send({ kind: 'requested', request: { triggerId, kind: 'SAVEPOINT', full: true, location: 'l/', ...change } });
  }

  /** Answers the open reservation. */
  begin(deployment = D1): number {
    const id = this.nextId++;
    this.send({ kind: 'reserved', deployment, id });
    return id;
  }

  complete(id: number, deployment = D1): void {
    for (const task of tasksOf(deployment)) this.send({ kind: 'acknowledged', ack: ackOf(task, deployment, id) });
    this.send({ kind: 'committed', id });
  }

  triggered() {
    const effect = this.effects.findLast((one) => one.kind === 'trigger');
    return effect?.kind === 'trigger' ? effect.checkpoint : undefined;
  }
}

const failure = { code: 'USER_CODE', message: 'the snapshot threw' } as const;

test('a request for which no id can be reserved waits before it asks again', () => {
  const bench = new Bench();
  bench.run();
  bench.request();
  expect(bench.take()).toEqual(['reserve']);
  bench.send({ kind: 'reserveFailed', deployment: D1 });
  expect(bench.take()).toEqual([]);
  expect(bench.at(999).take()).toEqual([]);
  expect(bench.at(1_000).take()).toEqual(['reserve']);
  bench.begin();
  expect(bench.triggered()?.kind).toBe('SAVEPOINT');
});

test('a savepoint begins at once, whatever the interval and the pause; it counts for neither', () => {
  const bench = new Bench({ intervalMs: 1_000, minPauseMs: 5_000 });
  bench.run();
  bench.at(1_000);
  bench.complete(bench.begin());
  bench.take();
  bench.at(1_001).request();
  expect(bench.take()).toEqual(['reserve']);
  const id = bench.begin();
  expect(bench.triggered()).toMatchObject({ kind: 'SAVEPOINT', final: false });
  bench.take();
  bench.complete(id);
  // Neither are sinks told, nor older checkpoints subsumed.
  expect(bench.effects.find((one) => one.kind === 'completed')).toMatchObject({ notify: undefined });
  expect(bench.take()).toEqual(['commit', 'completed']);
  expect(bench.at(5_999).take()).toEqual([]);
  expect(bench.at(6_000).take()).toEqual(['reserve']);
});

test('a savepoint waits for the checkpoint in progress, and goes before the next', () => {
  const bench = new Bench({ intervalMs: 1_000, maxConcurrent: 1 });
  bench.run();
  bench.at(1_000);
  const first = bench.begin();
  bench.take();
  bench.at(3_000).request();
  expect(bench.take()).toEqual([]);
  bench.complete(first);
  bench.take();
  bench.begin();
  expect(bench.triggered()).toMatchObject({ kind: 'SAVEPOINT' });
});

test('a savepoint that fails is told, and restarts no job, however little the job bears', () => {
  const bench = new Bench({ tolerableFailedCheckpoints: 0 });
  bench.run();
  bench.request();
  const id = bench.begin();
  bench.take();
  const [source] = tasksOf(D1);
  if (source === undefined) throw new Error('no source');
  const { acknowledgement: _, ...decline } = { ...ackOf(source, D1, id), acknowledgement: undefined };
  bench.send({ kind: 'declined', decline: { ...decline, reason: failure } });
  expect(bench.effects.find((one) => one.kind === 'requestFailed')).toMatchObject({ error: failure });
  expect(bench.take()).toEqual(['aborted', 'requestFailed']);
});

test('a savepoint not complete in time is given up and told', () => {
  const bench = new Bench({ timeoutMs: 500, intervalMs: undefined });
  bench.run();
  bench.request();
  bench.begin();
  expect(bench.at(499).take()).toEqual(['reserve', 'trigger']);
  expect(bench.at(500).take()).toEqual(['aborted', 'requestFailed']);
});

test('a checkpoint on request is one like all others: it is told, subsumes, and commits', () => {
  const bench = new Bench({ intervalMs: undefined });
  bench.run();
  bench.request({ kind: 'CHECKPOINT', location: undefined, full: true });
  const id = bench.begin();
  bench.take();
  bench.complete(id);
  expect(bench.effects.find((one) => one.kind === 'completed')).toMatchObject({ notify: D1 });
  expect(bench.take()).toEqual(['commit', 'completed', 'subsume']);
});

test.each([{ stop: 'SUSPEND' as const }, { cancelJob: true }])(
  'while the job is to end with %j no other checkpoint begins; one with which it stopped is the last',
  (change) => {
    const bench = new Bench({ intervalMs: 1_000, maxConcurrent: 3 });
    bench.run();
    bench.request(change);
    const id = bench.begin();
    bench.take();
    expect(bench.at(4_000).take()).toEqual([]);
    bench.complete(id);
    expect(bench.take()).toEqual(['commit', 'completed', ...('cancelJob' in change ? ['reserve'] : [])]);
    if ('cancelJob' in change) return;
    bench.request();
    expect(bench.take()).toEqual(['requestFailed']);
    expect(bench.at(100_000).take()).toEqual([]);
  },
);

test('a suspended job whose savepoint fails goes on; a drained one restarts, for its time has come to an end', () => {
  for (const stop of ['SUSPEND', 'DRAIN'] as const) {
    const bench = new Bench({ intervalMs: 1_000, timeoutMs: 500 });
    bench.run();
    bench.request({ stop });
    bench.begin();
    bench.take();
    const after = bench.at(500).take();
    expect(after).toEqual(['aborted', 'requestFailed', ...(stop === 'DRAIN' ? ['failover'] : [])]);
    if (stop === 'SUSPEND') expect(bench.at(1_500).take()).toEqual(['reserve']);
  }
});

test('a drained job of which a part restarts while its savepoint is written restarts whole when that fails', () => {
  for (const stop of ['SUSPEND', 'DRAIN'] as const) {
    const bench = new Bench();
    bench.run();
    bench.request({ stop });
    const id = bench.begin();
    for (const task of tasksOf(D1)) bench.send({ kind: 'acknowledged', ack: ackOf(task, D1, id) });
    bench.send({ kind: 'runStopped', reason: 'a worker was lost', partly: true });
    bench.take();
    const error = { code: 'UNAVAILABLE', message: 'the store is away' } as const;
    bench.send({ kind: 'commitFailed', id, error, keepObjects: false });
    // The part that does not restart stands still behind it until it hears that it failed.
    expect(bench.effects).toContainEqual(expect.objectContaining({ kind: 'aborted', notify: D1 }));
    expect(bench.take()).toEqual(['aborted', 'discard', 'requestFailed', ...(stop === 'DRAIN' ? ['failover'] : [])]);
  }
});

test('a request outlives a restart while it waits, and fails with the deployment that had begun it', () => {
  const bench = new Bench();
  bench.request();
  expect(bench.take()).toEqual([]);
  bench.run();
  expect(bench.take()).toEqual(['reserve']);
  bench.begin();
  bench.take();
  bench.send({ kind: 'runStopped', reason: 'a task failed' });
  expect(bench.take()).toEqual(['aborted', 'requestFailed']);
  bench.request();
  bench.run(D2);
  expect(bench.take()).toEqual(['reserve']);
});

test('a job whose tasks finished before any checkpoint cannot give a savepoint, and says so', () => {
  const bench = new Bench({ intervalMs: undefined });
  bench.run();
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  bench.request();
  expect(bench.effects.find((one) => one.kind === 'requestFailed')).toMatchObject({ error: { code: 'CONFLICT' } });
});

test('a job that had stopped takes one checkpoint that ends its tasks, at once and until it succeeds', () => {
  const bench = new Bench({ intervalMs: undefined, tolerableFailedCheckpoints: 0 });
  bench.run(D1, true);
  expect(bench.take()).toEqual(['reserve']);
  const first = bench.begin();
  expect(bench.triggered()).toMatchObject({ kind: 'CHECKPOINT', stop: 'SUSPEND', final: true });
  bench.send({ kind: 'triggerFailed', id: first, error: { code: 'UNAVAILABLE', message: 'away' } });
  bench.take();
  expect(bench.at(10_000).take()).toEqual(['reserve']);
  bench.complete(bench.begin());
  bench.take();
  expect(bench.at(100_000).take()).toEqual([]);
});

test('barriers begin at a task whose own producers have finished, though others of their vertex run', () => {
  const bench = new Bench({ intervalMs: 1_000 });
  const task = (vertexId: RunTask['vertexId'], subtaskIndex: number): RunTask => ({
    vertexId,
    subtaskIndex,
    deployment: D1,
    attemptId: asAttemptId(`${vertexId[0]}${subtaskIndex}`.padEnd(32, '0')),
    upstream: vertexId === SINK ? [{ vertexId: SOURCE, subtasks: [subtaskIndex] }] : [],
  });
  const tasks = [task(SOURCE, 0), task(SOURCE, 1), task(SINK, 0), task(SINK, 1)];
  bench.send({ kind: 'runStarted', deployment: D1, tasks });
  for (const index of tasks.keys())
    bench.send({ kind: 'taskChanged', deployment: D1, index, stage: 'running', atEnd: false });
  bench.at(1_000);
  const first = bench.begin();
  for (const one of tasks) bench.send({ kind: 'acknowledged', ack: ackOf(one, D1, first) });
  bench.send({ kind: 'committed', id: first });
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  bench.take();
  bench.at(2_000).begin();
  expect(bench.effects.findLast((one) => one.kind === 'trigger')).toMatchObject({ targets: [1, 2] });
});

test('a task that was drained is borne only while a drained savepoint is under way, or when the job has stopped', () => {
  const drained = {
    kind: 'taskChanged',
    deployment: D1,
    index: 0,
    stage: 'running',
    atEnd: true,
    drained: true,
  } as const;
  const under = new Bench({ intervalMs: undefined });
  under.run();
  under.request({ stop: 'DRAIN' });
  const id = under.begin();
  under.take();
  under.send(drained);
  expect(under.take()).toEqual([]);
  under.complete(id);
  under.send({ ...drained, index: 1 });
  expect(under.take()).toEqual(['commit', 'completed']);

  const stopped = new Bench({ intervalMs: undefined });
  stopped.run(D1, true);
  stopped.take();
  stopped.send(drained);
  expect(stopped.take()).toEqual([]);

  for (const request of [undefined, { stop: 'SUSPEND' }] as const) {
    const bench = new Bench({ intervalMs: undefined });
    bench.run();
    if (request !== undefined) {
      bench.request(request);
      bench.begin();
    }
    bench.take();
    bench.send(drained);
    expect(bench.take()).toEqual(['failover']);
  }
});
