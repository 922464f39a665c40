import { isTerminalExecutionState, type ExecutionState } from '../contracts/job-status.ts';
import type { Slot, SlotProvider, SlotRequest, WorkerEvent } from '../contracts/slots.ts';
import type { TaskManagerGateway, WorkerReport } from '../contracts/task-manager-gateway.ts';
import { type AttemptReport, NO_IO, type SlotDeployment, type TaskDeployment } from '../contracts/task.ts';
import { objectState } from '../checkpoint/checkpoint.fixture.ts';
import type { Clock } from '../kernel/clock.ts';
import { type ErrorInfo, FencedError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import {
  type AllocationId,
  asAllocationId,
  asTaskManagerId,
  type AttemptId,
  compareDeployments,
  type DeploymentId,
  type FencingToken,
  type JobId,
  type TaskManagerId,
} from '../kernel/ids.ts';
import type { JobMaster } from './job-master.ts';

interface ModelAttempt {
  readonly deployment: DeploymentId;
  readonly allocationId: AllocationId;
  readonly jobId: JobId;
  readonly task: TaskDeployment;
  state: ExecutionState;
  endOfData: boolean;
  drained?: boolean;
  peerLost?: boolean;
}

/** A TaskManager as the JobMaster meets it, with the ways in which one can misbehave. */
export class ModelWorker {
  readonly id: TaskManagerId;
  readonly attempts = new Map<AttemptId, ModelAttempt>();
  readonly allocations = new Map<AllocationId, { slotIndex: number; jobId: JobId }>();
  readonly deployments: SlotDeployment[] = [];
  readonly calls: string[] = [];
  alive = true;
  /** Tasks become RUNNING by themselves. */
  starts = true;
  /** Barriers are acknowledged. */
  acks = true;
  answersCancel = true;
  answersFree = true;
  /** Thrown by the next `submitTasks`. */
  refuseDeploy: MillraceError | undefined;
  refuseTrigger: MillraceError | undefined;
  /** So many notices of completion are lost. */
  loseNotices = 0;
  highestToken: FencingToken | undefined;

  constructor(
    private readonly cluster: ModelCluster,
    name: string,
    readonly slots: number,
  ) {
    this.id = asTaskManagerId(name);
  }

  gateway(token: FencingToken): TaskManagerGateway {
    const call = async (name: string): Promise<void> => {
      this.calls.push(name);
      await Promise.resolve();
      if (!this.alive) throw new UnavailableError(`${this.id} refuses connections`);
      if (token < (this.highestToken ?? token)) throw new FencedError(`${this.id} has seen ${this.highestToken}`);
      this.highestToken = token;
    };
    return {
      allocateSlot: async ({ slotIndex, allocationId, jobId }) => {
        await call('allocate');
        const holder = [...this.allocations].find(([, allocation]) => allocation.slotIndex === slotIndex)?.[0];
        if (holder !== undefined && holder !== allocationId) throw new MillraceError('CONFLICT', 'slot is taken');
        this.allocations.set(allocationId, { slotIndex, jobId });
        return { dataAddress: { host: 'h', port: 1 } };
      },
      freeSlot: async ({ allocationId }) => {
        await call('free');
        this.free(allocationId);
        return {};
      },
      releaseJob: async ({ jobId }) => {
        await call('release');
        for (const [id, allocation] of this.allocations) if (allocation.jobId === jobId) this.free(id);
        return {};
      },
      heartbeat: async () => {
        await call('heartbeat');
        return this.report();
      },
      submitTasks: async (deployment) => {
        await call(`submit ${deployment.deployment}`);
        const refuse = this.refuseDeploy;
        this.refuseDeploy = undefined;
        if (refuse !== undefined) throw refuse;
        this.accept(deployment);
        return {};
      },
      cancelTasks: async ({ attemptIds }) => {
        await call('cancel');
        if (this.answersCancel) for (const attemptId of attemptIds) this.set(attemptId, 'CANCELED');
        return {};
      },
      triggerCheckpoint: async ({ checkpointId, deployment }) => {
        await call(`trigger ${checkpointId}`);
        if (this.refuseTrigger !== undefined) throw this.refuseTrigger;
        this.cluster.barrier(deployment, checkpointId);
        return {};
      },
      notifyCheckpointComplete: async ({ checkpointId }) => {
        await call(`complete ${checkpointId}`);
        if (this.loseNotices-- > 0) throw new MillraceError('UNKNOWN_OUTCOME', 'answer lost');
        for (const [attemptId, attempt] of this.attempts) if (attempt.endOfData) this.set(attemptId, 'FINISHED');
        return {};
      },
      notifyCheckpointAborted: async ({ checkpointId, andOlder }) => {
        await call(`aborted ${andOlder === true ? 'up to ' : ''}${checkpointId}`);
        return {};
      },
    };
  }

  accept(deployment: SlotDeployment): void {
    if (!this.allocations.has(deployment.allocationId)) throw new MillraceError('NOT_FOUND', 'no such allocation');
    this.deployments.push(deployment);
    const { jobId, allocationId } = deployment;
    // As a real worker: older attempts of a subtask end before newer ones begin, and what is over altogether.
    const subtasks = new Set(deployment.tasks.map(({ vertexId, subtaskIndex }) => `${vertexId} ${subtaskIndex}`));
    const floor = deployment.oldestLive ?? deployment.deployment;
    for (const [id, attempt] of this.attempts) {
      const over = compareDeployments(attempt.deployment, floor) < 0;
      const replaced = subtasks.has(`${attempt.task.vertexId} ${attempt.task.subtaskIndex}`);
      if (attempt.allocationId === allocationId && (over || replaced)) this.set(id, 'CANCELED');
    }
    for (const task of deployment.tasks) {
      const base = { jobId, allocationId, deployment: deployment.deployment, task };
      this.attempts.set(task.attemptId, { ...base, state: 'DEPLOYING', endOfData: false });
    }
    if (!this.starts) return;
    for (const task of deployment.tasks) {
      this.set(task.attemptId, 'INITIALIZING');
      this.set(task.attemptId, 'RUNNING');
    }
  }

  /** The attempt moves on, and the master is told. */
  set(attemptId: AttemptId, state: ExecutionState, error?: ErrorInfo): void {
    const attempt = this.attempts.get(attemptId);
    if (!this.alive || attempt === undefined || isTerminalExecutionState(attempt.state)) return;
    attempt.state = state;
    this.cluster.master?.updateTaskState(this.reportOf(attemptId, attempt, error));
  }

  /** The attempt has lost one that it reads from. */
  losePeer(attemptId: AttemptId): void {
    const attempt = this.attempts.get(attemptId);
    if (attempt === undefined || isTerminalExecutionState(attempt.state)) return;
    attempt.peerLost = true;
    this.set(attemptId, 'FAILED', { code: 'UNAVAILABLE', message: 'lost producer' });
  }

  /** Whatever runs in the slot ends. */
  free(allocationId: AllocationId): void {
    for (const [id, attempt] of this.attempts) if (attempt.allocationId === allocationId) this.set(id, 'CANCELED');
    this.allocations.delete(allocationId);
  }

  endOfData(): void {
    for (const [attemptId, attempt] of this.attempts) {
      if (attempt.state !== 'RUNNING') continue;
      attempt.endOfData = true;
      this.cluster.master?.updateTaskState(this.reportOf(attemptId, attempt));
    }
  }

  /** The order to drain has been carried out. */
  drain(): void {
    for (const attempt of this.attempts.values()) if (attempt.state === 'RUNNING') attempt.drained = true;
    this.endOfData();
  }

  live(): AttemptId[] {
    return [...this.attempts].flatMap(([id, attempt]) => (isTerminalExecutionState(attempt.state) ? [] : [id]));
  }

  reportOf(attemptId: AttemptId, attempt: ModelAttempt, error?: ErrorInfo): AttemptReport {
    const { vertexId, subtaskIndex, attemptNumber } = attempt.task;
    return {
      jobId: attempt.jobId,
      deployment: attempt.deployment,
      vertexId,
      subtaskIndex,
      attemptId,
      attemptNumber,
      allocationId: attempt.allocationId,
      state: attempt.state,
      endOfData: attempt.endOfData,
      ...(attempt.drained === true ? { drained: true } : {}),
      ...(error === undefined ? {} : { error }),
      ...(attempt.peerLost === true ? { peerLost: true } : {}),
      io: { ...NO_IO, readRecords: 7 },
    };
  }

  report(): WorkerReport {
    const taken = [...this.allocations];
    return {
      taskManagerId: this.id,
      slots: Array.from({ length: this.slots }, (_, slotIndex) => {
        const [allocationId, allocation] = taken.find(([, { slotIndex: index }]) => index === slotIndex) ?? [];
        if (allocationId === undefined || allocation === undefined) return { slotIndex };
        const { jobId } = allocation;
        return { slotIndex, allocation: { allocationId, jobId, dataAddress: { host: 'h', port: 1 } } };
      }),
      attempts: [...this.attempts].map(([attemptId, attempt]) => this.reportOf(attemptId, attempt)),
      freeMemoryBytes: 0,
    };
  }
}

/** Workers and their slots: the ResourceManager as the JobMaster meets it. */
export class ModelCluster implements SlotProvider {
  master: JobMaster | undefined;
  readonly workers: ModelWorker[] = [];
  readonly released: string[] = [];
  readonly releasedJobs: JobId[] = [];
  readonly requests: number[] = [];
  private readonly listeners = new Set<(event: WorkerEvent) => void>();
  private readonly waiting = new Set<() => void>();
  private allocations = 0;

  constructor(
    private readonly clock: Clock,
    public token: FencingToken,
  ) {}

  /**
   * The ResourceManager of one term. Once a newer term has begun workers refuse the old one, so it grants
   * nothing, frees nothing, and hears nothing.
   */
  provider(token: FencingToken): SlotProvider {
    const leads = () => this.token === token;
    const refuse = () => Promise.reject(new FencedError(`${token} no longer leads`));
    return {
      requestSlots: (request) => (leads() ? this.requestSlots(request, leads) : refuse()),
      claimSlots: (jobId, ids) => (leads() ? this.claimSlots(jobId, ids) : []),
      releaseSlots: (jobId, ids, reason) => (leads() ? this.releaseSlots(jobId, ids, reason) : Promise.resolve()),
      releaseJob: (jobId) => (leads() ? this.releaseJob(jobId) : Promise.resolve()),
      subscribe: (listener) => this.subscribe((event) => leads() && listener(event)),
    };
  }

  worker(slots = 1, register = true): ModelWorker {
    const worker = new ModelWorker(this, `tm-${this.workers.length + 1}`, slots);
    this.workers.push(worker);
    if (register) this.register(worker);
    return worker;
  }

  register(worker: ModelWorker): void {
    this.emit({ kind: 'registered', taskManagerId: worker.id, report: worker.report() });
    this.retry();
  }

  heartbeat(worker: ModelWorker): void {
    this.emit({ kind: 'reported', taskManagerId: worker.id, report: worker.report() });
  }

  /** The process is gone, and the ResourceManager has noticed. */
  kill(worker: ModelWorker): void {
    worker.alive = false;
    worker.allocations.clear();
    this.emit({ kind: 'lost', taskManagerId: worker.id, reason: 'connection refused' });
  }

  emit(event: WorkerEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  subscribe(listener: (event: WorkerEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  requestSlots(request: SlotRequest, leads = () => true): Promise<readonly Slot[]> {
    this.requests.push(request.count);
    return new Promise((resolve, reject) => {
      const end = () => {
        timer.cancel();
        this.waiting.delete(attempt);
      };
      const attempt = () => {
        if (request.signal.aborted || !leads()) return;
        const free = this.free();
        if (free.length < request.count) {
          request.onWaiting(request.count - free.length, this.total());
          return;
        }
        end();
        resolve(
          free.slice(0, request.count).map(({ worker, slotIndex }) => this.grant(worker, slotIndex, request.jobId)),
        );
      };
      const timer = this.clock.schedule(request.timeoutMs, () => {
        end();
        reject(new MillraceError('NO_RESOURCES', `not enough slots within ${request.timeoutMs} ms`));
      });
      request.signal.addEventListener('abort', () => {
        end();
        reject(new MillraceError('CLOSED', 'no longer wanted'));
      });
      this.waiting.add(attempt);
      attempt();
    });
  }

  claimSlots(jobId: JobId, allocationIds: readonly AllocationId[]): readonly Slot[] {
    return this.workers.flatMap((worker) =>
      [...worker.allocations].flatMap(([allocationId, { slotIndex, jobId: holder }]) =>
        worker.alive && holder === jobId && allocationIds.includes(allocationId)
          ? [this.slot(worker, slotIndex, allocationId)]
          : [],
      ),
    );
  }

  async releaseSlots(_jobId: JobId, allocationIds: readonly AllocationId[], reason: string): Promise<void> {
    for (const allocationId of allocationIds) {
      this.released.push(reason);
      const worker = this.workers.find((candidate) => candidate.allocations.has(allocationId));
      if (worker === undefined || !worker.alive) continue;
      if (!worker.answersFree) await new Promise(() => {});
      await Promise.resolve();
      worker.free(allocationId);
    }
    this.retry();
  }

  async releaseJob(jobId: JobId): Promise<void> {
    this.releasedJobs.push(jobId);
  }

  /** A barrier has passed everything that runs of a deployment. */
  barrier(deployment: DeploymentId, checkpointId: number): void {
    for (const worker of this.workers) {
      if (!worker.alive || !worker.acks) continue;
      for (const [attemptId, attempt] of worker.attempts) {
        if (attempt.deployment !== deployment || attempt.state !== 'RUNNING') continue;
        this.acknowledge(worker, attemptId, checkpointId);
      }
    }
  }

  acknowledge(worker: ModelWorker, attemptId: AttemptId, checkpointId: number): void {
    const attempt = worker.attempts.get(attemptId);
    if (attempt === undefined) throw new Error('no such attempt');
    const { vertexId, subtaskIndex } = attempt.task;
    const operatorId = (vertexId[0] === '1' ? '3' : '4').repeat(32) as Parameters<typeof objectState>[0];
    this.master?.acknowledgeCheckpoint(
      {
        jobId: attempt.jobId,
        deployment: attempt.deployment,
        checkpointId,
        vertexId,
        subtaskIndex,
        attemptId,
        operators: [objectState(operatorId, `state-${checkpointId}-${vertexId[0]}-${subtaskIndex}`)],
        stateBytes: 10,
        alignmentMs: 0,
        syncMs: 0,
        asyncMs: 0,
      },
      worker.id,
    );
  }

  /** Attempts of more than one deployment at the same time: what must never be. */
  liveDeployments(): Set<DeploymentId> {
    const live = new Set<DeploymentId>();
    for (const worker of this.workers) {
      if (!worker.alive) continue;
      for (const id of worker.live()) {
        const attempt = worker.attempts.get(id);
        if (attempt !== undefined) live.add(attempt.deployment);
      }
    }
    return live;
  }

  grant(worker: ModelWorker, slotIndex: number, jobId: JobId): Slot {
    const allocationId = asAllocationId((++this.allocations).toString(16).padStart(32, '0'));
    worker.allocations.set(allocationId, { slotIndex, jobId });
    return this.slot(worker, slotIndex, allocationId);
  }

  private slot(worker: ModelWorker, slotIndex: number, allocationId: AllocationId): Slot {
    return {
      allocationId,
      taskManagerId: worker.id,
      slotIndex,
      host: `host-of-${worker.id}`,
      dataAddress: { host: 'h', port: 1 },
      gateway: worker.gateway(this.token),
    };
  }

  private retry(): void {
    for (const attempt of [...this.waiting]) attempt();
  }

  private total(): number {
    return this.workers.reduce((sum, worker) => sum + (worker.alive ? worker.slots : 0), 0);
  }

  private free(): { worker: ModelWorker; slotIndex: number }[] {
    return this.workers.flatMap((worker) => {
      if (!worker.alive) return [];
      const taken = new Set([...worker.allocations.values()].map(({ slotIndex }) => slotIndex));
      return Array.from({ length: worker.slots }, (_, slotIndex) => ({ worker, slotIndex })).filter(
        ({ slotIndex }) => !taken.has(slotIndex),
      );
    });
  }
}
