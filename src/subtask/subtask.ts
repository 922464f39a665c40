import type { ExecutionState } from '../contracts/job-status.ts';
import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { JobEdge, JobVertex } from '../contracts/job-graph.ts';
import type { AttemptReport, InputChannelDescriptor, SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import type { DataExchange } from '../exchange/data-exchange.ts';
import type { ExchangeOptions } from '../exchange/exchange-options.ts';
import type { RecordCodec, RecordDecoder } from '../exchange/record-codec.ts';
import { present } from '../kernel/assert.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import {
  asError,
  CorruptError,
  isMillraceError,
  MillraceError,
  toErrorInfo,
  UnavailableError,
} from '../kernel/errors.ts';
import type { AttemptId, OperatorId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { UserProgram } from '../program/user-program.ts';
import { AtLeastOnceTracker, ExactlyOnceAligner } from './barrier-aligner.ts';
import { settleWithin } from './bounded-wait.ts';
import type { ChainFactory } from './chain.ts';
import { CheckpointExecutor } from './checkpoint-executor.ts';
import { InputGate } from './input-gate.ts';
import { IoMeter } from './io-meter.ts';
import type { OperatorSite } from './operator-error.ts';
import type { SubtaskOperator } from './operators/operator.ts';
import { OutputEdge } from './output-edge.ts';
import { createPartitioner } from './partitioner.ts';
import type { RunLoop } from './run-loop.ts';
import type { SlotRuntimeEvents } from './slot-runtime-port.ts';
import type { StateBackendFactory } from './state-backend-factory.ts';
import { buildChain, siteOf, taskNameOf } from './subtask-builder.ts';
import { SubtaskLoop } from './subtask-loop.ts';
import { TaskOutputs } from './task-outputs.ts';
import type { Subpartition } from '../exchange/subpartition.ts';

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
  private readonly outputEdges: readonly { readonly edge: JobEdge; readonly subpartitions: readonly Subpartition[] }[];
  private state: ExecutionState = 'DEPLOYING';
  private error: Error | undefined;
  private ending: Ending | undefined;
  private resolveEnded: () => void = () => undefined;
  private operators: readonly SubtaskOperator[] = [];
  private opening: Promise<unknown> = Promise.resolve();
  private gate: InputGate | undefined;
  private loop: SubtaskLoop | undefined;
  private checkpoints: CheckpointExecutor | undefined;
  private endOfData = false;
  private lastCheckpointId = 0;
  /** The first checkpoint taken at or after the end of the data. */
  private finalCheckpointId: number | undefined;
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
    this.outputEdges = task.outputs.map((output) => {
      const edge = edgeOf(deployment, output.edgeId);
      return { edge, subpartitions: this.createSubpartitions(output.edgeId, output.subpartitions) };
    });
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
    const io = this.meter.report(this.deps.clock.nowMs());
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
      ...(this.error === undefined ? {} : { error: toErrorInfo(this.error) }),
      io,
    };
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

  triggerCheckpoint(barrier: CheckpointBarrier): void {
    const { checkpointId } = barrier;
    if (this.state !== 'RUNNING' || this.loop === undefined || this.ending !== undefined) {
      this.decline(checkpointId, new MillraceError('CONFLICT', `the task is ${this.state}, not RUNNING`));
      return;
    }
    for (const dropped of this.loop.trigger(barrier)) {
      this.decline(dropped.checkpointId, new MillraceError('TIMEOUT', 'newer checkpoints came while this one waited'));
    }
  }

  checkpointCompleted(checkpointId: number): void {
    if (this.state !== 'RUNNING' || this.ending !== undefined) return;
    this.background.run('checkpoint completed', async () => {
      // Each reports its own failure to the task.
      await Promise.all(this.operators.map((operator) => operator.checkpointCompleted(checkpointId)));
      if (this.finalCheckpointId === undefined || checkpointId < this.finalCheckpointId) return;
      // A later checkpoint that we already took part in is answered first: its master waits for us.
      await this.checkpoints?.settled();
      this.finish(); // S3
    });
  }

  checkpointAborted(checkpointId: number, latestCompletedId: number | undefined): void {
    this.checkpoints?.abort(checkpointId);
    this.loop?.abortCheckpoint(checkpointId);
    if (latestCompletedId !== undefined) this.checkpointCompleted(latestCompletedId);
  }

  private async initialize(program: UserProgram): Promise<void> {
    if (this.ending !== undefined) return;
    const { deps, task } = this;
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
      outputsOf: (operatorId, site) => this.connectOutputs(operatorId, site, program),
    });
    this.operators = built.operators;
    this.setState('INITIALIZING');
    if (built.source === undefined) this.gate = this.createGate();
    const opening = Promise.all([this.openOperators(built.operators), this.openInputs()]);
    // Kept, so that ending waits for what was begun; `opening` itself is awaited just below.
    this.opening = opening.catch(() => undefined);
    await opening;
    if (this.ending !== undefined) return;
    const { gate } = this;
    const loop: SubtaskLoop = new SubtaskLoop({
      clock: deps.clock,
      input:
        gate === undefined
          ? { kind: 'source', source: present(built.source, 'a task without inputs has a source') }
          : { kind: 'gate', gate, decoderOf: this.decoders() },
      chain: deps.chains.create({ nodes: built.nodes, shouldPause: () => loop.shouldPause() }),
      outputs: this.outputs,
      sinks: built.sinks,
      meter: this.meter,
      wake: () => this.wake(),
      onCheckpoint: (barrier, alignmentMs) => this.performCheckpoint(barrier, alignmentMs),
      onSuperseded: (checkpointId, by) =>
        this.decline(
          checkpointId,
          new MillraceError('CONFLICT', `checkpoint ${by} began before ${checkpointId} was aligned`),
        ),
      onEndOfData: () => this.onEndOfData(),
      onFailure: (error) => this.fail(error),
    });
    this.checkpoints = new CheckpointExecutor({
      clock: deps.clock,
      background: this.background,
      identity: this.identity(),
      operators: built.operators,
      forward: (barrier) => this.outputs.barrier(barrier),
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

  private performCheckpoint(barrier: CheckpointBarrier, alignmentMs: number): void {
    const { checkpointId } = barrier;
    if (checkpointId <= this.lastCheckpointId) return;
    this.lastCheckpointId = checkpointId;
    if (this.endOfData) this.finalCheckpointId ??= checkpointId;
    this.checkpoints?.perform(barrier, alignmentMs);
  }

  private onEndOfData(): void {
    this.outputs.endOfData();
    this.endOfData = true;
    this.report();
    // With checkpoints the final one must come first, or output prepared after the last would be lost or doubled. S3
    if (this.deployment.graph.config.checkpointing.intervalMs !== undefined) return;
    this.background.run('finish subtask', async () => {
      try {
        for (const operator of this.operators) await operator.finish();
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
    this.abort.abort();
    this.checkpoints?.abortAll();
    this.outputs.close();
    if (ending !== 'FINISHED') {
      const reason = this.reasonForConsumers(ending);
      for (const { subpartitions } of this.outputEdges)
        for (const subpartition of subpartitions) subpartition.fail(reason);
    }
    this.gate?.close();
    this.meter.stop(this.deps.clock.nowMs());
    this.background.run('end subtask', async () => {
      await this.closeOperators();
      this.setState(ending);
      this.resolveEnded();
    });
  }

  private async closeOperators(): Promise<void> {
    const { clock } = this.deps;
    const { closeTimeoutMs } = this.options;
    const stuck = await settleWithin(clock, closeTimeoutMs, this.opening);
    if (stuck !== undefined) {
      this.log.warn({ err: stuck }, 'task ends while it still opens; it closes when it has opened');
      // Owned by the background: nobody waits, but what opens late is closed.
      this.background.run('close late', async () => {
        await this.opening;
        await this.closeEach(Number.MAX_SAFE_INTEGER);
      });
      return;
    }
    await this.closeEach(closeTimeoutMs);
  }

  private async closeEach(limitMs: number): Promise<void> {
    const closing = this.operators.map(async (operator) => {
      const work = (async () => operator.close())();
      const failure =
        limitMs === Number.MAX_SAFE_INTEGER
          ? await work.then(() => undefined, asError)
          : await settleWithin(this.deps.clock, limitMs, work);
      if (failure !== undefined)
        this.log.warn({ err: failure, operator: operator.site.name }, 'operator did not close');
    });
    await Promise.all(closing);
  }

  private reasonForConsumers(ending: 'CANCELED' | 'FAILED'): Error {
    const name = taskNameOf(this.vertex, this.task.subtaskIndex);
    if (ending === 'CANCELED') return new MillraceError('CLOSED', `${name} was cancelled`);
    return new UnavailableError(`${name} failed: ${this.error?.message ?? 'unknown'}`, { cause: this.error });
  }

  private async openOperators(operators: readonly SubtaskOperator[]): Promise<void> {
    // All settle before a failure is thrown, so that closing finds nothing half open.
    const results = await Promise.allSettled(operators.map((operator) => operator.open()));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  private createGate(): InputGate {
    const channels = this.task.inputs.length;
    const aligner =
      this.deployment.graph.config.checkpointing.mode === 'EXACTLY_ONCE'
        ? new ExactlyOnceAligner(channels)
        : new AtLeastOnceTracker(channels);
    return new InputGate(channels, aligner, () => this.wake());
  }

  private async openInputs(): Promise<void> {
    const { gate } = this;
    if (gate === undefined) return;
    await Promise.all(this.task.inputs.map((input, index) => this.openInput(gate, input, index)));
  }

  private async openInput(gate: InputGate, input: InputChannelDescriptor, index: number): Promise<void> {
    const isLocal = input.producerAllocation === this.deployment.allocationId;
    const channel = await this.deps.exchange.openInput(
      {
        jobId: this.deployment.jobId,
        deployment: this.deployment.deployment,
        edgeId: input.edgeId,
        producerAttempt: input.producerAttempt,
        producerSubtask: input.producerSubtask,
        subpartition: input.subpartition,
        consumer: taskNameOf(this.vertex, this.task.subtaskIndex).slice(0, 300),
      },
      isLocal ? undefined : input.producerAddress,
      { onData: () => gate.onData(index), onFailed: (error) => this.onInputLost(error) },
      this.abort.signal,
    );
    gate.connect(index, channel);
  }

  private onInputLost(error: Error): void {
    // Cancelled producers: a cancellation reaches the tasks of a job one by one, and ours is likely next.
    if (!isMillraceError(error.cause, 'CLOSED')) {
      this.fail(error);
      return;
    }
    this.graceTimer ??= this.deps.clock.schedule(this.options.cancelGraceMs, () => this.fail(error));
  }

  private createSubpartitions(edgeId: string, count: number): readonly Subpartition[] {
    const { jobId, deployment } = this.deployment;
    return Array.from({ length: count }, (_, subpartition) =>
      this.deps.exchange.createOutput(
        { jobId, deployment, attemptId: this.task.attemptId, edgeId, subpartition },
        this.outputs,
      ),
    );
  }

  private connectOutputs(operatorId: OperatorId, site: OperatorSite, program: UserProgram): readonly OutputEdge[] {
    return this.outputEdges
      .filter(({ edge }) => edge.sourceOperator === operatorId)
      .map(({ edge, subpartitions }) => {
        const target = present(
          this.deployment.graph.vertices.find(({ id }) => id === edge.target),
          'the target of an edge',
        );
        const output = new OutputEdge({
          edgeId: edge.id,
          site,
          select: createPartitioner({
            partitioner: edge.partitioner,
            subpartitions: subpartitions.length,
            subtaskIndex: this.task.subtaskIndex,
            maxParallelism: target.maxParallelism,
            parallelism: target.parallelism,
            keySelector: program.keySelectors.get(edge.id),
          }),
          subpartitions,
          codec: this.deps.codec,
          limits: this.deps.exchangeOptions,
          meter: this.meter,
          onBuffered: () => this.outputs.onBuffered(),
        });
        this.outputs.add(output);
        return output;
      });
  }

  private decoders(): (codec: number) => RecordDecoder {
    const { codec } = this.deps;
    const decoder = codec.createDecoder();
    return (id) => {
      if (id !== codec.id)
        throw new CorruptError(`a producer uses the record codec ${id}, which this process does not know`);
      return decoder;
    };
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

/** Throws `INVALID_ARGUMENT` for a task that its graph does not have, before anything is made of it. */
export function checkTask(deployment: SlotDeployment, task: TaskDeployment): void {
  vertexOf(deployment, task);
  for (const { edgeId } of task.outputs) edgeOf(deployment, edgeId);
  for (const { edgeId } of task.inputs) edgeOf(deployment, edgeId);
}

function vertexOf(deployment: SlotDeployment, task: TaskDeployment): JobVertex {
  const vertex = deployment.graph.vertices.find(({ id }) => id === task.vertexId);
  if (vertex === undefined) throw new MillraceError('INVALID_ARGUMENT', `the graph has no vertex ${task.vertexId}`);
  if (task.subtaskIndex >= vertex.parallelism) {
    throw new MillraceError(
      'INVALID_ARGUMENT',
      `${siteOf(vertex, task.subtaskIndex, vertex.operators[0]?.id as OperatorId).taskName} does not exist`,
    );
  }
  return vertex;
}

function edgeOf(deployment: SlotDeployment, edgeId: string): JobEdge {
  const edge = deployment.graph.edges.find(({ id }) => id === edgeId);
  if (edge === undefined) throw new MillraceError('INVALID_ARGUMENT', `the graph has no edge ${edgeId}`);
  return edge;
}
