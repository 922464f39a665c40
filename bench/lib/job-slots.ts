import { isTerminalExecutionState } from '../../src/contracts/job-status.ts';
import type { AttemptReport } from '../../src/contracts/task.ts';
import { buildSlotDeployments, expandJobGraph, type TaskKey } from '../../src/graph/execution-graph.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import {
  type AllocationId,
  asAllocationId,
  asFencingToken,
  type AttemptId,
  deploymentId,
  newAttemptId,
  newJobId,
} from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { InlineSlotHost } from '../../src/taskmanager/inline-slot-host.ts';
import type { SlotHost } from '../../src/taskmanager/slot-host.ts';
import { ThreadSlotHost } from '../../src/taskmanager/thread-slot-host.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../../src/subtask/slot-runtime-port.ts';
import { type BenchJob, planOf } from './bench-jobs.ts';
import { type BenchSlotOptions, benchSlots } from './bench-slot.ts';

export interface JobSlotsOptions extends BenchSlotOptions {
  readonly slots: number;
  /** On this thread, or each slot on a thread of its own. */
  readonly place: 'inline' | 'threads';
}

const HEAP_BYTES = 1024 * 1024 * 1024;
const random = new SystemRandom();

/**
 * Slots that run one job after the other, without masters: what is measured is the data plane. Kept
 * between runs, as V8's knowledge of a long-running job is.
 */
export class JobSlots {
  private readonly jobId = newJobId(random);
  private deployments = 0;
  private readonly watching = new Map<AttemptId, (report: AttemptReport) => void>();

  private constructor(
    private readonly host: SlotHost,
    private readonly engines: SlotRuntimePort[],
  ) {}

  static async start({ slots, place, ...engine }: JobSlotsOptions): Promise<JobSlots> {
    const host =
      place === 'inline'
        ? new InlineSlotHost(benchSlots(engine))
        : await ThreadSlotHost.start(
            { clock: new SystemClock(), log: silentLogger },
            {
              workerUrl: new URL('./bench-slot-worker.js', import.meta.url),
              workerData: engine,
              heapBytes: HEAP_BYTES,
              spareThreads: 0,
            },
          );
    const self = new JobSlots(host, []);
    for (let slotIndex = 0; slotIndex < slots; slotIndex++) {
      self.engines.push(
        await host.open({
          slotIndex,
          name: `slot-${slotIndex}`,
          jobId: self.jobId,
          listenPort: 0,
          events: self.events(),
        }),
      );
    }
    return self;
  }

  /** Resolves when every task has finished; rejects with the first failure. */
  async run(job: BenchJob): Promise<void> {
    const plan = expandJobGraph(await planOf(job, this.jobId));
    const attempts = new Map<TaskKey, { readonly attemptId: AttemptId; readonly attemptNumber: number }>(
      plan.tasks.map(({ key }) => [key, { attemptId: newAttemptId(random), attemptNumber: 1 }]),
    );
    const deployments = buildSlotDeployments(plan, {
      deployment: deploymentId(asFencingToken(1n), ++this.deployments),
      allocations: new Map(
        this.engines.map((engine, i) => [i, { allocationId: allocationOf(i), dataAddress: engine.dataAddress }]),
      ),
      attempts,
    });
    const ended = Promise.all([...attempts.values()].map(({ attemptId }) => this.untilFinished(attemptId)));
    await Promise.all([
      ended,
      ...[...deployments].map(([allocationId, deployment]) =>
        (this.engines[Number.parseInt(allocationId, 16)] as SlotRuntimePort).submit(deployment),
      ),
    ]);
  }

  close(): Promise<void> {
    return this.host.close();
  }

  private untilFinished(attemptId: AttemptId): Promise<void> {
    return new Promise((resolve, reject) => {
      this.watching.set(attemptId, ({ state, error }) => {
        this.watching.delete(attemptId);
        if (state === 'FINISHED') resolve();
        else reject(new Error(`a task ended ${state}: ${error?.stack ?? error?.message ?? 'no reason given'}`));
      });
    });
  }

  private events(): SlotRuntimeEvents {
    return {
      taskState: (report) => {
        if (isTerminalExecutionState(report.state)) this.watching.get(report.attemptId)?.(report);
      },
      checkpointAck: () => undefined,
      checkpointDecline: () => undefined,
      crashed: (_jobId, error) => {
        throw error;
      },
    };
  }
}

function allocationOf(index: number): AllocationId {
  return asAllocationId(index.toString(16).padStart(32, '0'));
}
