import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import { until } from '../../../test-support/until.ts';
import { StreamExecutionEnvironment } from '../../api/environment.ts';
import type { CheckpointMetadata, CheckpointOptions } from '../../contracts/checkpoint.ts';
import type { JobGraph } from '../../contracts/job-graph.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline, SlotDeployment } from '../../contracts/task.ts';
import { restoreTasks } from '../../checkpoint/restore-tasks.ts';
import { buildSlotDeployments, expandJobGraph, type ExecutionPlan, type TaskKey } from '../../graph/execution-graph.ts';
import { ThreadNeighbours } from '../../exchange/port-transport.ts';
import { isTerminalExecutionState } from '../../contracts/job-status.ts';
import { type Clock, SystemClock } from '../../kernel/clock.ts';
import {
  type AllocationId,
  asAllocationId,
  asAttemptId,
  asFencingToken,
  asJobId,
  type DeploymentId,
  deploymentId,
} from '../../kernel/ids.ts';
import { silentLogger } from '../../kernel/log.ts';
import { SystemRandom } from '../../kernel/random.ts';
import { InlinePrograms } from '../../program/inline-programs.ts';
import { enumerateSplits, toUserProgram } from '../../program/program-graph.ts';
import { createStateBackends, type StateBackendsOptions } from '../../state/state-backends.ts';
import { SlotRuntime, type SlotRuntimeDeps, type SlotRuntimeOptions } from '../slot-runtime.ts';

export const TEST_JOB = asJobId('5'.repeat(32));
const clock = new SystemClock();
const random = new SystemRandom();
/** For what takes milliseconds on a machine that has them. */
const WAIT_MS = 20_000;

const ALIGNED: CheckpointOptions = { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 };

export interface TestProgram {
  readonly graph: JobGraph;
  readonly plan: ExecutionPlan;
}

/** The worker's and the master's part around real engines, sockets and state: deploys, triggers, collects. */
export class SlotCluster {
  readonly programs = new InlinePrograms();
  readonly acks: CheckpointAck[] = [];
  readonly declines: CheckpointDecline[] = [];
  readonly history: AttemptReport[] = [];
  runtimes: SlotRuntime[] = [];
  private deployments = 0;
  private readonly neighbours = new ThreadNeighbours();
  constructor(
    readonly objects: MemoryObjectStore = new MemoryObjectStore(clock),
    private readonly stateOptions: StateBackendsOptions = { memoryThresholdBytes: 256 },
    /** What times-to-live go by. */
    private readonly stateClock: Clock = clock,
  ) {}

  private current: { readonly deployment: DeploymentId; readonly slots: readonly SlotDeployment[] } | undefined;

  /** They are slots of one worker, unless `deps` say otherwise: neighbours that exchange records over ports. */
  async addSlots(
    count: number,
    options: Partial<SlotRuntimeOptions> = {},
    deps: Partial<SlotRuntimeDeps> = {},
  ): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.runtimes.push(
        await SlotRuntime.start(
          {
            clock,
            random,
            log: silentLogger,
            programs: this.programs,
            stateBackends: createStateBackends({ objects: this.objects, clock: this.stateClock }, this.stateOptions),
            events: {
              taskState: (report) => void this.history.push(structuredClone(report)),
              checkpointAck: (ack) => void this.acks.push(structuredClone(ack)),
              checkpointDecline: (decline) => void this.declines.push(structuredClone(decline)),
              crashed: () => undefined,
            },
            neighbours: this.neighbours,
            ...deps,
          },
          { name: `slot-${this.runtimes.length}`, ...options },
        ),
      );
    }
  }

  async program(main: (env: StreamExecutionEnvironment) => void): Promise<TestProgram> {
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    main(env);
    const stream = env.getStreamGraph('test job');
    const program = toUserProgram(stream, await enumerateSplits(stream));
    const programId = random.hex(8);
    this.programs.add(programId, program);
    const graph: JobGraph = {
      ...program.plan,
      jobId: TEST_JOB,
      bundle: { kind: 'inline', programId },
      submittedWallMs: 0,
    };
    return { graph, plan: expandJobGraph(graph) };
  }

  slotDeployments(
    { graph, plan }: TestProgram,
    restore?: CheckpointMetadata,
    options: { readonly suspended?: boolean } = {},
  ): readonly SlotDeployment[] {
    const deployment = deploymentId(asFencingToken(1n), ++this.deployments);
    const attempts = new Map<TaskKey, { attemptId: ReturnType<typeof asAttemptId>; attemptNumber: number }>(
      plan.tasks.map(({ key }) => [key, { attemptId: asAttemptId(random.hex(16)), attemptNumber: this.deployments }]),
    );
    const allocations = new Map(
      this.runtimes.map((runtime, i) => [i, { allocationId: allocationOf(i), dataAddress: runtime.dataAddress }]),
    );
    const bySlot = buildSlotDeployments(plan, {
      deployment,
      allocations,
      attempts,
      ...options,
      ...(restore === undefined ? {} : { restore: restoreTasks(graph, restore) }),
    });
    return [...bySlot.values()];
  }

  async deploy(
    program: TestProgram,
    restore?: CheckpointMetadata,
    options: { readonly suspended?: boolean } = {},
  ): Promise<void> {
    const slots = this.slotDeployments(program, restore, options);
    const deployment = slots[0]?.deployment as DeploymentId;
    this.current = { deployment, slots };
    await Promise.all(slots.map((slot) => this.runtimeOf(slot).submit(slot)));
  }

  runtimeOf(slot: SlotDeployment): SlotRuntime {
    return this.runtimes[Number.parseInt(slot.allocationId, 16)] as SlotRuntime;
  }

  get deployment(): DeploymentId {
    return this.current?.deployment as DeploymentId;
  }

  /** The newest report of each attempt of the present deployment. */
  reports(): readonly AttemptReport[] {
    return this.runtimes.flatMap((runtime) => runtime.attempts()).filter((r) => r.deployment === this.deployment);
  }

  async running(): Promise<void> {
    await until(
      'all tasks to run',
      () => {
        this.throwFailure();
        return this.reports().every(({ state }) => state === 'RUNNING');
      },
      { everyMs: 5, timeoutMs: WAIT_MS },
    );
  }

  async ended(): Promise<readonly AttemptReport[]> {
    await until('all tasks to end', () => this.reports().every(({ state }) => isTerminalExecutionState(state)), {
      everyMs: 5,
      timeoutMs: WAIT_MS,
    });
    return this.reports();
  }

  async endOfData(): Promise<void> {
    await until(
      'the end of all data',
      () => {
        this.throwFailure();
        return this.reports().every(({ endOfData }) => endOfData);
      },
      { everyMs: 5, timeoutMs: WAIT_MS },
    );
  }

  private throwFailure(): void {
    const failed = this.reports().find(({ state }) => state === 'FAILED');
    if (failed !== undefined) throw new Error(failed.error?.stack ?? 'failed');
  }

  /** `subtasks`: only these subtasks of sources; default all. */
  trigger(checkpointId: number, options: Partial<CheckpointOptions> = {}, subtasks?: readonly number[]): void {
    for (const slot of this.current?.slots ?? []) {
      const sources = slot.tasks.filter(
        ({ inputs, subtaskIndex }) => inputs.length === 0 && subtasks?.includes(subtaskIndex) !== false,
      );
      this.runtimeOf(slot).triggerCheckpoint({
        attemptIds: sources.map(({ attemptId }) => attemptId),
        deployment: slot.deployment,
        checkpointId,
        timestampMs: 0,
        options: { ...ALIGNED, ...options },
      });
    }
  }

  /** Triggers and waits for every task's word. */
  async checkpoint(
    { graph, plan }: TestProgram,
    checkpointId: number,
    options: Partial<CheckpointOptions> = {},
    subtasks?: readonly number[],
  ): Promise<CheckpointMetadata> {
    this.trigger(checkpointId, options, subtasks);
    const acksOf = () =>
      this.acks.filter((ack) => ack.checkpointId === checkpointId && ack.deployment === this.deployment);
    const declined = () => this.declines.find((decline) => decline.checkpointId === checkpointId);
    await until(`checkpoint ${checkpointId}`, () => declined() !== undefined || acksOf().length === plan.tasks.length, {
      everyMs: 2,
      timeoutMs: WAIT_MS,
    });
    const reason = declined()?.reason;
    if (reason !== undefined) throw new Error(reason.stack ?? reason.message);
    return {
      formatVersion: 1,
      jobId: TEST_JOB,
      checkpointId,
      kind: options.kind ?? 'CHECKPOINT',
      deployment: this.deployment,
      triggerWallMs: 0,
      completedWallMs: 0,
      stateBytes: 0,
      graphFingerprint: graph.fingerprint,
      inFlight: inFlightOf(acksOf()),
      operators: graph.vertices.flatMap((vertex) =>
        vertex.operators.map(({ id: operatorId }) => ({
          operatorId,
          parallelism: vertex.parallelism,
          maxParallelism: vertex.maxParallelism,
          subtasks: Array.from(
            { length: vertex.parallelism },
            (_, i) =>
              acksOf()
                .find((ack) => ack.vertexId === vertex.id && ack.subtaskIndex === i)
                ?.operators.find((snapshot) => snapshot.operatorId === operatorId) ?? {
                operatorId,
                keyed: [],
                operator: [],
              },
          ),
        })),
      ),
    };
  }

  complete(checkpointId: number): void {
    for (const runtime of this.runtimes) {
      runtime.notifyCheckpointComplete({ deployment: this.deployment, checkpointId });
    }
  }

  abort(checkpointId: number, latestCompletedId?: number, { andOlder = false } = {}): void {
    for (const runtime of this.runtimes) {
      runtime.notifyCheckpointAborted({ deployment: this.deployment, checkpointId, latestCompletedId, andOlder });
    }
  }

  cancelAll(): void {
    for (const slot of this.current?.slots ?? []) {
      this.runtimeOf(slot).cancel(slot.tasks.map(({ attemptId }) => attemptId));
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.runtimes.map((runtime) => runtime.close()));
    this.runtimes = [];
  }
}

function allocationOf(index: number): AllocationId {
  return asAllocationId(index.toString(16).padStart(32, '0'));
}

function inFlightOf(acks: readonly CheckpointAck[]): NonNullable<CheckpointMetadata['inFlight']> {
  const all = acks.flatMap(({ inFlight }) => inFlight ?? []);
  return [...all.filter(({ side }) => side === 'INPUT'), ...all.filter(({ side }) => side === 'OUTPUT')];
}
