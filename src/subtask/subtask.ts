import type { ExecutionState } from '../contracts/job-status.ts';
import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { JobVertex } from '../contracts/job-graph.ts';
import type { AttemptReport, SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import type { DataExchange } from '../exchange/data-exchange.ts';
import type { ExchangeOptions } from '../exchange/exchange-options.ts';
import type { RecordCodec } from '../exchange/record-codec.ts';
import { present } from '../kernel/assert.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError, toErrorInfo, UnavailableError } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { UserProgram } from '../program/user-program.ts';
import { AtLeastOnceTracker, ExactlyOnceAligner } from './barrier-aligner.ts';
import type { ChainFactory } from './chain.ts';
import { CheckpointExecutor } from './checkpoint-executor.ts';
import type { InFlightCapture } from './in-flight.ts';
import { InputGate, type RestoredBatch } from './input-gate.ts';
import { IoMeter } from './io-meter.ts';
import { LatencyTracker } from './latency-tracker.ts';
import { originsOf, readInFlight } from './restored-in-flight.ts';
import type { RunLoop } from './run-loop.ts';
import type { SlotRuntimeEvents } from './slot-runtime-port.ts';
import type { OperatorScope, StateBackendFactory } from './state-backend-factory.ts';
import { OperatorSet } from './operator-set.ts';
import { buildChain } from './subtask-builder.ts';
import { taskNameOf, vertexOf } from './task-lookup.ts';
import { TaskWiring } from './task-wiring.ts';
import { SubtaskLoop } from './subtask-loop.ts';
import { createTaskChain } from './task-chain.ts';
import { TaskOutputs } from './task-outputs.ts';
import { newElement } from './time/element.ts';
import { planEventTime } from './time/event-time-plan.ts';
import type { TaskTime } from './time/task-time.ts';

export interface SubtaskDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly stateBackends: StateBackendFactory;
  readonly events: SlotRuntimeEvents;
  readonly exchange: DataExchange;
  readonly exchangeOptions: ExchangeOptions;
  readonly codec: RecordCodec;
  readonly chains: ChainFactory;
  readonly loop: RunLoop;
}

export interface SubtaskOptions {
  /** How long readers, writers and state may take to close before the attempt is reported as ended anyway. */
  readonly closeTimeoutMs: number;
  /** A consumer whose producer was cancelled is about to be cancelled itself; only if not within this time it fails. */
  readonly cancelGraceMs: number;
}

const AUTO_WATERMARK_INTERVAL_MS = 200;
const ABORTED_IDS_MAX = 64;

type Ending = 'FINISHED' | 'CANCELED' | 'FAILED';

/**
 * One attempt at one subtask, from its deployment to its last report.
 *
 *   S1. Its output can be found by consumers from construction until the deployment is replaced.
 *   S2. It ends once; the terminal report is its last, and nothing of it runs after that, save what
 *       did not close within the bound (logged).
 *   S3. With checkpoints it finishes only after one that it took at or after the end of its data has
 *       completed and its commits are done.
 */
export class Subtask {
  readonly attemptId: AttemptId;
  /** Resolves with the terminal report's being sent. */
  readonly ended: Promise<void>;
  private readonly vertex: JobVertex;
  private readonly log: Logger;
  private readonly meter = new IoMeter();
  private readonly background: BackgroundTasks;
  private readonly abort = new AbortController();
  private readonly outputs: TaskOutputs;
  private readonly wiring: TaskWiring;
  private state: ExecutionState = 'DEPLOYING';
  private error: Error | undefined;
  private peerLost = false;
  private ending: Ending | undefined;
  private resolveEnded: () => void = () => undefined;
  private operators: OperatorSet | undefined;
  private gate: InputGate | undefined;
  private readonly latency: LatencyTracker | undefined;
  private loop: SubtaskLoop | undefined;
  private time: TaskTime | undefined;
  private checkpoints: CheckpointExecutor | undefined;
  private endOfData = false;
  private drained = false;
  private lastCheckpointId = 0;
  /** Taken, and neither known to be completed nor aborted. */
  private readonly unsettled = new Set<number>();
  /** The first checkpoint taken at or after the end of the data. */
  private finalCheckpointId: number | undefined;
  /** The checkpoint with which the job stops, taken and not yet decided. */
  private stopCheckpointId: number | undefined;
  /** Given up before they were seen here, newest last: their triggers may still be on the way. */
  private readonly abortedIds: number[] = [];
  private abortedUpTo = 0;
  private graceTimer: Timer | undefined;

  constructor(
    private readonly deps: SubtaskDeps,
    private readonly options: SubtaskOptions,
    private readonly deployment: SlotDeployment,
    private readonly task: TaskDeployment,
  ) {
    this.attemptId = task.attemptId;
    this.vertex = vertexOf(deployment, task);
    this.log = deps.log.child({ task: taskNameOf(this.vertex, task.subtaskIndex), attemptId: task.attemptId });
    this.background = new BackgroundTasks(this.log);
    this.ended = new Promise((resolve) => {
      this.resolveEnded = resolve;
    });
    this.outputs = new TaskOutputs({
      clock: deps.clock,
      bufferTimeoutMs: deployment.graph.config.bufferTimeoutMs,
      wake: () => this.wake(),
      fail: (error) => this.fail(error),
    });
    this.wiring = new TaskWiring({
      exchange: deps.exchange,
      codec: deps.codec,
      // A buffer timeout of 0 means that records do not wait for each other.
      limits:
        deployment.graph.config.bufferTimeoutMs === 0
          ? { ...deps.exchangeOptions, batchRecords: 1 }
          : deps.exchangeOptions,
      deployment,
      task,
      outputs: this.outputs,
      meter: this.meter,
      random: deps.random,
    });
    this.latency = this.createLatencyTracker();
  }

  /** Begins in the background; everything that happens is told through the events. */
  start(program: Promise<UserProgram>): void {
    this.report();
    this.background.run('start subtask', async () => {
      try {
        await this.initialize(await program);
      } catch (error) {
        this.fail(error);
      }
    });
  }

  attemptReport(): AttemptReport {
    const { deployment, task } = this;
    const latency = this.latency?.report() ?? [];
    const io = { ...this.meter.report(this.deps.clock.nowMs()), ...(latency.length === 0 ? {} : { latency }) };
    return {
      jobId: deployment.jobId,
      deployment: deployment.deployment,
      vertexId: task.vertexId,
      subtaskIndex: task.subtaskIndex,
      attemptId: task.attemptId,
      attemptNumber: task.attemptNumber,
      allocationId: deployment.allocationId,
      state: this.state,
      endOfData: this.endOfData,
      ...(this.drained ? { drained: true } : {}),
      ...(this.error === undefined ? {} : { error: toErrorInfo(this.error) }),
      ...(this.peerLost ? { peerLost: true } : {}),
      io,
    };
  }

  get deploymentId(): DeploymentId {
    return this.deployment.deployment;
  }

  /** Which subtask it is an attempt at. */
  get subtaskKey(): string {
    return `${this.task.vertexId}_${this.task.subtaskIndex}`;
  }

  get isTerminal(): boolean {
    return isTerminalExecutionState(this.state);
  }

  cancel(): void {
    if (this.ending !== undefined) return;
    this.setState('CANCELING');
    this.end('CANCELED');
  }

  fail(thrown: unknown): void {
    if (this.ending !== undefined) {
      this.log.debug({ err: asError(thrown) }, 'failure of a task that is ending');
      return;
    }
    this.error = asError(thrown);
    this.log.warn({ err: this.error }, 'task failed');
    this.end('FAILED');
  }

  /** An input is lost with its producer, or with the way to it. Damaged data is another matter: who knows what was read. */
  private failWithPeer(error: Error): void {
    if (this.ending === undefined) this.peerLost = !isMillraceError(error, 'CORRUPT');
    this.fail(error);
  }

  triggerCheckpoint(barrier: CheckpointBarrier): void {
    const { checkpointId } = barrier;
    if (this.state !== 'RUNNING' || this.loop === undefined || this.ending !== undefined) {
      this.decline(checkpointId, new MillraceError('CONFLICT', `the task is ${this.state}, not RUNNING`));
      return;
    }
    if (checkpointId <= this.abortedUpTo || this.abortedIds.includes(checkpointId)) return;
    for (const dropped of this.loop.trigger(barrier)) {
      this.decline(dropped.checkpointId, new MillraceError('TIMEOUT', 'newer checkpoints came while this one waited'));
    }
  }

  checkpointCompleted(checkpointId: number): void {
    if (this.state !== 'RUNNING' || this.ending !== undefined) return;
    for (const id of this.unsettled) if (id <= checkpointId) this.unsettled.delete(id);
    this.background.run('checkpoint completed', async () => {
      // Each reports its own failure to the task.
      const operators = this.operators?.all ?? [];
      await Promise.all(operators.map((operator) => operator.checkpointCompleted(checkpointId)));
      const endsWith = this.stopCheckpointId ?? this.finalCheckpointId;
      if (endsWith === undefined || checkpointId < endsWith) return;
      // A later checkpoint that we already took part in is answered first: its master waits for us.
      await this.checkpoints?.settled();
      this.finish(); // S3
    });
  }

  checkpointAborted(checkpointId: number, latestCompletedId: number | undefined): void {
    this.checkpoints?.abort(checkpointId);
    this.loop?.abortCheckpoint(checkpointId);
    this.abortedIds.push(checkpointId);
    if (this.abortedIds.length > ABORTED_IDS_MAX) this.abortedIds.shift();
    this.forget(checkpointId);
    if (latestCompletedId !== undefined) this.checkpointCompleted(latestCompletedId);
  }

  /** A new leader speaks: of all up to `checkpointId` only what it names has completed. */
  checkpointsAbortedUpTo(checkpointId: number, latestCompletedId = 0): void {
    this.abortedUpTo = Math.max(this.abortedUpTo, checkpointId);
    this.checkpoints?.abortUpTo(checkpointId);
    this.loop?.abortCheckpoint(checkpointId, true);
    for (const id of this.unsettled) if (id <= checkpointId && id > latestCompletedId) this.forget(id);
    if (latestCompletedId > 0) this.checkpointCompleted(latestCompletedId);
  }

  private forget(checkpointId: number): void {
    this.unsettled.delete(checkpointId);
    if (this.stopCheckpointId === checkpointId) {
      this.stopCheckpointId = undefined;
      this.loop?.resume();
    }
    for (const operator of this.operators?.all ?? []) operator.checkpointAborted?.(checkpointId);
  }

  private async initialize(program: UserProgram): Promise<void> {
    if (this.ending !== undefined) return;
    const { deps, task } = this;
    const element = newElement();
    const eventTime = planEventTime(this.deployment.graph, (id) => program.operators.get(id)?.definition);
    const { autoWatermarkIntervalMs: watermarkIntervalMs = AUTO_WATERMARK_INTERVAL_MS } = this.deployment.graph.config;
    const built = buildChain({
      deployment: this.deployment,
      task,
      vertex: this.vertex,
      program,
      clock: deps.clock,
      random: deps.random,
      log: this.log,
      stateBackends: deps.stateBackends,
      signal: this.abort.signal,
      fail: (error) => this.fail(error),
      outputsOf: (operatorId, site) =>
        this.wiring.connectOutputs(operatorId, site, program, { edges: eventTime.edges, element }),
      eventTime,
      watermarkIntervalMs,
      onTimersDue: () => this.time?.processingTimeDue(),
    });
    const { log, background } = this;
    const operators = new OperatorSet({ clock: deps.clock, log, background }, built.operators);
    this.operators = operators;
    this.setState('INITIALIZING');
    const gate =
      built.source === undefined
        ? this.createGate(eventTime.vertices.has(this.vertex.id), await this.restoredInFlight(program))
        : undefined;
    if (this.ending !== undefined) return;
    this.gate = gate;
    await Promise.all([operators.open(), gate && this.openInputs(gate)]);
    if (this.ending !== undefined) return;
    const { chain, time } = createTaskChain({
      vertex: this.vertex,
      task,
      nodes: built.nodes,
      eventTime,
      element,
      watermarkIntervalMs,
      clock: deps.clock,
      chains: deps.chains,
      shouldPause: (elements) => loop.shouldPause(elements),
      room: this.outputs.room,
      blocked: () => loop.blocked(),
      wake: () => this.wake(),
    });
    this.time = time;
    const loop: SubtaskLoop = new SubtaskLoop({
      clock: deps.clock,
      input:
        gate === undefined
          ? { kind: 'source', source: present(built.source, 'a task without inputs has a source') }
          : { kind: 'gate', gate, reader: this.wiring.createReader() },
      chain,
      time,
      outputs: this.outputs,
      latency: this.latency,
      suspended: task.suspended === true,
      sinks: built.sinks,
      meter: this.meter,
      wake: () => this.wake(),
      onCheckpoint: (barrier, alignmentMs, capture) => this.performCheckpoint(barrier, alignmentMs, capture),
      origins: originsOf(this.deployment, task),
      onSuperseded: (checkpointId, by) =>
        this.decline(
          checkpointId,
          new MillraceError('CONFLICT', `checkpoint ${by} began before ${checkpointId} was aligned`),
        ),
      onEndOfData: (drained) => this.onEndOfData(drained),
      onFailure: (error) => this.fail(error),
    });
    this.checkpoints = new CheckpointExecutor({
      clock: deps.clock,
      background: this.background,
      identity: this.identity(),
      operators: built.operators,
      forward: (barrier, overtaking) => this.outputs.barrier(barrier, overtaking),
      inFlight: { stateBackends: deps.stateBackends, scope: this.scope() },
      onAck: (ack) => {
        if (this.ending === undefined) deps.events.checkpointAck(ack);
      },
      onDecline: (decline) => {
        if (this.ending === undefined) deps.events.checkpointDecline(decline);
      },
    });
    this.loop = loop;
    this.meter.end(deps.clock.nowMs(), 'idle');
    this.setState('RUNNING');
    this.wake();
  }

  private async openInputs(gate: InputGate): Promise<void> {
    try {
      await this.wiring.openInputs(gate, (error) => this.onInputLost(error), this.abort.signal);
    } catch (error) {
      this.failWithPeer(asError(error));
    }
  }

  private performCheckpoint(barrier: CheckpointBarrier, alignmentMs: number, capture?: InFlightCapture): void {
    const { checkpointId } = barrier;
    if (checkpointId <= this.lastCheckpointId) return;
    this.lastCheckpointId = checkpointId;
    if (this.drained && barrier.options.stop === undefined) {
      // It would commit what was made of an end that is none, and be followed by the end of this task.
      this.decline(checkpointId, new MillraceError('CONFLICT', 'the task was drained, and ends only with a stop'));
      return;
    }
    this.unsettled.add(checkpointId);
    if (this.endOfData) this.finalCheckpointId ??= checkpointId;
    if (barrier.options.stop !== undefined) {
      // Before the snapshot is written: nothing may come between it and its completion.
      this.stopCheckpointId = checkpointId;
      this.loop?.halt();
    }
    this.checkpoints?.perform(barrier, alignmentMs, capture);
  }

  private onEndOfData(drained: boolean): void {
    this.outputs.endOfData(drained);
    this.endOfData = true;
    this.drained = drained;
    this.report();
    // With checkpoints the final one must come first, or output prepared after the last would be lost or doubled. S3
    if (drained || this.deployment.graph.config.checkpointing.intervalMs !== undefined) return;
    this.background.run('finish subtask', async () => {
      try {
        for (const operator of this.operators?.all ?? []) await operator.finish();
      } catch (error) {
        this.fail(error);
        return;
      }
      this.finish();
    });
  }

  private finish(): void {
    if (this.ending !== undefined) return;
    this.outputs.endOfStream();
    this.end('FINISHED');
  }

  /** The one way out. */
  private end(ending: Ending): void {
    this.ending = ending;
    for (const { checkpointId } of this.loop?.stop() ?? []) {
      this.decline(checkpointId, new MillraceError('CONFLICT', `the task has ended: ${ending}`));
    }
    if (this.loop !== undefined) this.deps.loop.remove(this.loop);
    this.graceTimer?.cancel();
    this.time?.close();
    this.latency?.close();
    this.abort.abort();
    this.checkpoints?.abortAll();
    this.outputs.close();
    if (ending !== 'FINISHED') this.wiring.failOutputs(this.reasonForConsumers(ending));
    this.gate?.close();
    this.meter.stop(this.deps.clock.nowMs());
    this.background.run('end subtask', async () => {
      await this.operators?.close(this.options.closeTimeoutMs);
      this.setState(ending);
      this.resolveEnded();
    });
  }

  private reasonForConsumers(ending: 'CANCELED' | 'FAILED'): Error {
    const name = taskNameOf(this.vertex, this.task.subtaskIndex);
    if (ending === 'CANCELED') return new MillraceError('CLOSED', `${name} was cancelled`);
    return new UnavailableError(`${name} failed: ${this.error?.message ?? 'unknown'}`, { cause: this.error });
  }

  private async restoredInFlight(program: UserProgram): Promise<readonly RestoredBatch[]> {
    if (this.task.restore?.inFlight === undefined) return [];
    const { stateBackends, random } = this.deps;
    const reader = this.wiring.createReader();
    const { signal } = this.abort;
    const deps = { stateBackends, scope: this.scope(), program, random, reader, signal };
    return await readInFlight(deps, this.deployment, this.task);
  }

  /** Of what is the task's own, under the name of its first operator. */
  private scope(): OperatorScope {
    const { deployment, task } = this;
    return {
      jobId: deployment.jobId,
      deployment: deployment.deployment,
      operatorId: present(this.vertex.operators[0], 'the head of the chain').id,
      attemptId: task.attemptId,
      subtaskIndex: task.subtaskIndex,
    };
  }

  private createGate(eventTime: boolean, restored: readonly RestoredBatch[]): InputGate {
    const channels = this.task.inputs.length;
    const aligner =
      this.deployment.graph.config.checkpointing.mode === 'EXACTLY_ONCE'
        ? new ExactlyOnceAligner(channels)
        : new AtLeastOnceTracker(channels);
    const origins = originsOf(this.deployment, this.task);
    const overtaking = origins === undefined ? undefined : { clock: this.deps.clock, origins };
    return new InputGate(channels, aligner, () => this.wake(), { eventTime, overtaking, restored });
  }

  private createLatencyTracker(): LatencyTracker | undefined {
    const { latencyIntervalMs = 0 } = this.deployment.graph.config;
    if (latencyIntervalMs === 0) return undefined;
    const [head] = this.vertex.operators;
    const { subtaskIndex, inputs } = this.task;
    return new LatencyTracker({
      clock: this.deps.clock,
      source:
        inputs.length > 0 || head === undefined
          ? undefined
          : { id: head.id, subtaskIndex, intervalMs: latencyIntervalMs },
      forward: (marker) => this.outputs.mark(marker),
      wake: () => this.wake(),
    });
  }

  private onInputLost(error: Error): void {
    // Cancelled producers: a cancellation reaches the tasks of a job one by one, and ours is likely next.
    if (!isMillraceError(error.cause, 'CLOSED')) {
      this.failWithPeer(error);
      return;
    }
    this.graceTimer ??= this.deps.clock.schedule(this.options.cancelGraceMs, () => this.failWithPeer(error));
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
    this.log.debug({ from: this.state, to: state }, 'task state');
    this.state = state;
    this.report();
  }

  private report(): void {
    this.deps.events.taskState(this.attemptReport());
  }

  private wake(): void {
    if (this.loop !== undefined && this.ending === undefined) this.deps.loop.wake(this.loop);
  }
}
