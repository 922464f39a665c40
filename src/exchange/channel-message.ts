import type { CheckpointOptions } from '../contracts/checkpoint.ts';

/** Cuts the stream: what came before belongs to the checkpoint, what follows does not. */
export interface CheckpointBarrier {
  readonly checkpointId: number;
  readonly timestampMs: number;
  readonly options: CheckpointOptions;
}

/** What a channel carries, in order. Each takes one credit. */
export type ChannelMessage =
  | { readonly kind: 'records'; readonly codec: number; readonly payload: Uint8Array; readonly records: number }
  | { readonly kind: 'barrier'; readonly barrier: CheckpointBarrier }
  | { readonly kind: 'watermark'; readonly timestampMs: number }
  /** No record follows; barriers may. */
  | { readonly kind: 'end-of-data' }
  /** The producer has finished: nothing follows. */
  | { readonly kind: 'end-of-stream' };
