import type { BarrierMessage, ChannelMessage, CheckpointBarrier, RecordsMessage } from './channel-message.ts';
import type { DirectLine } from './direct-line.ts';

/** A consumer's side of one channel. */
export interface InputChannel {
  /** Names the producer in errors. */
  readonly description: string;
  /** The next message. The caller says `processed` when it is done with it, which is when room is made for another. */
  poll(): ChannelMessage | undefined;
  processed(): void;
  /** Messages held on this side, bounded by the credits. */
  readonly queued: number;
  /** The short way, where the producer runs in this thread. */
  readonly line?: DirectLine | undefined;
  /** Takes a barrier out of what is held on this side, with the records before it, which stay. */
  take(
    matches: (message: BarrierMessage) => boolean,
  ): { readonly message: BarrierMessage; readonly before: readonly RecordsMessage[] } | undefined;
  /** Reads no more; the producer is told. Idempotent. */
  close(): void;
}

/** The input gate, as its channels see it. */
export interface InputChannelListener {
  /** There is something to poll. */
  onData(): void;
  /** A barrier has arrived, perhaps behind records that still wait to be polled. */
  onBarrier?(barrier: CheckpointBarrier, overtook: boolean): void;
  /** Nothing more will come, and the end was not seen. */
  onFailed(error: Error): void;
}

/** What a consumer asks of an exchange. */
export interface InputRequest {
  readonly jobId: string;
  readonly deployment: string;
  readonly edgeId: string;
  readonly producerAttempt: string;
  readonly producerSubtask: number;
  readonly subpartition: number;
  /** The consuming task, for the producer's log. */
  readonly consumer: string;
}
