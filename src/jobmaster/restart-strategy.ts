import type { RestartStrategyConfig } from '../contracts/job-graph.ts';
import { unreachable } from '../kernel/assert.ts';
import type { Random } from '../kernel/random.ts';

/**
 * Whether and when a failed job is started again, as pure functions of its past failures.
 *
 * The rules and defaults are Flink's (`RestartBackoffTimeStrategy`). A new leader begins without a
 * past: failures of an earlier term are not held against the job.
 */
export interface RestartHistory {
  /** Failures so far; for the exponential strategy those since its back-off was last reset. */
  readonly failures: number;
  /** Monotonic times of the newest failures, oldest first; only as many as the strategy looks at. */
  readonly recentMs: readonly number[];
  /** The wait that the newest failure was given, without jitter. */
  readonly backoffMs: number;
}

export const NO_FAILURES: RestartHistory = { failures: 0, recentMs: [], backoffMs: 0 };

export type RestartDecision =
  | {
      readonly kind: 'restart';
      readonly delayMs: number;
      /** The wait should the loss of a worker turn out to be behind the failure. */
      readonly afterLossMs: number;
    }
  | { readonly kind: 'give-up'; readonly reason: string };

/**
 * After a failure that is not the job's own, a lost worker, nothing is gained by waiting. The second within this
 * time waits all the same: a job may be what kills its workers.
 */
const LOST_WORKER_QUIET_MS = 10_000;

export function decideRestart(
  config: RestartStrategyConfig,
  history: RestartHistory,
  nowMs: number,
  random: Random,
): { readonly history: RestartHistory; readonly decision: RestartDecision } {
  const decided = byStrategy(config, history, nowMs, random);
  const { decision } = decided;
  if (decision.kind === 'give-up') return { history: decided.history, decision };
  const lastMs = history.recentMs.at(-1) ?? Number.NEGATIVE_INFINITY;
  const afterLossMs = nowMs - lastMs < LOST_WORKER_QUIET_MS ? decision.delayMs : 0;
  return { history: decided.history, decision: { ...decision, afterLossMs } };
}

type Decided = { readonly kind: 'restart'; readonly delayMs: number } | Exclude<RestartDecision, { kind: 'restart' }>;

function byStrategy(
  config: RestartStrategyConfig,
  history: RestartHistory,
  nowMs: number,
  random: Random,
): { readonly history: RestartHistory; readonly decision: Decided } {
  const failures = history.failures + 1;
  const counted: RestartHistory = { ...history, failures, recentMs: [nowMs] };
  switch (config.type) {
    case 'none':
      return { history: counted, decision: { kind: 'give-up', reason: 'restart strategy `none`' } };
    case 'fixed-delay': {
      if (failures <= config.attempts) {
        return { history: counted, decision: { kind: 'restart', delayMs: config.delayMs } };
      }
      const reason = `all ${config.attempts} restarts of the fixed-delay strategy are used up`;
      return { history: counted, decision: { kind: 'give-up', reason } };
    }
    case 'failure-rate': {
      const recentMs = [...history.recentMs, nowMs].slice(-(config.maxFailuresPerInterval + 1));
      const oldest = recentMs[0] ?? nowMs;
      const next = { ...counted, recentMs };
      const tooMany = recentMs.length > config.maxFailuresPerInterval;
      if (!tooMany || nowMs - oldest > config.failureRateIntervalMs) {
        return { history: next, decision: { kind: 'restart', delayMs: config.delayMs } };
      }
      const reason = `${recentMs.length} failures within ${nowMs - oldest} ms, the failure-rate strategy bears ${config.maxFailuresPerInterval} in ${config.failureRateIntervalMs} ms`;
      return { history: next, decision: { kind: 'give-up', reason } };
    }
    case 'exponential-delay':
      return decideExponential(config, history, nowMs, random);
    default:
      return unreachable(config);
  }
}

function decideExponential(
  config: RestartStrategyConfig & { readonly type: 'exponential-delay' },
  history: RestartHistory,
  nowMs: number,
  random: Random,
): { readonly history: RestartHistory; readonly decision: Decided } {
  // The quiet time counts from when the job was due to run again, not from the failure.
  const quietSinceMs = (history.recentMs[0] ?? nowMs) + history.backoffMs;
  const quiet = nowMs - quietSinceMs >= config.resetBackoffThresholdMs;
  const first = history.failures === 0 || quiet;
  const failures = first ? 1 : history.failures + 1;
  const backoffMs = first
    ? config.initialBackoffMs
    : Math.min(config.maxBackoffMs, history.backoffMs * config.backoffMultiplier);
  const next: RestartHistory = { failures, recentMs: [nowMs], backoffMs };
  const limit = config.attemptsBeforeResetBackoff;
  if (limit !== undefined && failures > limit) {
    const reason = `all ${limit} restarts of the exponential-delay strategy are used up`;
    return { history: next, decision: { kind: 'give-up', reason } };
  }
  const jitter = backoffMs * config.jitterFactor * (2 * random.next() - 1);
  const delayMs = Math.min(config.maxBackoffMs, backoffMs + jitter);
  return { history: next, decision: { kind: 'restart', delayMs } };
}
