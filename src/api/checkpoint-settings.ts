import type { CheckpointConfig } from '../contracts/job-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkDuration, show } from './arguments.ts';
import type { CheckpointingMode, JobSettings } from './job-settings.ts';

const MODES: readonly CheckpointingMode[] = ['EXACTLY_ONCE', 'AT_LEAST_ONCE'];
const RETENTIONS: readonly CheckpointConfig['externalizedRetention'][] = [
  'DELETE_ON_CANCELLATION',
  'RETAIN_ON_CANCELLATION',
  'NO_EXTERNALIZED_CHECKPOINTS',
];

/** What `env.getCheckpointConfig()` returns: the checkpoint settings of one environment. Times in milliseconds. */
export class CheckpointSettings {
  constructor(private readonly settings: JobSettings) {}

  setCheckpointInterval(intervalMs: number): this {
    return this.set({ intervalMs: checkDuration('the checkpoint interval', intervalMs, { zero: false }) });
  }

  setCheckpointingMode(mode: CheckpointingMode): this {
    return this.set({ mode: oneOf('checkpointing mode', mode, MODES) });
  }

  /** A checkpoint that is not complete by then is given up. */
  setCheckpointTimeout(timeoutMs: number): this {
    return this.set({ timeoutMs: checkDuration('the checkpoint timeout', timeoutMs, { zero: false }) });
  }

  /** Least time between the end of one checkpoint and the start of the next. */
  setMinPauseBetweenCheckpoints(minPauseMs: number): this {
    return this.set({ minPauseMs: checkDuration('the pause between checkpoints', minPauseMs, { zero: true }) });
  }

  setMaxConcurrentCheckpoints(maxConcurrent: number): this {
    return this.set({ maxConcurrent: count('concurrent checkpoints', maxConcurrent, 1) });
  }

  /** How many checkpoints in a row may fail before the job is restarted. */
  setTolerableCheckpointFailureNumber(tolerable: number): this {
    return this.set({ tolerableFailedCheckpoints: count('tolerable failed checkpoints', tolerable, 0) });
  }

  setNumRetainedCheckpoints(numRetained: number): this {
    return this.set({ numRetained: count('retained checkpoints', numRetained, 1) });
  }

  setExternalizedCheckpointRetention(retention: CheckpointConfig['externalizedRetention']): this {
    return this.set({ externalizedRetention: oneOf('checkpoint retention', retention, RETENTIONS) });
  }

  /**
   * Barriers overtake records that wait in queues, which are then part of the checkpoint: it completes however slow
   * a sink is. For EXACTLY_ONCE; edges that bind reader to writer (forward, rescale) or are broadcast stay aligned.
   */
  enableUnalignedCheckpoints(enabled = true): this {
    return this.set({ unaligned: enabled });
  }

  /** With unaligned checkpoints: barriers wait their turn for this long before they overtake. 0 (default): not at all. */
  setAlignedCheckpointTimeout(alignedTimeoutMs: number): this {
    return this.set({
      alignedTimeoutMs: checkDuration('the aligned checkpoint timeout', alignedTimeoutMs, { zero: true }),
    });
  }

  private set(changes: Partial<CheckpointConfig>): this {
    this.settings.setCheckpointing(changes);
    return this;
  }
}

function oneOf<T extends string>(what: string, value: T, accepted: readonly T[]): T {
  if (accepted.includes(value)) return value;
  throw new InvalidArgumentError(`the ${what} must be one of ${accepted.join(', ')}, not ${show(value)}`);
}

function count(what: string, value: number, least: number): number {
  if (Number.isInteger(value) && value >= least) return value;
  throw new InvalidArgumentError(
    `the number of ${what} must be a whole number of ${least} or more, not ${show(value)}`,
  );
}
