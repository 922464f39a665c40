import type { Slot } from '../contracts/slots.ts';
import type { SlotDeployment } from '../contracts/task.ts';
import { asError, type ErrorInfo, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { AllocationId, AttemptId, JobId, TaskManagerId } from '../kernel/ids.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { JobEvent } from './job-state.ts';

export interface WorkerCommandsDeps {
  readonly jobId: JobId;
  readonly log: Logger;
  readonly background: BackgroundTasks;
  readonly post: (event: JobEvent) => void;
  readonly onFenced: (reason: string) => void;
}

/** The job's commands to its workers. Every failure comes back as an event; none is lost, none is thrown. */
export class WorkerCommands {
  constructor(private readonly deps: WorkerCommandsDeps) {}

  submit(slot: Slot, message: SlotDeployment): void {
    const { deployment, allocationId } = message;
    this.deps.background.run('submit tasks', async () => {
      try {
        await slot.gateway.submitTasks(message);
        this.deps.post({ kind: 'deployAccepted', deployment, allocationId });
      } catch (error) {
        const info = this.failed(error, slot.taskManagerId, 'tasks could not be deployed');
        if (info !== 'fenced') this.deps.post({ kind: 'deployFailed', deployment, allocationId, error: info });
      }
    });
  }

  /** One call per worker, however many slots it has. */
  cancel(tasks: readonly { readonly slot: Slot; readonly attemptIds: readonly AttemptId[] }[]): void {
    const workers = new Map<TaskManagerId, { slot: Slot; attemptIds: AttemptId[]; allocationIds: AllocationId[] }>();
    for (const { slot, attemptIds } of tasks) {
      const worker = workers.get(slot.taskManagerId) ?? { slot, attemptIds: [], allocationIds: [] };
      workers.set(slot.taskManagerId, worker);
      worker.attemptIds.push(...attemptIds);
      worker.allocationIds.push(slot.allocationId);
    }
    const { jobId } = this.deps;
    for (const { slot, attemptIds, allocationIds } of workers.values()) {
      this.deps.background.run('cancel tasks', async () => {
        try {
          await slot.gateway.cancelTasks({ jobId, attemptIds });
        } catch (error) {
          const info = this.failed(error, slot.taskManagerId, 'tasks could not be cancelled');
          if (info !== 'fenced') this.deps.post({ kind: 'cancelFailed', allocationIds, error: info });
        }
      });
    }
  }

  private failed(error: unknown, taskManagerId: TaskManagerId, what: string): ErrorInfo | 'fenced' {
    this.deps.log.warn({ err: asError(error), taskManagerId }, what);
    if (isMillraceError(error, 'FENCED')) {
      this.deps.onFenced(`worker ${taskManagerId}: ${error.message}`);
      return 'fenced';
    }
    const info = toErrorInfo(error);
    return { ...info, message: `worker ${taskManagerId}: ${what}: ${info.message}` };
  }
}
