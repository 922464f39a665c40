import type { EnvironmentDefaults } from '../../api/execution-context.ts';
import type { JobConfig, RestartStrategyConfig, StateConfig } from '../../contracts/job-graph.ts';
import type { Configuration } from './options.ts';

/** What a program's environment starts from: the cluster's configuration, before the author's own settings. */
export function jobDefaults(c: Configuration): JobConfig {
  return {
    checkpointing: {
      ...(c.checkpointIntervalMs === undefined ? {} : { intervalMs: c.checkpointIntervalMs }),
      mode: c.checkpointMode,
      timeoutMs: c.checkpointTimeoutMs,
      minPauseMs: c.checkpointMinPauseMs,
      maxConcurrent: c.checkpointMaxConcurrent,
      tolerableFailedCheckpoints: c.tolerableFailedCheckpoints,
      numRetained: c.checkpointsRetained,
      externalizedRetention: c.checkpointRetention,
      unaligned: c.unalignedCheckpoints,
      alignedTimeoutMs: c.alignedCheckpointTimeoutMs,
    },
    restartStrategy: restartStrategy(c, c.checkpointIntervalMs !== undefined),
    bufferTimeoutMs: c.bufferTimeoutMs,
    ...(c.latencyIntervalMs === 0 ? {} : { latencyIntervalMs: c.latencyIntervalMs }),
    autoWatermarkIntervalMs: c.autoWatermarkIntervalMs,
    state: stateConfig(c),
    recoveryFallback: c.recoveryFallback,
    userConfig: {},
  };
}

export function stateConfig(c: Configuration): StateConfig {
  return {
    backend: c.stateBackend,
    incremental: c.incrementalCheckpoints,
    compression: c.snapshotCompression,
    localRecovery: c.localRecovery,
  };
}

/** As Flink: with checkpoints a failure is worth a restart, without them it would lose state silently. */
export function restartStrategy(c: Configuration, checkpoints: boolean): RestartStrategyConfig {
  const type = c.restartStrategy ?? (checkpoints ? 'exponential-delay' : 'none');
  switch (type) {
    case 'none':
      return { type };
    case 'fixed-delay':
      return { type, attempts: c.fixedDelayAttempts, delayMs: c.fixedDelayMs };
    case 'exponential-delay':
      return {
        type,
        initialBackoffMs: c.exponentialInitialMs,
        maxBackoffMs: c.exponentialMaxMs,
        backoffMultiplier: c.exponentialMultiplier,
        resetBackoffThresholdMs: c.exponentialResetMs,
        jitterFactor: c.exponentialJitter,
        ...(c.exponentialAttempts === undefined ? {} : { attemptsBeforeResetBackoff: c.exponentialAttempts }),
      };
    case 'failure-rate':
      return {
        type,
        maxFailuresPerInterval: c.failureRateMax,
        failureRateIntervalMs: c.failureRateIntervalMs,
        delayMs: c.failureRateDelayMs,
      };
  }
}

/** The same, as the api room takes it: with the strategy of jobs that switch checkpoints on themselves. */
export function environmentDefaults(c: Configuration): EnvironmentDefaults {
  return {
    parallelism: c.defaultParallelism,
    config: jobDefaults(c),
    restartStrategyWithCheckpoints: restartStrategy(c, true),
  };
}
