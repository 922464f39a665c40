import type {
  AttemptReport,
  CheckpointAck,
  CheckpointDecline,
  DataAddress,
  SlotDeployment,
} from '../contracts/task.ts';
import type { MessagePort } from 'node:worker_threads';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { AttemptId } from '../kernel/ids.ts';
import type { SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import type { SlotRuntimeOptions } from '../subtask/slot-runtime.ts';

/**
 * What a TaskManager's main thread and a slot's thread say to each other over their MessagePort.
 * Messages of one direction arrive in the order in which they were sent, and all that a thread sent
 * arrives before its exit is announced.
 */
export type ToSlot =
  | { readonly kind: 'start'; readonly options: SlotRuntimeOptions }
  | { readonly kind: 'submit'; readonly callId: number; readonly deployment: SlotDeployment }
  | { readonly kind: 'cancel'; readonly attemptIds: readonly AttemptId[] }
  | { readonly kind: 'trigger'; readonly request: Parameters<SlotRuntimePort['triggerCheckpoint']>[0] }
  | { readonly kind: 'complete'; readonly request: Parameters<SlotRuntimePort['notifyCheckpointComplete']>[0] }
  | { readonly kind: 'aborted'; readonly request: Parameters<SlotRuntimePort['notifyCheckpointAborted']>[0] }
  /** Another slot of this process wants to read from this one. */
  | { readonly kind: 'neighbour'; readonly port: MessagePort }
  | { readonly kind: 'handedOver'; readonly callId: number; readonly found: boolean }
  | { readonly kind: 'close' };

export type FromSlot =
  /** The thread has loaded its code and waits for work. */
  | { readonly kind: 'loaded' }
  | { readonly kind: 'started'; readonly dataAddress: DataAddress }
  | { readonly kind: 'startFailed'; readonly error: ErrorInfo }
  | { readonly kind: 'submitted'; readonly callId: number; readonly error: ErrorInfo | undefined }
  | { readonly kind: 'state'; readonly report: AttemptReport }
  | { readonly kind: 'ack'; readonly ack: CheckpointAck }
  | { readonly kind: 'decline'; readonly decline: CheckpointDecline }
  | { readonly kind: 'attempts'; readonly reports: readonly AttemptReport[] }
  /** The port is for the slot of this process that serves the address, if there is one. */
  | { readonly kind: 'handOver'; readonly callId: number; readonly address: DataAddress; readonly port: MessagePort }
  | { readonly kind: 'crashed'; readonly error: ErrorInfo }
  | { readonly kind: 'closed' };

/** What the thread is born with. */
export interface SlotThreadData {
  readonly millraceSlot: true;
  /** How often counters are pushed to the main thread. */
  readonly reportIntervalMs: number;
  readonly heapBytes: number;
  /** What `main` wants its entry file to know: plain data. */
  readonly data: unknown;
}
