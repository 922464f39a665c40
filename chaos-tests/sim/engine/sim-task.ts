import type { JobVertex } from '../../../src/contracts/job-graph.ts';
import { type ExecutionState, isTerminalExecutionState } from '../../../src/contracts/job-status.ts';
import { keyGroupRange } from '../../../src/contracts/key-groups.ts';
import { type AttemptReport, NO_IO, type SlotDeployment, type TaskDeployment } from '../../../src/contracts/task.ts';
import type { CheckpointBarrier } from '../../../src/exchange/channel-message.ts';
import { asError, isMillraceError, MillraceError, toErrorInfo, UnavailableError } from '../../../src/kernel/errors.ts';
import type { AttemptId } from '../../../src/kernel/ids.ts';
import { BackgroundTasks } from '../../../src/kernel/lifecycle.ts';
import type { Timer } from '../../../src/kernel/clock.ts';
import { type AlignerEffect, type BarrierAligner, ExactlyOnceAligner } from '../../../src/subtask/barrier-aligner.ts';
import { CheckpointExecutor } from '../../../src/subtask/checkpoint-executor.ts';
import { OperatorSet } from '../../../src/subtask/operator-set.ts';
import type { OperatorContext } from '../../../src/subtask/operators/operator.ts';
import { SourceOperator } from '../../../src/subtask/operators/source-operator.ts';
import { TwoPhaseSinkOperator } from '../../../src/subtask/operators/two-phase-sink-operator.ts';
import type { SlotRuntimeEvents } from '../../../src/subtask/slot-runtime-port.ts';
import type { StateBackendFactory } from '../../../src/subtask/state-backend-factory.ts';
import { siteOf, taskNameOf, vertexOf } from '../../../src/subtask/task-lookup.ts';
import type { SimProcess } from '../sim-process.ts';
import type { Channel, DataMessage, DataPlane, Subpartition } from './data-plane.ts';
import { CountOperator, type OutsideWorld, SimSink, SimSource } from './operators.ts';
import type { SeenByTask, SimRecord } from './records.ts';
import { SimOutputs } from './sim-outputs.ts';

export interface TaskDeps {
  readonly process: SimProcess;
  readonly plane: DataPlane;
  readonly world: OutsideWorld;
  readonly stateBackends: StateBackendFactory;
  readonly events: SlotRuntimeEvents;
  /** Between two reads of one source. */
  readonly recordMs: () => number;
  readonly recordsAtOnce: () => number;
}

const CANCEL_GRACE_MS = 500;
const CLOSE_MS = 1_000;

interface Input {
  readonly queue: DataMessage[];
  readonly channel: Channel;
  blocked: boolean;
  endOfData: boolean;
}

/**
 * One attempt at one subtask: what `src/subtask/subtask.ts` is, in small, with the product's aligner,
 * checkpoint executor, source and two-phase sink operators, and state.
 */
export class SimTask {
  readonly attemptId: AttemptId;
  readonly ended: Promise<void>;
  private readonly vertex: JobVertex;
  private readonly background: BackgroundTasks;
  private readonly abort = new AbortController();
  private readonly outputs: SimOutputs;
  private readonly inputs: Input[] = [];
  private readonly aligner: BarrierAligner;
  private operators: OperatorSet | undefined;
  private source: SourceOperator | undefined;
  private reader: SimSource | undefined;
  private checkpoints: CheckpointExecutor | undefined;
  private state: ExecutionState = 'DEPLOYING';
  private error: Error | undefined;
  private ending: 'FINISHED' | 'CANCELED' | 'FAILED' | undefined;
  private endOfData = false;
  /** As far as its inputs have ended, one of them for a stop of the job. */
  private drained = false;
  private lastCheckpointId = 0;
  private finalCheckpointId: number | undefined;
  /** The checkpoint with which the job stops, taken and not yet decided: nothing is processed behind it. */
  private stopCheckpointId: number | undefined;
  /** Of a source that stands still behind it. */
  private readonly heldTriggers: CheckpointBarrier[] = [];
  /** At each checkpoint. */
  private readonly seen = new Map<number, SeenByTask>();
  private readonly abortedIds = new Set<number>();
  private abortedUpTo = 0;
  private pumping = false;
  private timer: Timer | undefined;
  private records = 0;
  private resolveEnded = () => {};

  constructor(
    private readonly deps: TaskDeps,
    private readonly deployment: SlotDeployment,
    private readonly task: TaskDeployment,
  ) {
    this.attemptId = task.attemptId;
    this.vertex = vertexOf(deployment, task);
    this.background = new BackgroundTasks(deps.process.log);
    this.aligner = new ExactlyOnceAligner(task.inputs.length);
    this.ended = new Promise((resolve) => {
      this.resolveEnded = resolve;
    });
    this.outputs = new SimOutputs(deployment.graph, task);
  }

  start(): void {
    this.report();
    this.background.run('start task', async () => {
      try {
        await this.initialize();
      } catch (error) {
        this.fail(error);
      }
    });
  }

  find(edgeId: string, subpartition: number): Subpartition | undefined {
    return this.outputs.find(edgeId, subpartition);
  }

  get isTerminal(): boolean {
    return isTerminalExecutionState(this.state);
  }

  /** Whether it took this checkpoint at or after the end of its input. */
  isFinal(checkpointId: number): boolean {
    if (this.stopCheckpointId === checkpointId) return true;
    return this.finalCheckpointId !== undefined && checkpointId >= this.finalCheckpointId;
  }

  seenBy(checkpointId: number): SeenByTask {
    return this.seen.get(checkpointId) ?? { splits: [], records: 0 };
  }

  attemptReport(): AttemptReport {
    const { deployment, task, state, endOfData, drained, error } = this;
    return {
      ...this.identity(),
      attemptNumber: task.attemptNumber,
      allocationId: deployment.allocationId,
      state,
      endOfData,
      ...(endOfData && drained ? { drained } : {}),
      ...(error === undefined ? {} : { error: toErrorInfo(error) }),
      io: { ...NO_IO, readRecords: this.records },
    };
  }

  cancel(): void {
    if (this.ending !== undefined) return;
    this.setState('CANCELING');
    this.end('CANCELED');
  }

  fail(thrown: unknown): void {
    if (this.ending !== undefined) return;
    this.error = asError(thrown);
    this.end('FAILED');
  }

  triggerCheckpoint(barrier: CheckpointBarrier): void {
    if (this.state !== 'RUNNING' || this.ending !== undefined) {
      this.decline(barrier.checkpointId, new MillraceError('CONFLICT', `the task is ${this.state}, not RUNNING`));
      return;
    }
    if (barrier.checkpointId <= this.abortedUpTo || this.abortedIds.has(barrier.checkpointId)) return;
    if (this.halted) {
      this.heldTriggers.push(barrier);
      return;
    }
    // Its data ends before the barrier.
    if (barrier.options.stop === 'DRAIN' && this.source !== undefined && !this.endOfData) {
      this.drained = true;
      this.onEndOfData();
    }
    this.performCheckpoint(barrier, 0);
  }

  checkpointCompleted(checkpointId: number): void {
    if (this.state !== 'RUNNING' || this.ending !== undefined) return;
    this.background.run('checkpoint completed', async () => {
      await Promise.all((this.operators?.all ?? []).map((operator) => operator.checkpointCompleted(checkpointId)));
      const endsWith = this.stopCheckpointId ?? this.finalCheckpointId;
      if (endsWith === undefined || checkpointId < endsWith) return;
      await this.checkpoints?.settled();
      this.finish();
    });
  }

  checkpointAborted(checkpointId: number, latestCompletedId: number | undefined): void {
    this.abortedIds.add(checkpointId);
    this.checkpoints?.abort(checkpointId);
    this.forget(checkpointId);
    this.apply(this.aligner.aborted(checkpointId));
    this.pump();
    if (latestCompletedId !== undefined) this.checkpointCompleted(latestCompletedId);
  }

  /** A new leader speaks: of all up to `checkpointId` only what it names has completed. */
  checkpointsAbortedUpTo(checkpointId: number, latestCompletedId = 0): void {
    this.abortedUpTo = Math.max(this.abortedUpTo, checkpointId);
    this.checkpoints?.abortUpTo(checkpointId);
    for (const id of this.seen.keys()) if (id <= checkpointId && id > latestCompletedId) this.forget(id);
    this.apply(this.aligner.abortedUpTo(checkpointId));
    this.pump();
    if (latestCompletedId > 0) this.checkpointCompleted(latestCompletedId);
  }

  private forget(checkpointId: number): void {
    if (this.stopCheckpointId === checkpointId) {
      this.stopCheckpointId = undefined;
      for (const barrier of this.heldTriggers.splice(0)) this.triggerCheckpoint(barrier);
      if (this.source !== undefined && this.timer === undefined) this.readLater();
    }
    for (const operator of this.operators?.all ?? [])
      if (operator instanceof CountOperator) operator.checkpointAborted(checkpointId);
  }

  /** Behind the snapshot with which the job stops, or restarted behind it: only to finish. */
  private get halted(): boolean {
    return this.stopCheckpointId !== undefined;
  }

  private async initialize(): Promise<void> {
    if (this.ending !== undefined) return;
    const { deps, task, vertex } = this;
    const all = vertex.operators.map(({ id, kind, splits }) => {
      const context = this.contextOf(id);
      switch (kind) {
        case 'source':
          this.reader = new SimSource(Number(this.deployment.graph.config.userConfig.keys ?? 1));
          this.source = new SourceOperator(this.reader, splits ?? [], context);
          return this.source;
        case 'count':
          return new CountOperator(context);
        default:
          return new TwoPhaseSinkOperator(new SimSink(deps.process, deps.world) as never, context);
      }
    });
    const { clock, log } = deps.process;
    const { background } = this;
    this.operators = new OperatorSet({ clock, log, background }, all);
    this.setState('INITIALIZING');
    for (const [index, descriptor] of task.inputs.entries()) {
      const channel = deps.plane.connect(
        {
          process: deps.process,
          receive: (message) => this.receive(index, message),
          broken: (error) => this.onInputLost(error),
        },
        descriptor,
      );
      this.inputs.push({ queue: [], channel, blocked: false, endOfData: false });
    }
    await this.operators.open();
    if (this.ending !== undefined) return;
    this.checkpoints = new CheckpointExecutor({
      clock,
      background,
      identity: this.identity(),
      operators: all,
      forward: (barrier) => {
        this.outputs.broadcast({ kind: 'barrier', barrier });
        return undefined; // Always aligned: nothing is in flight.
      },
      inFlight: {
        stateBackends: deps.stateBackends,
        scope: this.contextOf(this.vertex.operators[0]?.id ?? this.noOperator()).scope,
      },
      onAck: (ack) => {
        if (this.ending === undefined) deps.events.checkpointAck(ack);
      },
      onDecline: (decline) => {
        if (this.ending === undefined) deps.events.checkpointDecline(decline);
      },
    });
    this.setState('RUNNING');
    if (this.source !== undefined) this.readLater();
    else this.pump();
  }

  private noOperator(): never {
    throw new MillraceError('INTERNAL', `${this.vertex.name} has no operator`);
  }

  private contextOf(operatorId: OperatorContext['scope']['operatorId']): OperatorContext {
    const { deps, deployment, task, vertex } = this;
    const { jobId, graph } = deployment;
    const { subtaskIndex, attemptId, attemptNumber } = task;
    const { parallelism, maxParallelism } = vertex;
    const { clock, random, log } = deps.process;
    return {
      ...{ clock, random, log, maxParallelism },
      runtime: {
        ...{ jobId, jobName: graph.name, taskName: taskNameOf(vertex, subtaskIndex), subtaskIndex },
        ...{ parallelism, maxParallelism, attemptNumber, deployment: deployment.deployment },
      },
      site: siteOf(vertex, subtaskIndex, operatorId),
      scope: { jobId, deployment: deployment.deployment, operatorId, attemptId, subtaskIndex },
      range: keyGroupRange(maxParallelism, parallelism, subtaskIndex),
      stateBackends: deps.stateBackends,
      restore:
        task.restore === undefined
          ? undefined
          : {
              checkpointId: task.restore.checkpointId,
              snapshot: task.restore.operators.find((snapshot) => snapshot.operatorId === operatorId),
            },
      signal: this.abort.signal,
      fail: (error) => this.fail(error),
    };
  }

  private readLater(): void {
    if (this.task.suspended === true) return;
    this.timer = this.deps.process.clock.schedule(this.deps.recordMs(), () => {
      this.timer = undefined;
      this.read();
    });
  }

  private read(): void {
    const { source } = this;
    if (source === undefined || this.ending !== undefined || this.endOfData || this.halted) return;
    if (this.outputs.full) {
      this.readLater();
      return;
    }
    try {
      const collector = { collect: (record: unknown) => this.pipe(1, record as SimRecord), failure: undefined };
      const status = source.poll(collector, this.deps.recordsAtOnce());
      this.outputs.flush();
      if (status === 'end') this.onEndOfData();
      else this.readLater();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Through the chain, from operator `from` on. */
  private pipe(from: number, record: SimRecord): void {
    this.records++;
    let value = record;
    const all = this.operators?.all ?? [];
    for (let i = from; i < all.length; i++) {
      const operator = all[i];
      if (operator instanceof CountOperator) value = operator.process(value);
      else if (operator instanceof TwoPhaseSinkOperator) operator.write(value);
    }
    this.outputs.emit(value);
  }

  private receive(index: number, message: DataMessage): void {
    this.inputs[index]?.queue.push(message);
    this.pump();
  }

  private pump(): void {
    if (this.pumping || this.state !== 'RUNNING' || this.ending !== undefined) return;
    this.pumping = true;
    try {
      for (let progress = true; progress; ) {
        progress = false;
        for (const [index, input] of this.inputs.entries()) {
          while (!input.blocked && !this.halted && this.ending === undefined) {
            const message = input.queue.shift();
            if (message === undefined) break;
            progress = true;
            input.channel.processed();
            this.handle(index, input, message);
          }
        }
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.pumping = false;
    }
  }

  private handle(index: number, input: Input, message: DataMessage): void {
    const nowMs = this.deps.process.clock.nowMs();
    switch (message.kind) {
      case 'records':
        for (const record of message.records) this.pipe(0, record);
        this.outputs.flush();
        return;
      case 'barrier':
        this.apply(this.aligner.barrier(index, message.barrier, nowMs));
        return;
      case 'end-of-data':
        input.endOfData = true;
        if (message.drained) this.drained = true;
        if (this.inputs.every((other) => other.endOfData)) this.onEndOfData();
        return;
      case 'end-of-stream':
        this.apply(this.aligner.ended(index, nowMs));
        return;
    }
  }

  private apply(effects: readonly AlignerEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'block': {
          const input = this.inputs[effect.channel];
          if (input !== undefined) input.blocked = true;
          break;
        }
        case 'unblock-all':
          for (const input of this.inputs) input.blocked = false;
          break;
        case 'trigger':
          this.performCheckpoint(effect.barrier, effect.alignmentMs);
          break;
        case 'superseded':
          this.decline(effect.checkpointId, new MillraceError('CONFLICT', `superseded by ${effect.by}`));
          break;
      }
    }
  }

  private performCheckpoint(barrier: CheckpointBarrier, alignmentMs: number): void {
    const { checkpointId } = barrier;
    if (checkpointId <= this.lastCheckpointId || this.ending !== undefined) return;
    this.lastCheckpointId = checkpointId;
    if (this.endOfData && this.drained && barrier.options.stop === undefined) {
      this.decline(checkpointId, new MillraceError('CONFLICT', 'the task was drained, and ends only with a stop'));
      return;
    }
    this.seen.set(checkpointId, { splits: this.reader?.read() ?? [], records: this.records });
    if (this.endOfData) this.finalCheckpointId ??= checkpointId;
    if (barrier.options.stop !== undefined) this.stopCheckpointId = checkpointId;
    this.checkpoints?.perform(barrier, alignmentMs);
  }

  private onEndOfData(): void {
    this.outputs.broadcast({ kind: 'end-of-data', drained: this.drained });
    this.endOfData = true;
    this.report();
  }

  private finish(): void {
    if (this.ending !== undefined) return;
    this.outputs.broadcast({ kind: 'end-of-stream' });
    this.end('FINISHED');
  }

  private end(ending: 'FINISHED' | 'CANCELED' | 'FAILED'): void {
    this.ending = ending;
    this.timer?.cancel();
    this.abort.abort();
    this.checkpoints?.abortAll();
    if (ending !== 'FINISHED') {
      const error =
        ending === 'CANCELED'
          ? new MillraceError('CLOSED', 'the producer was cancelled')
          : new UnavailableError(`the producer failed: ${this.error?.message ?? 'unknown'}`);
      this.outputs.fail(error);
    }
    for (const { channel } of this.inputs) channel.close();
    this.background.run('end task', async () => {
      await this.operators?.close(CLOSE_MS);
      this.setState(ending);
      this.resolveEnded();
    });
  }

  private onInputLost(error: Error): void {
    if (!isMillraceError(error, 'CLOSED')) this.fail(error);
    else this.timer ??= this.deps.process.clock.schedule(CANCEL_GRACE_MS, () => this.fail(error));
  }

  private decline(checkpointId: number, reason: Error): void {
    this.deps.events.checkpointDecline({ ...this.identity(), checkpointId, reason: toErrorInfo(reason) });
  }

  private identity() {
    const { deployment, task } = this;
    return {
      jobId: deployment.jobId,
      deployment: deployment.deployment,
      vertexId: task.vertexId,
      subtaskIndex: task.subtaskIndex,
      attemptId: task.attemptId,
    };
  }

  private setState(state: ExecutionState): void {
    this.state = state;
    this.report();
  }

  private report(): void {
    this.deps.events.taskState(this.attemptReport());
  }
}
