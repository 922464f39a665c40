import type { JobConfig, RestartStrategyConfig } from '../contracts/job-graph.ts';
import type { StreamGraph } from '../graph/stream-graph.ts';
import type { JobClient } from './job-client.ts';
import type { OperatorDefinition } from './operator-definition.ts';

/** What a new environment starts from, before the author's own settings. */
export interface EnvironmentDefaults {
  readonly parallelism: number;
  readonly config: JobConfig;
  /**
   * The strategy of jobs that switch checkpoints on and name none. Without it: Flink's exponential
   * delay, when `config` says neither an interval nor a strategy other than `none`.
   */
  readonly restartStrategyWithCheckpoints?: RestartStrategyConfig;
}

/** The part of an environment that a planner needs after `main` has returned without calling `execute`. */
export interface PlannableEnvironment {
  readonly hasSinks: boolean;
  getStreamGraph(jobName?: string): StreamGraph<OperatorDefinition>;
}

/** Set while a program is run only to learn its graph. */
export interface PlanContext {
  readonly kind: 'plan';
  readonly defaults: EnvironmentDefaults;
  created(environment: PlannableEnvironment): void;
  /** `execute` was called: the graph is taken and the call never returns, so nothing runs twice. */
  captured(graph: StreamGraph<OperatorDefinition>): void;
}

/** Runs a program of this very process: its functions stay closures. */
export interface LocalExecutor {
  readonly defaults: EnvironmentDefaults;
  submit(graph: StreamGraph<OperatorDefinition>): Promise<JobClient>;
}

/**
 * On `globalThis`, not in the module: a thread has one context even if two copies of this module get
 * loaded, as when a bundle was packed with its own.
 */
const CONTEXT = Symbol.for('millrace.execution-context');
const LOCAL = Symbol.for('millrace.local-executor');
const globals = globalThis as { [CONTEXT]?: PlanContext; [LOCAL]?: LocalExecutor };

export function currentPlanContext(): PlanContext | undefined {
  return globals[CONTEXT];
}

/** Makes `context` this thread's; returns the function that takes it away again. */
export function enterPlanContext(context: PlanContext): () => void {
  globals[CONTEXT] = context;
  return () => {
    if (globals[CONTEXT] === context) delete globals[CONTEXT];
  };
}

/** Installed by the library's entry: what `execute` does in a plain script. */
export function installLocalExecutor(executor: LocalExecutor): void {
  globals[LOCAL] = executor;
}

export function currentLocalExecutor(): LocalExecutor | undefined {
  return globals[LOCAL];
}
