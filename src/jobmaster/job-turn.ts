import type { JobStatus } from '../contracts/job-status.ts';
import type { AllocationId, TaskManagerId } from '../kernel/ids.ts';
import type { Random } from '../kernel/random.ts';
import type { HeldSlot, JobConstants, JobEffect, JobPhase, JobState, TaskState } from './job-state.ts';

/** What a step may look at besides state and event. */
export interface JobContext {
  readonly job: JobConstants;
  readonly nowMs: number;
  readonly wallMs: number;
  readonly random: Random;
}

/** One step in the making: the state as far as it has come, and what it asks for. */
export class JobTurn {
  readonly effects: JobEffect[] = [];

  constructor(
    public state: JobState,
    readonly context: JobContext,
  ) {}

  emit(effect: JobEffect): void {
    this.effects.push(effect);
  }

  set(change: Partial<JobState>): void {
    this.state = { ...this.state, ...change };
  }

  enter(phase: JobPhase, status: JobStatus): void {
    // A timer belongs to the phase that set it.
    this.set({ phase, timer: this.state.timer + 1 });
    if (status === this.state.status) return;
    this.set({ status, enteredMs: { ...this.state.enteredMs, [status]: this.context.wallMs } });
  }

  wakeIn(delayMs: number): void {
    this.emit({ kind: 'timer', generation: this.state.timer, delayMs: Math.max(0, delayMs) });
  }

  setTask(index: number, task: TaskState): void {
    if (this.state.tasks[index] === task) return;
    this.set({ tasks: this.state.tasks.with(index, task) });
    this.emit({ kind: 'taskChanged', index });
  }

  setSlot(held: HeldSlot): void {
    this.set({ slots: new Map(this.state.slots).set(held.slot.allocationId, held) });
  }

  /** Gives slots back. Until that is confirmed their tasks count as running. */
  release(
    slots: readonly { readonly allocationId: AllocationId; readonly taskManagerId: TaskManagerId }[],
    reason: string,
  ) {
    if (slots.length === 0) return;
    const held = new Map(this.state.slots);
    const releasing = new Map(this.state.releasing);
    for (const { allocationId, taskManagerId } of slots) {
      held.delete(allocationId);
      releasing.set(allocationId, taskManagerId);
    }
    this.set({ slots: held, releasing });
    this.emit({ kind: 'releaseSlots', allocationIds: slots.map((slot) => slot.allocationId), reason });
  }
}
