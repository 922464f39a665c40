import type { AttemptReport, SlotDeployment } from '../../contracts/task.ts';
import { MillraceError } from '../../kernel/errors.ts';
import type { AttemptId } from '../../kernel/ids.ts';
import type { SlotRuntimePort } from '../../subtask/slot-runtime-port.ts';
import type { OpenSlotRequest, SlotHost } from '../slot-host.ts';

/** A slot's engine that a test drives: tasks run at once and end when told, unless they are deaf. */
export class FakeEngine implements SlotRuntimePort {
  readonly dataAddress;
  readonly commands: string[] = [];
  readonly held = new Map<AttemptId, AttemptReport>();
  /** Ignores cancellation, as user code in an endless loop does. */
  deaf = false;
  /** Submissions wait until it is called. */
  gate: Promise<void> | undefined;
  closed = false;

  constructor(
    readonly request: OpenSlotRequest,
    port: number,
  ) {
    this.dataAddress = { host: 'data-host', port };
  }

  async submit(deployment: SlotDeployment): Promise<void> {
    this.commands.push(`submit ${deployment.deployment}`);
    await this.gate;
    for (const task of deployment.tasks) {
      if (task.attemptNumber === 666) throw new MillraceError('PROGRAM', 'the bundle does not load');
      this.become({
        ...{ jobId: deployment.jobId, deployment: deployment.deployment, allocationId: deployment.allocationId },
        ...{ vertexId: task.vertexId, subtaskIndex: task.subtaskIndex },
        ...{ attemptId: task.attemptId, attemptNumber: task.attemptNumber },
        state: 'RUNNING',
        endOfData: false,
        io: { readRecords: 7, writeRecords: 0, readBytes: 0, writeBytes: 0, backPressuredMs: 0, idleMs: 0, busyMs: 0 },
      });
    }
  }

  become(report: AttemptReport): void {
    this.held.set(report.attemptId, report);
    this.request.events.taskState(report);
  }

  finish(attemptId: AttemptId): void {
    const report = this.held.get(attemptId);
    if (report !== undefined) this.become({ ...report, state: 'FINISHED' });
  }

  crash(error: Error): void {
    this.closed = true;
    this.request.events.crashed(this.request.jobId, error);
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    this.commands.push('cancel');
    for (const attemptId of attemptIds) {
      const report = this.held.get(attemptId);
      if (report !== undefined && report.state === 'RUNNING' && !this.deaf)
        this.become({ ...report, state: 'CANCELED' });
    }
  }

  triggerCheckpoint(request: { readonly checkpointId: number; readonly attemptIds: readonly AttemptId[] }): void {
    this.commands.push(`trigger ${request.checkpointId} ${request.attemptIds.length}`);
  }

  notifyCheckpointComplete(request: { readonly checkpointId: number }): void {
    this.commands.push(`complete ${request.checkpointId}`);
  }

  notifyCheckpointAborted(request: { readonly checkpointId: number }): void {
    this.commands.push(`aborted ${request.checkpointId}`);
  }

  attempts(): readonly AttemptReport[] {
    return [...this.held.values()];
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export class FakeSlotHost implements SlotHost {
  readonly engines: FakeEngine[] = [];
  /** What the next openings fail with. */
  failures: Error[] = [];
  private nextPort = 1_000;

  get newest(): FakeEngine {
    const engine = this.engines.at(-1);
    if (engine === undefined) throw new Error('no engine was opened');
    return engine;
  }

  async open(request: OpenSlotRequest): Promise<SlotRuntimePort> {
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    const engine = new FakeEngine(request, request.listenPort === 0 ? this.nextPort++ : request.listenPort);
    this.engines.push(engine);
    return engine;
  }

  async close(): Promise<void> {
    for (const engine of this.engines) await engine.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
