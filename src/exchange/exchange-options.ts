/** Sizes and patience of the data plane. Times in milliseconds. */
export interface ExchangeOptions {
  /** A batch is sent when it has this many bytes … */
  readonly batchBytes: number;
  /** … or this many records. */
  readonly batchRecords: number;
  /** Finished messages that one subpartition holds before its task is told to wait. */
  readonly queuedMessages: number;
  /** Messages that a producer may send before the consumer has processed the first. */
  readonly credits: number;
  /** Longest payload of a frame; a single larger record fails its task. */
  readonly frameBytesMax: number;
  readonly connectTimeoutMs: number;
  /** How long an accepted connection may take to say what it wants. */
  readonly handshakeTimeoutMs: number;
  /** How long a consumer waits for a producer whose task is not there yet. */
  readonly producerWaitMs: number;
  /** A connection without a channel is closed after this long. */
  readonly idleConnectionMs: number;
  readonly connectionsMax: number;
}

export const DEFAULT_EXCHANGE_OPTIONS: ExchangeOptions = {
  batchBytes: 32 * 1024,
  batchRecords: 1_024,
  queuedMessages: 4,
  credits: 4,
  frameBytesMax: 32 * 1024 * 1024,
  connectTimeoutMs: 5_000,
  handshakeTimeoutMs: 5_000,
  producerWaitMs: 30_000,
  idleConnectionMs: 10_000,
  connectionsMax: 4_096,
};
