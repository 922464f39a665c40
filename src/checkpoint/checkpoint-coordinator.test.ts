import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ErrorInfo } from '../kernel/errors.ts';
import { asAttemptId, type DeploymentId } from '../kernel/ids.ts';
import { ackOf, checkpointConfig, SINK, SOURCE } from './checkpoint.fixture.ts';
import { classifyAck, initialCoordinator, stepCoordinator } from './checkpoint-coordinator.ts';
import type { CoordinatorEffect, CoordinatorEvent, CoordinatorState, RunTask } from './coordinator-state.ts';

const D1 = '1-1' as DeploymentId;
const D2 = '1-2' as DeploymentId;
const AWAY: ErrorInfo = { code: 'UNAVAILABLE', message: 'S3 is away' };
const BROKEN: ErrorInfo = { code: 'USER_CODE', message: 'snapshot threw' };

const task = (vertexId: RunTask['vertexId'], subtaskIndex: number, generation: string): RunTask => ({
  vertexId,
  subtaskIndex,
  deployment: generation as DeploymentId,
  attemptId: asAttemptId(`${generation}-${vertexId[0]}-${subtaskIndex}`.padEnd(32, '0')),
  upstream: vertexId === SINK ? [SOURCE] : [],
});
const tasksOf = (generation: string) => [
  task(SOURCE, 0, generation),
  task(SINK, 0, generation),
  task(SINK, 1, generation),
];

/** A coordinator on a timeline, with what it asked for. */
class Bench {
  state: CoordinatorState;
  now = 0;
  effects: CoordinatorEffect[] = [];
  nextId = 1;

  constructor(config: Parameters<typeof checkpointConfig>[0] = {}) {
    this.state = initialCoordinator(checkpointConfig(config));
  }

  send(event: CoordinatorEvent): readonly CoordinatorEffect[] {
    const { state, effects } = stepCoordinator(this.state, event, this.now);
    this.state = state;
    this.effects.push(...effects);
    return effects;
  }

  kinds(): string[] {
    return this.effects.filter((effect) => effect.kind !== 'wake').map((effect) => effect.kind);
  }

  take(): string[] {
    const kinds = this.kinds();
    this.effects = [];
    return kinds;
  }

  /** All three tasks run. */
  run(deployment = D1, atEnd = false): void {
    this.send({ kind: 'runStarted', deployment, tasks: tasksOf(deployment) });
    for (const index of [0, 1, 2]) this.send({ kind: 'taskChanged', deployment, index, stage: 'running', atEnd });
    this.effects = [];
  }

  at(nowMs: number): this {
    this.now = nowMs;
    this.send({ kind: 'tick' });
    return this;
  }

  /** Answers an open reservation; the id of the checkpoint triggered. */
  trigger(deployment = D1): number {
    const id = this.nextId++;
    this.send({ kind: 'reserved', deployment, id });
    return id;
  }

  ack(id: number, index: number, deployment = D1): void {
    const acker = tasksOf(deployment)[index];
    if (acker === undefined) throw new Error('no such task');
    this.send({ kind: 'acknowledged', ack: ackOf(acker, deployment, id) });
  }

  ackAll(id: number, deployment = D1): void {
    for (const index of [0, 1, 2]) this.ack(id, index, deployment);
  }
}

test('a checkpoint begins one interval after every task runs, and not before', () => {
  const bench = new Bench();
  bench.send({ kind: 'runStarted', deployment: D1, tasks: tasksOf(D1) });
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'running', atEnd: false });
  expect(bench.at(10_000).take()).toEqual([]);
  for (const index of [1, 2])
    bench.send({ kind: 'taskChanged', deployment: D1, index, stage: 'running', atEnd: false });
  expect(bench.effects.at(-1)).toEqual({ kind: 'wake', atMs: 11_000 });
  expect(bench.at(10_999).take()).toEqual([]);
  expect(bench.at(11_000).take()).toEqual(['reserve']);
});

test('barriers begin at the sources; the checkpoint is committed with the last acknowledgement, told after the pointer', () => {
  const bench = new Bench();
  bench.run();
  expect(bench.at(1_000).take()).toEqual(['reserve']);
  const id = bench.trigger();
  expect(bench.effects.find((effect) => effect.kind === 'trigger')).toMatchObject({ targets: [0] });
  bench.take();
  bench.ack(id, 0);
  bench.ack(id, 2);
  expect(bench.take()).toEqual([]);
  bench.ack(id, 1);
  expect(bench.take()).toEqual(['commit']);
  bench.send({ kind: 'committed', id });
  expect(bench.effects.find((effect) => effect.kind === 'completed')).toMatchObject({ notify: D1 });
  expect(bench.take()).toEqual(['completed', 'subsume']);
});

test('an acknowledgement counts once, only from the present attempt, and late ones are thrown away', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  const [source, sink] = tasksOf(D1);
  const [oldSource] = tasksOf(D2);
  if (source === undefined || sink === undefined || oldSource === undefined) throw new Error('tasks');
  expect(classifyAck(bench.state, ackOf(source, D1, id))).toBe('acked');
  bench.ack(id, 0);
  expect(classifyAck(bench.state, ackOf(source, D1, id))).toBe('duplicate');
  expect(classifyAck(bench.state, ackOf(oldSource, D1, id))).toBe('unknown');
  expect(classifyAck(bench.state, ackOf(sink, D2, id))).toBe('unknown');
  expect(classifyAck(bench.state, ackOf(sink, D1, 99))).toBe('unknown');
  bench.take();
  bench.ack(id, 0);
  expect(bench.take()).toEqual([]);

  bench.at(6_000); // expired
  expect(bench.take()).toEqual(['aborted', 'discard', 'reserve']);
  expect(classifyAck(bench.state, ackOf(sink, D1, id))).toBe('late');
  bench.ack(id, 1);
  expect(bench.take()).toEqual(['discard']);
  bench.ack(99, 1);
  expect(bench.take()).toEqual([]);
});

test('acknowledgements of a completed checkpoint are duplicates and never discarded', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  bench.ackAll(id);
  bench.ack(id, 0);
  bench.send({ kind: 'committed', id });
  bench.take();
  bench.ack(id, 0);
  expect(bench.take()).toEqual([]);
});

test('the pause after a checkpoint is kept, and a slow one does not make the next ones pile up', () => {
  const bench = new Bench({ minPauseMs: 700 });
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  bench.at(3_500);
  bench.ackAll(id);
  bench.send({ kind: 'committed', id });
  bench.take();
  expect(bench.at(4_199).take()).toEqual([]);
  expect(bench.at(4_200).take()).toEqual(['reserve']);
  bench.trigger();
  expect(bench.at(5_199).take()).toEqual(['trigger']);
});

test('no more checkpoints are in progress than allowed', () => {
  const bench = new Bench({ maxConcurrent: 2 });
  bench.run();
  bench.at(1_000);
  bench.trigger();
  bench.at(2_000);
  bench.trigger();
  bench.take();
  expect(bench.at(4_000).take()).toEqual([]);
});

test('a newer checkpoint that completes first aborts the older one without counting a failure', () => {
  const bench = new Bench({ maxConcurrent: 2, tolerableFailedCheckpoints: 0 });
  bench.run();
  bench.at(1_000);
  const first = bench.trigger();
  bench.ack(first, 0);
  bench.at(2_000);
  const second = bench.trigger();
  bench.ackAll(second);
  bench.take();
  bench.send({ kind: 'committed', id: second });
  expect(bench.take()).toEqual(['completed', 'subsume', 'aborted', 'discard']);
});

test('failures in a row beyond the tolerable number fail the job over, a success forgives them', () => {
  const bench = new Bench({ tolerableFailedCheckpoints: 1 });
  bench.run();
  const decline = (id: number) => {
    const [, sink] = tasksOf(D1);
    if (sink === undefined) throw new Error('task');
    const { alignmentMs, syncMs, asyncMs, operators, stateBytes, ...facts } = ackOf(sink, D1, id);
    bench.send({ kind: 'declined', decline: { ...facts, reason: BROKEN } });
  };
  bench.at(1_000);
  decline(bench.trigger());
  bench.at(2_000);
  const good = bench.trigger();
  bench.ackAll(good);
  bench.send({ kind: 'committed', id: good });
  bench.at(3_000);
  decline(bench.trigger());
  expect(bench.kinds()).not.toContain('failover');
  bench.at(4_000);
  decline(bench.trigger());
  expect(bench.effects.find((effect) => effect.kind === 'failover')).toMatchObject({ error: { code: 'USER_CODE' } });
});

test('what is being committed is not aborted by time, by a decline or by the end of its deployment', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  bench.ackAll(id);
  bench.take();
  bench.at(60_000);
  bench.send({ kind: 'triggerFailed', id, error: AWAY });
  bench.send({ kind: 'runStopped', reason: 'a task failed' });
  expect(bench.take()).toEqual([]);
  // Its outcome still counts, but nobody of that deployment is left to be told.
  bench.send({ kind: 'committed', id });
  expect(bench.effects.find((effect) => effect.kind === 'completed')).toMatchObject({ notify: undefined });
  expect(bench.state.latestCompletedId).toBe(id);
});

test('a pointer that was certainly not written aborts; without certainty the objects stay', () => {
  for (const keepObjects of [false, true]) {
    const bench = new Bench();
    bench.run();
    bench.at(1_000);
    const id = bench.trigger();
    bench.ackAll(id);
    bench.take();
    bench.send({ kind: 'commitFailed', id, error: AWAY, keepObjects });
    expect(bench.take()).toEqual(keepObjects ? ['aborted'] : ['aborted', 'discard']);
    bench.ack(id, 0);
    expect(bench.take()).toEqual(keepObjects ? [] : ['discard']);
  }
});

test('a failed task aborts what is in flight, silently for the workers, and nothing begins without a deployment', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  bench.ack(id, 0);
  bench.take();
  bench.send({ kind: 'runStopped', reason: 'a task failed' });
  expect(bench.effects.find((effect) => effect.kind === 'aborted')).toMatchObject({ notify: undefined });
  expect(bench.take()).toEqual(['aborted', 'discard']);
  expect(bench.at(100_000).take()).toEqual([]);
  bench.run(D2);
  bench.ack(id, 1);
  expect(bench.take()).toEqual(['discard']);
});

test('an id reserved for a deployment that has ended is not used', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  bench.send({ kind: 'runStopped', reason: 'a task failed' });
  bench.run(D2);
  bench.trigger(D1);
  expect(bench.take()).toEqual([]);
});

test('an id that was reserved for a deployment that has ended may come after a later one', () => {
  const bench = new Bench();
  bench.run(D1);
  bench.at(1_000);
  bench.run(D2);
  bench.at(2_000);
  bench.send({ kind: 'reserved', deployment: D2, id: 2 });
  expect(bench.state.pending.has(2)).toBe(true);
  bench.send({ kind: 'reserved', deployment: D1, id: 1 });
  expect([...bench.state.pending.keys()]).toEqual([2]);
  expect(bench.state.lastId).toBe(2);
});

test('an id that was reserved for a deployment that has ended may be higher than the next one', () => {
  const bench = new Bench();
  bench.run(D1);
  bench.at(1_000);
  bench.run(D2);
  bench.at(2_000);
  bench.send({ kind: 'reserved', deployment: D1, id: 2 });
  bench.send({ kind: 'reserved', deployment: D2, id: 1 });
  expect([...bench.state.pending.keys()]).toEqual([1]);
});

test('when an id cannot be reserved nothing fails, and it is tried again', () => {
  const bench = new Bench({ tolerableFailedCheckpoints: 0 });
  bench.run();
  bench.at(1_000);
  bench.take();
  bench.send({ kind: 'reserveFailed', deployment: D1 });
  expect(bench.take()).toEqual([]);
  expect(bench.at(2_000).take()).toEqual(['reserve']);
});

test('when all tasks are at their end a final checkpoint begins at once, also without an interval', () => {
  const bench = new Bench({ intervalMs: undefined as never, minPauseMs: 60_000 });
  bench.run();
  expect(bench.at(50_000).take()).toEqual([]);
  for (const index of [0, 1]) bench.send({ kind: 'taskChanged', deployment: D1, index, stage: 'running', atEnd: true });
  expect(bench.take()).toEqual([]);
  bench.send({ kind: 'taskChanged', deployment: D1, index: 2, stage: 'running', atEnd: true });
  expect(bench.take()).toEqual(['reserve']);
  const id = bench.trigger();
  bench.ackAll(id);
  bench.send({ kind: 'committed', id });
  bench.take();
  expect(bench.at(500_000).take()).toEqual([]);
});

test('a periodic checkpoint in progress is not the final one: that follows at once', () => {
  const bench = new Bench({ minPauseMs: 60_000 });
  bench.run();
  bench.at(1_000);
  const periodic = bench.trigger();
  for (const index of [0, 1, 2])
    bench.send({ kind: 'taskChanged', deployment: D1, index, stage: 'running', atEnd: true });
  bench.ackAll(periodic);
  bench.take();
  bench.send({ kind: 'committed', id: periodic });
  expect(bench.take()).toEqual(['completed', 'subsume', 'reserve']);
});

test('a final checkpoint that fails for want of a store is repeated and fails no job; a broken snapshot does', () => {
  const bench = new Bench({ tolerableFailedCheckpoints: 0 });
  bench.run(D1, true);
  for (let i = 0; i < 5; i++) {
    bench.at(bench.now + 10_000);
    const id = bench.trigger();
    bench.send({ kind: 'triggerFailed', id, error: AWAY });
  }
  expect(bench.kinds()).not.toContain('failover');
  bench.at(bench.now + 10_000);
  bench.send({ kind: 'triggerFailed', id: bench.trigger(), error: BROKEN });
  expect(bench.kinds()).toContain('failover');
});

test('after the final checkpoint tasks finish one by one and no further checkpoint is asked for', () => {
  const bench = new Bench();
  bench.run(D1, true);
  bench.at(0);
  const id = bench.trigger();
  bench.ackAll(id);
  bench.send({ kind: 'committed', id });
  bench.take();
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  expect(bench.at(100_000).take()).toEqual([]);
});

test('a checkpoint that a finished task can no longer acknowledge is given up at once, and counts as no failure', () => {
  const bench = new Bench({ intervalMs: 100, tolerableFailedCheckpoints: 0 });
  bench.run();
  bench.at(100);
  const pending = bench.trigger();
  bench.ack(pending, 0);
  bench.take();
  // It answered, so its end changes nothing …
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  expect(bench.state.pending.has(pending)).toBe(true);
  // … the one that has not, ends the wait.
  bench.send({ kind: 'taskChanged', deployment: D1, index: 1, stage: 'finished', atEnd: true });
  expect(bench.take()).toContain('aborted');
  expect(bench.state.pending.size).toBe(0);
  expect(bench.state.consecutiveFailures).toBe(0);
});

test('tasks that finished after a completed checkpoint are not asked again; barriers begin below them', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const first = bench.trigger();
  bench.ackAll(first);
  bench.send({ kind: 'committed', id: first });
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  bench.at(2_000);
  bench.take();
  const second = bench.trigger();
  expect(bench.effects.find((effect) => effect.kind === 'trigger')).toMatchObject({ targets: [1, 2] });
  bench.take();
  bench.ack(second, 1);
  bench.ack(second, 2);
  expect(bench.take()).toEqual(['commit']);
});

test('a task that finished before any checkpoint completed ends checkpointing: its state is unknown', () => {
  const bench = new Bench();
  bench.run();
  bench.send({ kind: 'taskChanged', deployment: D1, index: 0, stage: 'finished', atEnd: true });
  expect(bench.at(100_000).take()).toEqual([]);
});

test('after a fence nothing is done any more', () => {
  const bench = new Bench();
  bench.run();
  bench.at(1_000);
  const id = bench.trigger();
  bench.ack(id, 0);
  bench.take();
  bench.send({ kind: 'fenced' });
  bench.at(100_000);
  bench.ackAll(id);
  bench.run(D2);
  bench.at(200_000);
  expect(bench.take()).toEqual([]);
});

/** Any order of events: the invariants K1 to K6 hold, and the assertions inside the step never fire. */
test('random histories keep the invariants', () => {
  const choice = fc.record({ kind: fc.nat(11), a: fc.nat(4), b: fc.nat(2), ms: fc.nat(1_500) });
  fc.assert(
    fc.property(
      fc.array(choice, { minLength: 20, maxLength: 200 }),
      fc.integer({ min: 1, max: 3 }),
      (choices, maxConcurrent) => {
        const bench = new Bench({ maxConcurrent, tolerableFailedCheckpoints: 2, minPauseMs: 100 });
        let deployment = D1;
        let generation = 1;
        let reservation: DeploymentId | undefined;
        const committing = new Set<number>();
        const triggered: number[] = [];
        const ended = new Map<number, string>();
        const acked = new Map<number, Set<string>>();
        const observe = (effects: readonly CoordinatorEffect[]) => {
          for (const effect of effects) {
            switch (effect.kind) {
              case 'reserve':
                expect(reservation).not.toBe(effect.deployment);
                reservation = effect.deployment;
                break;
              case 'trigger':
                expect(effect.checkpoint.id).toBeGreaterThan(triggered.at(-1) ?? 0); // K1
                expect(effect.targets.length).toBeGreaterThan(0);
                triggered.push(effect.checkpoint.id);
                break;
              case 'commit':
                expect(acked.get(effect.checkpoint.id)?.size).toBe(effect.checkpoint.expected.filter(Boolean).length); // K2, K3
                committing.add(effect.checkpoint.id);
                break;
              case 'completed':
              case 'aborted':
                expect(ended.has(effect.checkpoint.id)).toBe(false);
                if (effect.kind === 'aborted') expect(committing.has(effect.checkpoint.id)).toBe(false); // K5
                ended.set(effect.checkpoint.id, effect.kind);
                break;
              case 'discard':
                for (const ack of effect.acks) expect(ended.get(ack.checkpointId)).toBe('aborted'); // K6
                break;
              default:
                break;
            }
          }
        };
        const send = (event: CoordinatorEvent) => observe(bench.send(event));
        for (const { kind, a, b, ms } of choices) {
          bench.now += ms;
          const pending = [...bench.state.pending.keys()];
          const id = pending[a % Math.max(1, pending.length)] ?? a;
          const tasks = tasksOf(deployment);
          const who = tasks[b] ?? tasks[0];
          if (who === undefined) throw new Error('task');
          switch (kind) {
            case 0:
              deployment = `1-${++generation}` as DeploymentId;
              send({ kind: 'runStarted', deployment, tasks: tasksOf(deployment) });
              break;
            case 1:
              send({ kind: 'runStopped', reason: 'x' });
              break;
            case 2:
            case 3:
              for (const index of [0, 1, 2])
                send({ kind: 'taskChanged', deployment, index, stage: 'running', atEnd: kind === 3 && a === 0 });
              break;
            case 4:
              if (a === 4) send({ kind: 'taskChanged', deployment, index: b, stage: 'finished', atEnd: true });
              break;
            case 5: {
              const open = reservation;
              if (open === undefined) break;
              reservation = undefined;
              if (a === 0) send({ kind: 'reserveFailed', deployment: open });
              else send({ kind: 'reserved', deployment: open, id: bench.nextId++ });
              break;
            }
            case 6:
            case 7:
            case 8: {
              const ack = ackOf(who, deployment, id);
              if (classifyAck(bench.state, ack) === 'acked') {
                const set = acked.get(id) ?? new Set();
                expect(set.has(who.attemptId)).toBe(false); // K2
                acked.set(id, set.add(who.attemptId));
              }
              send({ kind: 'acknowledged', ack });
              break;
            }
            case 9: {
              const first = [...committing][0];
              if (first === undefined) break;
              committing.delete(first);
              if (a === 0) send({ kind: 'commitFailed', id: first, error: AWAY, keepObjects: b === 0 });
              else send({ kind: 'committed', id: first });
              break;
            }
            case 10:
              if (a === 0) send({ kind: 'triggerFailed', id, error: BROKEN });
              break;
            default:
              send({ kind: 'tick' });
          }
          // A new reservation replaces what an ended deployment asked for.
          if (bench.state.reserving === undefined) reservation = undefined;
          expect(bench.state.pending.size).toBeLessThanOrEqual(maxConcurrent + committing.size);
        }
      },
    ),
    { numRuns: 300 },
  );
});
