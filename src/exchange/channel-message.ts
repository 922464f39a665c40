import type { CheckpointOptions } from '../contracts/checkpoint.ts';
import type { OperatorId } from '../kernel/ids.ts';

/** Cuts the stream: what came before belongs to the checkpoint, what follows does not. */
export interface CheckpointBarrier {
  readonly checkpointId: number;
  readonly timestampMs: number;
  readonly options: CheckpointOptions;
}

export interface RecordsMessage {
  readonly kind: 'records';
  readonly codec: number;
  /**
   * Taken away when the message is sent to another thread, unless it is `shared`: whoever wants it for
   * longer than the message waits in its queue copies it before.
   */
  readonly payload: Uint8Array;
  /** Other subpartitions hold the same payload. */
  readonly shared?: true;
  readonly records: number;
  /** Instead of the payload, which is empty then; only where producer and consumer share a thread. */
  readonly copies?: readonly unknown[];
  /** About what the copies would take as a payload. */
  readonly copiedBytes?: number;
}

/** Sent by a source now and then: what it takes to arrive is what a record would take. */
export interface LatencyMarker {
  /** By the wall clock of the source's host. */
  readonly markedWallMs: number;
  readonly sourceId: OperatorId;
  readonly sourceSubtask: number;
}

/** `overtook`: it went past what was queued before it, and needs no credit. */
export interface BarrierMessage {
  readonly kind: 'barrier';
  readonly barrier: CheckpointBarrier;
  readonly overtook?: true;
}

/** What a channel carries, in order. Each takes one credit. */
export type ChannelMessage =
  | RecordsMessage
  | BarrierMessage
  /** NaN: the channel is idle, and nobody is to wait for it until its next watermark. */
  | { readonly kind: 'watermark'; readonly timestampMs: number }
  | { readonly kind: 'latency-marker'; readonly marker: LatencyMarker }
  /** No record follows; barriers may. `drained`: the job is being stopped, and a barrier will. */
  | { readonly kind: 'end-of-data'; readonly drained?: true }
  /** The producer has finished: nothing follows. */
  | { readonly kind: 'end-of-stream' };
