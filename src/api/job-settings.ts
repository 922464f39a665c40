import {
  type CheckpointConfig,
  type JobConfig,
  type RestartStrategyConfig,
  restartStrategySchema,
  type StateConfig,
  stateConfigSchema,
} from '../contracts/job-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkDuration, show } from './arguments.ts';
import type { EnvironmentDefaults } from './execution-context.ts';

export type CheckpointingMode = CheckpointConfig['mode'];

/** The defaults where no cluster configuration says otherwise: Flink's, but for the buffer timeout. */
export const DEFAULT_JOB_CONFIG: JobConfig = {
  checkpointing: {
    mode: 'EXACTLY_ONCE',
    timeoutMs: 600_000,
    minPauseMs: 0,
    maxConcurrent: 1,
    tolerableFailedCheckpoints: 0,
    numRetained: 1,
    externalizedRetention: 'NO_EXTERNALIZED_CHECKPOINTS',
    unaligned: false,
    alignedTimeoutMs: 0,
  },
  restartStrategy: { type: 'none' },
  bufferTimeoutMs: 20,
  recoveryFallback: 'none',
  userConfig: {},
};

/** Where no cluster configuration says otherwise. */
const DEFAULT_STATE_CONFIG: StateConfig = {
  backend: 'hashmap',
  incremental: false,
  compression: 'none',
  localRecovery: false,
};

const EXPONENTIAL_DELAY: RestartStrategyConfig = {
  type: 'exponential-delay',
  initialBackoffMs: 1_000,
  maxBackoffMs: 60_000,
  backoffMultiplier: 1.5,
  resetBackoffThresholdMs: 3_600_000,
  jitterFactor: 0.1,
};

/** Restart strategies by name, for `env.setRestartStrategy`. */
export const RestartStrategies = {
  noRestart: (): RestartStrategyConfig => ({ type: 'none' }),
  fixedDelayRestart: (attempts: number, delayMs: number): RestartStrategyConfig => ({
    type: 'fixed-delay',
    attempts,
    delayMs,
  }),
  exponentialDelayRestart: (
    settings: Partial<Omit<Extract<RestartStrategyConfig, { type: 'exponential-delay' }>, 'type'>> = {},
  ): RestartStrategyConfig => ({ ...EXPONENTIAL_DELAY, ...settings, type: 'exponential-delay' }),
  failureRateRestart: (
    maxFailuresPerInterval: number,
    failureRateIntervalMs: number,
    delayMs: number,
  ): RestartStrategyConfig => ({ type: 'failure-rate', maxFailuresPerInterval, failureRateIntervalMs, delayMs }),
};

/** One environment's settings of the job: the defaults with the author's changes on top. */
export class JobSettings {
  private readonly checkpointing: { -readonly [K in keyof CheckpointConfig]: CheckpointConfig[K] };
  private restartStrategy: RestartStrategyConfig | undefined;
  private bufferTimeoutMs: number;
  private autoWatermarkIntervalMs: number | undefined;
  private state: StateConfig | undefined;
  private latencyIntervalMs: number | undefined;
  private userConfig: Readonly<Record<string, string>>;

  constructor(private readonly defaults: EnvironmentDefaults) {
    this.checkpointing = { ...defaults.config.checkpointing };
    this.bufferTimeoutMs = defaults.config.bufferTimeoutMs;
    this.autoWatermarkIntervalMs = defaults.config.autoWatermarkIntervalMs;
    this.state = defaults.config.state;
    this.latencyIntervalMs = defaults.config.latencyIntervalMs;
    this.userConfig = { ...defaults.config.userConfig };
  }

  setCheckpointing(changes: Partial<CheckpointConfig>): void {
    Object.assign(this.checkpointing, changes);
  }

  setRestartStrategy(strategy: RestartStrategyConfig): void {
    const parsed = restartStrategySchema.safeParse(strategy);
    if (!parsed.success) {
      const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'type'}: ${issue.message}`);
      throw new InvalidArgumentError(`not a restart strategy: ${problems.join('; ')}`, {
        hint: 'Use one of RestartStrategies, e.g. RestartStrategies.fixedDelayRestart(3, 1_000).',
      });
    }
    this.restartStrategy = parsed.data;
  }

  setState(changes: Partial<StateConfig>): void {
    const parsed = stateConfigSchema.safeParse({
      ...(this.state ?? DEFAULT_STATE_CONFIG),
      ...withoutUndefined(changes),
    });
    if (!parsed.success) {
      const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
      throw new InvalidArgumentError(`no state backend is like that: ${problems.join('; ')}`, {
        hint: "For example env.setStateBackend('lmdb', { incremental: true }).",
      });
    }
    this.state = parsed.data;
  }

  setBufferTimeout(timeoutMs: number): void {
    this.bufferTimeoutMs = timeoutMs === -1 ? -1 : checkDuration('the buffer timeout', timeoutMs, { zero: true });
  }

  setAutoWatermarkInterval(intervalMs: number): void {
    this.autoWatermarkIntervalMs = checkDuration('the watermark interval', intervalMs, { zero: true });
  }

  setLatencyInterval(intervalMs: number): void {
    this.latencyIntervalMs = checkDuration('the latency tracking interval', intervalMs, { zero: true });
  }

  setUserConfig(parameters: Readonly<Record<string, string>>): void {
    for (const [key, value] of Object.entries(parameters)) {
      if (typeof value !== 'string') {
        throw new InvalidArgumentError(`global job parameter "${key}" must be a text, not ${show(value)}`);
      }
    }
    this.userConfig = { ...parameters };
  }

  get current(): JobConfig {
    return {
      ...this.defaults.config,
      checkpointing: { ...this.checkpointing },
      restartStrategy: this.restartStrategy ?? this.defaultRestartStrategy(),
      bufferTimeoutMs: this.bufferTimeoutMs,
      ...(this.autoWatermarkIntervalMs === undefined ? {} : { autoWatermarkIntervalMs: this.autoWatermarkIntervalMs }),
      ...(this.state === undefined ? {} : { state: this.state }),
      ...(this.latencyIntervalMs === undefined ? {} : { latencyIntervalMs: this.latencyIntervalMs }),
      userConfig: this.userConfig,
    };
  }

  /** As Flink: a job with checkpoints is worth restarting; without, a restart would lose state silently. */
  private defaultRestartStrategy(): RestartStrategyConfig {
    const { config, restartStrategyWithCheckpoints } = this.defaults;
    if (this.checkpointing.intervalMs === undefined) return config.restartStrategy;
    if (restartStrategyWithCheckpoints !== undefined) return restartStrategyWithCheckpoints;
    const unset = config.checkpointing.intervalMs === undefined && config.restartStrategy.type === 'none';
    return unset ? EXPONENTIAL_DELAY : config.restartStrategy;
  }
}

function withoutUndefined<T extends object>(given: T): Partial<T> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Partial<T>;
}
