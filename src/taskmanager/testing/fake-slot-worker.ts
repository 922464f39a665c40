import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { type AttemptReport, NO_IO, type SlotDeployment } from '../../contracts/task.ts';
import { MillraceError } from '../../kernel/errors.ts';
import type { AttemptId } from '../../kernel/ids.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../../subtask/slot-runtime-port.ts';
import { runSlotWorker } from '../slot-worker.ts';

/** What the tasks of {@link BehavingEngine} do, by attempt number. */
export const BEHAVIOURS = ['run', 'loop', 'eat-memory', 'exit', 'throw-later', 'refuse', 'grow-state'] as const;

interface Data {
  readonly breakOnLoad?: boolean;
  /** Takes a while to load and leaves a file there when it has. */
  readonly slowly?: { readonly ms: number; readonly folder: string };
}

await runSlotWorker<Data>(async (data) => {
  if (data.breakOnLoad === true) throw new Error('no such object store');
  if (data.slowly !== undefined) {
    await wait(data.slowly.ms);
    writeFileSync(join(data.slowly.folder, `loaded-${threadId}`), '');
  }
  return async (options, events) => {
    if (options.name === 'cannot-listen') throw new MillraceError('UNAVAILABLE', 'port in use');
    return new BehavingEngine(events, { host: options.advertisedHost ?? 'none', port: options.listenPort ?? -1 });
  };
});

/** An engine whose user code is as bad as user code can be. */
class BehavingEngine implements SlotRuntimePort {
  private readonly held = new Map<AttemptId, AttemptReport>();
  private readonly eaten: unknown[] = [];
  private readonly state = new Map<string, unknown>();

  constructor(
    private readonly events: SlotRuntimeEvents,
    readonly dataAddress: { host: string; port: number },
  ) {}

  async submit(deployment: SlotDeployment): Promise<void> {
    for (const { attemptId, attemptNumber, vertexId, subtaskIndex } of deployment.tasks) {
      const behaviour = BEHAVIOURS[attemptNumber] ?? 'run';
      if (behaviour === 'refuse') throw new MillraceError('PROGRAM', 'the bundle does not load', { hint: 'Fix it.' });
      this.become({
        ...{ jobId: deployment.jobId, deployment: deployment.deployment, allocationId: deployment.allocationId },
        ...{ attemptId, attemptNumber, vertexId, subtaskIndex, state: 'RUNNING', endOfData: false, io: NO_IO },
      });
      setImmediate(() => this.misbehave(behaviour));
    }
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    for (const attemptId of attemptIds) {
      const report = this.held.get(attemptId);
      if (report !== undefined) this.become({ ...report, state: 'CANCELED' });
    }
  }

  triggerCheckpoint({ checkpointId }: { readonly checkpointId: number }): void {
    for (const { jobId, deployment, vertexId, subtaskIndex, attemptId } of this.held.values()) {
      const bytes = new Uint8Array([1, 2, 3]);
      this.events.checkpointAck({
        ...{ jobId, deployment, vertexId, subtaskIndex, attemptId, checkpointId },
        operators: [
          { operatorId: vertexId as never, keyed: [], operator: [{ states: [], handle: { kind: 'inline', bytes } }] },
        ],
        ...{ stateBytes: 3, alignmentMs: 0, syncMs: 0, asyncMs: 0 },
      });
    }
  }

  notifyCheckpointComplete(): void {}

  notifyCheckpointAborted(): void {}

  attempts(): readonly AttemptReport[] {
    return [...this.held.values()].map((report) => ({ ...report, io: { ...report.io, readRecords: 42 } }));
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  private become(report: AttemptReport): void {
    this.held.set(report.attemptId, report);
    this.events.taskState(report);
  }

  private misbehave(behaviour: (typeof BEHAVIOURS)[number]): void {
    switch (behaviour) {
      case 'loop':
        for (;;);
      case 'eat-memory':
        for (;;) this.eaten.push(new Array(100_000).fill(Math.random()));
      case 'exit':
        process.exit(3);
        break;
      case 'throw-later':
        setImmediate(() => {
          throw new TypeError('x is not a function');
        });
        break;
      case 'grow-state': {
        // A little at a time, as an engine does that yields between slices.
        for (let i = 0; i < 20_000; i++) this.state.set(`key ${this.state.size}`, { count: i });
        setImmediate(() => this.misbehave(behaviour));
        break;
      }
      default:
        break;
    }
  }
}
