import type { AttemptReport, DataAddress } from '../../contracts/task.ts';
import type { TaskManagerHandler, WorkerReport } from '../../contracts/task-manager-gateway.ts';
import type { WorkerRegistration } from '../../contracts/job-manager-gateway.ts';
import { MillraceError, UnavailableError } from '../../kernel/errors.ts';
import { type AllocationId, asTaskManagerId, type JobId, type TaskManagerId } from '../../kernel/ids.ts';
import type { TaskManagerConnection } from '../registered-worker.ts';

type Mode =
  | 'alive'
  /** Packets vanish: calls are never answered. */
  | 'silent'
  /** The process is gone, its machine is not. */
  | 'refused'
  /** Answers heartbeats, fails to allocate. */
  | 'no-allocations'
  /** Does what it is told, and its answers are lost. */
  | 'answers-lost';

/** A worker as its leader sees it: slots that remember what they were given, and ways to go wrong. */
export class FakeWorker {
  mode: Mode = 'alive';
  readonly slots: ({ allocationId: AllocationId; jobId: JobId; dataAddress?: DataAddress } | undefined)[];
  readonly calls: string[] = [];
  attempts: AttemptReport[] = [];
  private readonly lostListeners = new Set<(reason: string) => void>();
  closedConnections = 0;

  constructor(
    public id: TaskManagerId,
    slots: number,
    readonly rpcAddress = `${id}:1`,
    readonly pid = 1,
  ) {
    this.slots = Array.from({ length: slots }, () => undefined);
  }

  static named(name: string, slots: number): FakeWorker {
    return new FakeWorker(asTaskManagerId(name), slots);
  }

  registration(): WorkerRegistration {
    return {
      taskManagerId: this.id,
      rpcAddress: this.rpcAddress,
      dataHost: 'data-host',
      slots: this.slots.length,
      hardware: { cpuCores: 1, physicalMemoryBytes: 2, freeMemoryBytes: 1 },
      pid: this.pid,
      report: this.report(),
    };
  }

  report(): WorkerReport {
    return {
      taskManagerId: this.id,
      slots: this.slots.map((allocation, slotIndex) =>
        allocation === undefined ? { slotIndex } : { slotIndex, allocation },
      ),
      attempts: this.attempts,
      freeMemoryBytes: 1,
    };
  }

  /** Its process dies: the connection breaks and new ones are refused. */
  die(): void {
    this.mode = 'refused';
    for (const listener of this.lostListeners) listener('reset');
  }

  connect(): TaskManagerConnection {
    let closed: (error: Error) => void = () => {};
    const closing = new Promise<never>((_resolve, reject) => {
      closed = reject;
    });
    closing.catch(() => undefined);
    const call = async <T>(name: string, act: () => T): Promise<T> => {
      this.calls.push(name);
      const result = async (): Promise<T> => {
        if (this.mode === 'silent') return new Promise(() => {});
        if (this.mode === 'refused') throw refused();
        if (this.mode === 'no-allocations' && name === 'allocateSlot')
          throw new MillraceError('INTERNAL', 'no threads left');
        const answer = act();
        if (this.mode === 'answers-lost' && name !== 'heartbeat')
          throw new MillraceError('UNKNOWN_OUTCOME', 'answer lost');
        return answer;
      };
      return Promise.race([result(), closing]);
    };
    const methods: { [M in keyof TaskManagerHandler]: (request: never) => Promise<unknown> } = {
      allocateSlot: (request: { slotIndex: number; allocationId: AllocationId; jobId: JobId }) =>
        call('allocateSlot', () => this.allocate(request)),
      freeSlot: ({ allocationId }: { allocationId: AllocationId }) =>
        call('freeSlot', () => this.clear((slot) => slot.allocationId === allocationId)),
      releaseJob: ({ jobId }: { jobId: JobId }) => call('releaseJob', () => this.clear((slot) => slot.jobId === jobId)),
      heartbeat: () => call('heartbeat', () => this.report()),
      submitTasks: () => call('submitTasks', () => ({})),
      cancelTasks: () => call('cancelTasks', () => ({})),
      triggerCheckpoint: () => call('triggerCheckpoint', () => ({})),
      notifyCheckpointComplete: () => call('notifyCheckpointComplete', () => ({})),
      notifyCheckpointAborted: () => call('notifyCheckpointAborted', () => ({})),
    };
    const connection = {
      ...methods,
      close: async () => {
        this.closedConnections++;
        closed(new MillraceError('CLOSED', 'closed by its owner'));
      },
      onConnectionLost: (listener: (reason: string) => void) => {
        this.lostListeners.add(listener);
        return () => void this.lostListeners.delete(listener);
      },
    };
    return connection as unknown as TaskManagerConnection;
  }

  private allocate(request: { slotIndex: number; allocationId: AllocationId; jobId: JobId }): {
    dataAddress: DataAddress;
  } {
    const { slotIndex, allocationId, jobId } = request;
    const held = this.slots[slotIndex];
    if (held !== undefined && held.allocationId !== allocationId)
      throw new MillraceError('CONFLICT', `slot ${slotIndex} is held by ${held.allocationId}`);
    this.slots[slotIndex] = { allocationId, jobId };
    return { dataAddress: { host: 'data-host', port: 1_000 + slotIndex } };
  }

  private clear(match: (slot: { allocationId: AllocationId; jobId: JobId }) => boolean): Record<string, never> {
    for (const [index, slot] of this.slots.entries())
      if (slot !== undefined && match(slot)) this.slots[index] = undefined;
    return {};
  }
}

function refused(): Error {
  const cause = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  return new UnavailableError('No connection established', { cause });
}
