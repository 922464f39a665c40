import type { JobId } from '../kernel/ids.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../subtask/slot-runtime-port.ts';

export interface OpenSlotRequest {
  readonly slotIndex: number;
  /** For logs and messages, e.g. `taskmanager-1/slot-0`. */
  readonly name: string;
  readonly jobId: JobId;
  /** 0: any free port. A number: exactly this one, because peers know it or the configuration says so. */
  readonly listenPort: number;
  readonly events: SlotRuntimeEvents;
}

/**
 * Makes slot engines. Each is fresh: no user code has run in it before, and `close` of the engine leaves
 * none of it behind. Engines never answer slowly: `attempts()` comes from what the engine last said.
 */
export interface SlotHost extends Closeable {
  /** Resolves once the engine listens for data. Rejects when it cannot start or the host is closed. */
  open(request: OpenSlotRequest): Promise<SlotRuntimePort>;
  /** Closes what is left open, too. */
  close(): Promise<void>;
}
