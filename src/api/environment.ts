import type { JobConfig, RestartStrategyConfig, StateBackendType, StateConfig } from '../contracts/job-graph.ts';
import type { StreamGraph } from '../graph/stream-graph.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { checkMethods, checkParallelism, checkText, checkWithinMaxParallelism, show } from './arguments.ts';
import { builtinConnectors } from './builtin-connectors.ts';
import { CheckpointSettings } from './checkpoint-settings.ts';
import { SingleOutputStreamOperator, type StreamHost } from './data-stream.ts';
import {
  currentLocalExecutor,
  currentPlanContext,
  type EnvironmentDefaults,
  type LocalExecutor,
  type PlanContext,
} from './execution-context.ts';
import type { JobClient, JobExecutionResult } from './job-client.ts';
import { type CheckpointingMode, DEFAULT_JOB_CONFIG, JobSettings } from './job-settings.ts';
import type { OperatorDefinition } from './operator-definition.ts';
import type { Source } from './source.ts';
import { generateStreamGraph } from './stream-graph-generator.ts';
import { StreamOperator } from './stream-operator.ts';
import { checkStrategy, type WatermarkStrategy } from './watermark-strategy.ts';

const DEFAULT_JOB_NAME = 'Millrace Streaming Job';

/** How the state is written; see {@link StreamExecutionEnvironment.setStateBackend}. */
export type StateBackendOptions = Partial<Omit<StateConfig, 'backend'>>;

/** What `env.getConfig()` shows. */
export interface ExecutionConfig extends JobConfig {
  readonly parallelism: number;
  /** Undefined: computed from each operator's parallelism. */
  readonly maxParallelism: number | undefined;
}

/**
 * Where a program begins: makes streams, holds the job's settings, runs the job.
 *
 * In a plain script `execute` runs the job in this process and resolves when it has ended; the default
 * parallelism is then the number of processor cores. When the program has been submitted to a cluster,
 * `execute` hands over the graph and does not return: what comes after it never runs there.
 */
export class StreamExecutionEnvironment {
  private readonly registry: Registry;
  private readonly settings: JobSettings;

  /** The environment for wherever this program runs: a cluster that plans it, or this process. */
  static getExecutionEnvironment(): StreamExecutionEnvironment {
    const plan = currentPlanContext();
    if (plan !== undefined) return new StreamExecutionEnvironment(plan.defaults, { plan });
    const local = currentLocalExecutor();
    const defaults = local?.defaults ?? { parallelism: 1, config: DEFAULT_JOB_CONFIG };
    return new StreamExecutionEnvironment(defaults, { local });
  }

  private constructor(
    defaults: EnvironmentDefaults,
    private readonly target: { readonly plan?: PlanContext; readonly local?: LocalExecutor | undefined },
  ) {
    this.registry = new Registry(defaults.parallelism);
    this.settings = new JobSettings(defaults);
    target.plan?.created(this);
  }

  /** A stream of the given values, in their order, at parallelism 1. No values give an empty stream. */
  fromElements<T>(...elements: readonly T[]): SingleOutputStreamOperator<T> {
    return this.fromCollection(elements);
  }

  /** A stream of what `items` yields now, at parallelism 1. It must end. */
  fromCollection<T>(items: Iterable<T>): SingleOutputStreamOperator<T> {
    if (typeof items?.[Symbol.iterator] !== 'function') {
      throw new InvalidArgumentError(`fromCollection() needs an iterable, not ${show(items)}`);
    }
    return this.fromSource(builtinConnectors().collection([...items])).setParallelism(1);
  }

  /** The lines of a text file, or of the text files of a folder. */
  readTextFile(pathOrUrl: string): SingleOutputStreamOperator<string> {
    checkText('the path of a text file', pathOrUrl, 4_096);
    return this.fromSource(builtinConnectors().textFile(pathOrUrl));
  }

  /**
   * A stream from any source; `name` is what people see, by default the source's own. With a strategy
   * its records have event time from the start.
   */
  fromSource<T, Split>(source: Source<T, Split>, name?: string): SingleOutputStreamOperator<T>;
  fromSource<T, Split>(
    source: Source<T, Split>,
    strategy: WatermarkStrategy<T>,
    name?: string,
  ): SingleOutputStreamOperator<T>;
  fromSource<T, Split>(
    source: Source<T, Split>,
    strategyOrName?: WatermarkStrategy<T> | string,
    nameAfterStrategy?: string,
  ): SingleOutputStreamOperator<T> {
    checkMethods('the source', source, ['enumerateSplits', 'createReader']);
    const named = typeof strategyOrName === 'string' || strategyOrName === undefined;
    const name = named ? (strategyOrName ?? nameAfterStrategy) : nameAfterStrategy;
    const watermarks = named ? undefined : checkStrategy('fromSource()', strategyOrName as WatermarkStrategy<unknown>);
    const operator = new StreamOperator(
      this.registry,
      {
        kind: 'source',
        source: source as Source<unknown, unknown>,
        ...(watermarks === undefined ? {} : { watermarks }),
      },
      [],
      { name: checkText('a source name', name ?? source.name, 400), parallelism: this.registry.parallelism },
    );
    return new SingleOutputStreamOperator<T>(this.registry, operator);
  }

  /** Parallelism of operators made from now on that set none. */
  setParallelism(parallelism: number): this {
    checkParallelism('parallelism', parallelism);
    checkWithinMaxParallelism(parallelism, this.registry.maxParallelism);
    this.registry.parallelism = parallelism;
    return this;
  }

  getParallelism(): number {
    return this.registry.parallelism;
  }

  /** How far operators that set none can ever be scaled: their number of key groups. */
  setMaxParallelism(maxParallelism: number): this {
    checkParallelism('maximum parallelism', maxParallelism);
    checkWithinMaxParallelism(this.registry.parallelism, maxParallelism);
    this.registry.maxParallelism = maxParallelism;
    return this;
  }

  /** Takes a checkpoint every `intervalMs`, from which the job is restored after a failure. */
  enableCheckpointing(intervalMs: number, mode?: CheckpointingMode): this {
    const checkpoints = this.getCheckpointConfig().setCheckpointInterval(intervalMs);
    if (mode !== undefined) checkpoints.setCheckpointingMode(mode);
    return this;
  }

  getCheckpointConfig(): CheckpointSettings {
    return new CheckpointSettings(this.settings);
  }

  /**
   * Where the job's keyed state is kept: `hashmap` in memory, or `lmdb` on the worker's disk, for more than fits
   * into memory. What is left out stays as the cluster is configured. All of it may change when the job is
   * restored: either backend reads what the other wrote, and a snapshot says how it is compressed.
   */
  setStateBackend(type: StateBackendType, options: StateBackendOptions = {}): this {
    this.settings.setState({ ...options, backend: type });
    return this;
  }

  /** What happens after a failure; by default exponential delay with checkpoints, none without. */
  setRestartStrategy(strategy: RestartStrategyConfig): this {
    this.settings.setRestartStrategy(strategy);
    return this;
  }

  /** How often each source sends a latency marker through the job; 0 never. */
  setLatencyTrackingInterval(intervalMs: number): this {
    this.settings.setLatencyInterval(intervalMs);
    return this;
  }

  /** Longest time in milliseconds that a record waits in an output buffer; 0 sends each by itself, -1 only full buffers. */
  setBufferTimeout(timeoutMs: number): this {
    this.settings.setBufferTimeout(timeoutMs);
    return this;
  }

  /** How often sources and other operators that read event time say how far it is; 0 never before the end. */
  setAutoWatermarkInterval(intervalMs: number): this {
    this.settings.setAutoWatermarkInterval(intervalMs);
    return this;
  }

  /** Shown with the job, for people. */
  setGlobalJobParameters(parameters: Readonly<Record<string, string>>): this {
    this.settings.setUserConfig(parameters);
    return this;
  }

  /** Each operator gets a task of its own. */
  disableOperatorChaining(): this {
    this.registry.chaining = false;
    return this;
  }

  getConfig(): ExecutionConfig {
    return {
      ...this.settings.current,
      parallelism: this.registry.parallelism,
      maxParallelism: this.registry.maxParallelism,
    };
  }

  get hasSinks(): boolean {
    return this.registry.operators.some((operator) => operator.definition.kind === 'sink');
  }

  /** The graph that `execute` would run. */
  getStreamGraph(jobName: string = DEFAULT_JOB_NAME): StreamGraph<OperatorDefinition> {
    checkText('a job name', jobName, 500);
    if (!this.hasSinks) {
      throw new InvalidArgumentError('the program has no sink, so there is nothing to run', {
        hint: 'End at least one stream with print() or sinkTo().',
      });
    }
    const { operators, maxParallelism, chaining } = this.registry;
    const graph = generateStreamGraph({ name: jobName, operators, maxParallelism, config: this.settings.current });
    if (chaining) return graph;
    return { ...graph, nodes: graph.nodes.map((node) => ({ ...node, chaining: 'never' as const })) };
  }

  /** Runs what has been built since the last call and waits until it has ended. */
  async execute(jobName?: string): Promise<JobExecutionResult> {
    const client = await this.executeAsync(jobName);
    return client.getJobExecutionResult();
  }

  /** Like `execute`, but resolves once the job is running. */
  async executeAsync(jobName?: string): Promise<JobClient> {
    const graph = this.getStreamGraph(jobName);
    const { plan, local } = this.target;
    if (plan !== undefined) {
      plan.captured(graph);
      // Never settles: the program has said all it has to say, and its rest must not run on every worker.
      return new Promise(() => {});
    }
    // Installed by the library's entry, perhaps after this environment was made.
    const executor = local ?? currentLocalExecutor();
    if (executor === undefined) {
      throw new MillraceError('INTERNAL', 'there is nothing here that can run a job', {
        hint: "Import from 'millrace', not from a file inside the package.",
      });
    }
    this.registry.startNextJob();
    return executor.submit(graph);
  }
}

class Registry implements StreamHost {
  maxParallelism: number | undefined;
  chaining = true;
  operators: StreamOperator[] = [];
  private sequence = 0;
  private uids = new Map<string, StreamOperator>();

  constructor(public parallelism: number) {}

  addOperator(operator: StreamOperator): void {
    this.operators.push(operator);
  }

  /** A later job holds only what is built from now on, and what that reads. */
  startNextJob(): void {
    this.operators = [];
    this.uids = new Map();
  }

  nextSequence(): number {
    return ++this.sequence;
  }

  uidOwner(uid: string): StreamOperator | undefined {
    return this.uids.get(uid);
  }

  takeUid(uid: string, owner: StreamOperator): void {
    this.uids.set(uid, owner);
  }

  releaseUid(uid: string): void {
    this.uids.delete(uid);
  }
}
