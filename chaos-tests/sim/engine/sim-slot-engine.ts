import type { AttemptReport, CheckpointAck, DataAddress, SlotDeployment } from '../../../src/contracts/task.ts';
import { MillraceError } from '../../../src/kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type JobId } from '../../../src/kernel/ids.ts';
import type { SlotRuntimePort } from '../../../src/subtask/slot-runtime-port.ts';
import type { OpenSlotRequest, SlotHost } from '../../../src/taskmanager/slot-host.ts';
import type { DataServer, Subpartition } from './data-plane.ts';
import type { SeenByTask } from './records.ts';
import { SimTask, type TaskDeps } from './sim-task.ts';

export type EngineDeps = Omit<TaskDeps, 'events'> & {
  /** How long it takes to start, and whether it does. */
  readonly startFate: () => { readonly delayMs: number; readonly fails: boolean };
  readonly observe: EngineObserver;
};

/** What the checkers see of engines. */
export interface EngineObserver {
  opened(worker: string, slotIndex: number, jobId: JobId): void;
  closed(worker: string, slotIndex: number, jobId: JobId): void;
  /** A task begins to run. */
  started(worker: string, deployment: SlotDeployment, attemptId: AttemptId): void;
  aborted(deployment: DeploymentId, jobId: JobId, checkpointId: number): void;
  acked(ack: CheckpointAck, final: boolean, seen: SeenByTask): void;
}

/** The engines of one worker, behind the TaskManager's port. */
export class SimSlotHost implements SlotHost {
  private readonly engines = new Set<SimSlotEngine>();
  private closed = false;

  constructor(private readonly deps: EngineDeps) {}

  async open(request: OpenSlotRequest): Promise<SlotRuntimePort> {
    const { process } = this.deps;
    const { delayMs, fails } = this.deps.startFate();
    await process.outside<void>((resolve) => process.time.after(delayMs, () => resolve(undefined)));
    if (this.closed) throw new MillraceError('CLOSED', 'the slot host is closed');
    if (fails) throw new MillraceError('UNAVAILABLE', 'the engine did not start');
    const engine = new SimSlotEngine(this.deps, request, () => this.engines.delete(engine));
    this.engines.add(engine);
    return engine;
  }

  async close(): Promise<void> {
    this.closed = true;
    await Promise.all([...this.engines].map((engine) => engine.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Tasks that run, for checkers. */
  live(): readonly AttemptReport[] {
    return [...this.engines].flatMap((engine) => engine.attempts()).filter(({ state }) => state === 'RUNNING');
  }
}

/** One slot's engine: one job for life, one deployment at a time. */
class SimSlotEngine implements SlotRuntimePort, DataServer {
  readonly process: EngineDeps['process'];
  readonly dataAddress: DataAddress;
  private readonly tasks = new Map<AttemptId, SimTask>();
  private deployment: DeploymentId | undefined;
  private submitting: Promise<void> = Promise.resolve();
  private closing: Promise<void> | undefined;

  constructor(
    private readonly deps: EngineDeps,
    private readonly request: OpenSlotRequest,
    private readonly onClosed: () => void,
  ) {
    this.process = deps.process;
    this.dataAddress = deps.plane.serve(deps.process.host, request.listenPort, this);
    deps.observe.opened(deps.process.name, request.slotIndex, request.jobId);
  }

  find(attemptId: AttemptId, edgeId: string, subpartition: number): Subpartition | undefined {
    return this.tasks.get(attemptId)?.find(edgeId, subpartition);
  }

  submit(deployment: SlotDeployment): Promise<void> {
    const submitted = this.submitting.then(() => this.accept(deployment));
    this.submitting = submitted.catch(() => undefined); // The caller has it.
    return submitted;
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    for (const attemptId of attemptIds) this.tasks.get(attemptId)?.cancel();
  }

  triggerCheckpoint(request: Parameters<SlotRuntimePort['triggerCheckpoint']>[0]): void {
    if (request.deployment !== this.deployment) return;
    const { checkpointId, timestampMs, options } = request;
    for (const attemptId of request.attemptIds)
      this.tasks.get(attemptId)?.triggerCheckpoint({ checkpointId, timestampMs, options });
  }

  notifyCheckpointComplete(request: { readonly deployment: DeploymentId; readonly checkpointId: number }): void {
    if (request.deployment !== this.deployment) return;
    for (const task of this.tasks.values()) task.checkpointCompleted(request.checkpointId);
  }

  notifyCheckpointAborted(request: Parameters<SlotRuntimePort['notifyCheckpointAborted']>[0]): void {
    if (request.deployment !== this.deployment) return;
    this.deps.observe.aborted(request.deployment, this.request.jobId, request.checkpointId);
    const { checkpointId, latestCompletedId, andOlder } = request;
    for (const task of this.tasks.values())
      if (andOlder === true) task.checkpointsAbortedUpTo(checkpointId, latestCompletedId);
      else task.checkpointAborted(checkpointId, latestCompletedId);
  }

  attempts(): readonly AttemptReport[] {
    return [...this.tasks.values()].map((task) => task.attemptReport());
  }

  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async accept(request: SlotDeployment): Promise<void> {
    if (this.closing !== undefined) throw new MillraceError('CLOSED', 'the slot is closing');
    if (request.jobId !== this.request.jobId) throw new MillraceError('CONFLICT', 'the slot belongs to another job');
    if (this.deployment !== undefined && compareDeployments(request.deployment, this.deployment) < 0)
      throw new MillraceError('CONFLICT', `deployment ${request.deployment} was replaced by ${this.deployment}`);
    if (request.deployment !== this.deployment) {
      this.deployment = request.deployment;
      const leftovers = [...this.tasks.values()];
      for (const task of leftovers) task.cancel();
      await Promise.all(leftovers.map((task) => task.ended));
      this.tasks.clear();
      if (this.closing !== undefined) throw new MillraceError('CLOSED', 'the slot is closing');
    }
    const events: OpenSlotRequest['events'] = {
      ...this.request.events,
      checkpointAck: (ack) => {
        const task = this.tasks.get(ack.attemptId);
        if (task !== undefined)
          this.deps.observe.acked(ack, task.isFinal(ack.checkpointId), task.seenBy(ack.checkpointId));
        this.request.events.checkpointAck(ack);
      },
    };
    const added = request.tasks.filter(({ attemptId }) => !this.tasks.has(attemptId));
    const tasks = added.map((task) => new SimTask({ ...this.deps, events }, request, task));
    for (const task of tasks) {
      this.tasks.set(task.attemptId, task);
      this.deps.observe.started(this.process.name, request, task.attemptId);
    }
    for (const task of tasks) task.start();
  }

  private async closeAll(): Promise<void> {
    for (const task of this.tasks.values()) task.cancel();
    await Promise.all([...this.tasks.values()].map((task) => task.ended));
    await this.submitting;
    this.deps.plane.stop(this.dataAddress, this);
    this.deps.observe.closed(this.process.name, this.request.slotIndex, this.request.jobId);
    this.onClosed();
  }
}
