import type { StreamExecutionEnvironment } from '../api/environment.ts';
import { type EnvironmentDefaults, enterPlanContext, type PlannableEnvironment } from '../api/execution-context.ts';
import type { OperatorDefinition } from '../api/operator-definition.ts';
import type { StreamGraph } from '../graph/stream-graph.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { programError } from './program-error.ts';

type Graph = StreamGraph<OperatorDefinition>;
type Module = Readonly<Record<string, unknown>>;
type Main = (env: StreamExecutionEnvironment, args: readonly string[]) => unknown;

export interface EntryRequest {
  /** What to call the bundle in messages. */
  readonly bundleName: string;
  readonly moduleUrl: string;
  /** The package as the bundle sees it: its environment is handed to `main`, whether or not the bundle imports it. */
  readonly libraryUrl: string;
  readonly entryClass: string | undefined;
  readonly args: readonly string[];
  readonly defaults: EnvironmentDefaults;
  readonly clock: Clock;
  /** Gives up on a program that waits. One that spins can only be stopped from outside its thread. */
  readonly timeoutMs?: number;
}

export interface EntryResult {
  readonly graph: Graph;
  /** True when loading the module ran the job: it can be run again only by loading it again. */
  readonly ranWhileLoading: boolean;
}

/** How long a module without entries may take to come to its `execute` after it has been loaded. */
const LATE_EXECUTE_MS = 1_000;
/** How long the exports of a module that has called `execute` are waited for: it may be waiting for that call. */
const EXPORTS_AFTER_EXECUTE_MS = 20;

/**
 * Runs a program up to its `execute` and returns the graph it built.
 *
 * The entry is the export named `entryClass`, else `main`, else the default export, else the module
 * itself. It is called with an environment and the arguments. It may call `execute` itself, which then
 * never returns, or just build and return. One run at a time in a thread: others wait
 * for their turn.
 */
export async function runEntry(request: EntryRequest): Promise<EntryResult> {
  return exclusively(async () => {
    const run = new Run(request);
    try {
      return await withTimeout(request, run.result());
    } finally {
      run.end();
    }
  });
}

/** The thread's one turn at having an execution context: programs run at once would build each other's jobs. */
let lastTurn: Promise<unknown> = Promise.resolve();

function exclusively<T>(work: () => Promise<T>): Promise<T> {
  const result = lastTurn.then(work);
  // Only the order matters here; the failure is `result`'s and belongs to the caller.
  lastTurn = result.catch(() => {});
  return result;
}

/** The exported functions that could be run. Also runs what the module does by itself, and forgets it. */
export async function listEntries(request: EntryRequest): Promise<{ readonly entries: readonly string[] }> {
  return exclusively(async () => {
    const run = new Run(request);
    try {
      const loaded = await run.load();
      const entries = loaded.module === undefined ? [] : entriesOf(loaded.module);
      if (entries.length === 0 && loaded.graph === undefined) await run.lateGraph();
      return { entries };
    } finally {
      run.end();
    }
  });
}

class Run {
  private graph: Graph | undefined;
  private readonly environments: PlannableEnvironment[] = [];
  private readonly firstGraph: Promise<Graph>;
  private readonly leave: () => void;
  private announce: (graph: Graph) => void = () => {};

  constructor(private readonly request: EntryRequest) {
    this.firstGraph = new Promise((resolve) => {
      this.announce = resolve;
    });
    this.leave = enterPlanContext({
      kind: 'plan',
      defaults: request.defaults,
      created: (environment) => this.environments.push(environment),
      captured: (graph) => {
        // Only the first job of a program can be planned: its `execute` never returns.
        this.graph ??= graph;
        this.announce(this.graph);
      },
    });
  }

  end(): void {
    this.leave();
  }

  async result(): Promise<EntryResult> {
    const { entryClass, bundleName } = this.request;
    const { module, graph } = await this.load();
    if (graph !== undefined && entryClass === undefined) return { graph, ranWhileLoading: true };
    if (module === undefined) {
      throw new InvalidArgumentError(
        `${bundleName} runs its job while it is loaded, so it has no entry "${entryClass}"`,
        {
          hint: 'Leave the entry class out, or export functions instead.',
        },
      );
    }
    const main = chooseEntry(module, entryClass, bundleName);
    if (main === undefined) return { graph: await this.lateGraph(), ranWhileLoading: true };
    this.graph = undefined;
    return { graph: await this.runMain(main), ranWhileLoading: false };
  }

  /** The module, or without it the graph that was built on the way (a module that awaits `execute` never loads). */
  async load(): Promise<{ readonly module?: Module; readonly graph?: Graph }> {
    const { moduleUrl, libraryUrl } = this.request;
    await import(libraryUrl);
    const loading = (import(moduleUrl) as Promise<Module>).then((module) => ({ module }));
    try {
      const first = await Promise.race([loading, this.firstGraph.then((graph) => ({ graph }))]);
      if ('module' in first) return this.graph === undefined ? first : { ...first, graph: this.graph };
      // It may have called `execute` without waiting for it: then the exports are there in a moment.
      return await Promise.race([
        loading.then((loaded) => ({ ...loaded, ...first })),
        sleep(this.request.clock, EXPORTS_AFTER_EXECUTE_MS).then(() => first),
      ]);
    } catch (error) {
      throw programError('load', error, this.request);
    } finally {
      // When the graph came first nobody waits for the module any more; its later failure concerns nobody.
      loading.catch(() => {});
    }
  }

  /** For a module without entries that is still on its way to `execute`. */
  async lateGraph(): Promise<Graph> {
    const waiting = new AbortController();
    const graph = await Promise.race([this.firstGraph, sleep(this.request.clock, LATE_EXECUTE_MS, waiting.signal)]);
    waiting.abort();
    if (graph !== undefined) return graph;
    throw new MillraceError(
      'PROGRAM',
      `${this.request.bundleName} exports no function and does not call env.execute() when it is loaded`,
      { hint: 'Export a function main(env, args) that builds the job.' },
    );
  }

  private async runMain(main: Main): Promise<Graph> {
    const { libraryUrl, args } = this.request;
    const library = (await import(libraryUrl)) as {
      readonly StreamExecutionEnvironment: typeof StreamExecutionEnvironment;
    };
    this.environments.length = 0;
    const built = new Promise<Graph>((resolve) => {
      this.announce = resolve;
    });
    const env = library.StreamExecutionEnvironment.getExecutionEnvironment();
    // Called in a later microtask, so that what it throws at once is a rejection like any other.
    const returned = Promise.resolve().then(() => main(env, [...args]));
    try {
      await Promise.race([returned, built]);
      return this.graph ?? this.builtWithoutExecute();
    } catch (error) {
      throw programError('run', error, this.request);
    } finally {
      returned.catch(() => {});
    }
  }

  private builtWithoutExecute(): Graph {
    const built = this.environments.filter((environment) => environment.hasSinks);
    const [only] = built;
    if (only !== undefined && built.length === 1) return only.getStreamGraph();
    throw new MillraceError(
      'PROGRAM',
      built.length === 0
        ? `${this.request.bundleName} built no job: no stream ends in a sink`
        : `${this.request.bundleName} built ${built.length} jobs and executed none`,
      { hint: built.length === 0 ? 'End a stream with print() or sinkTo().' : 'Call execute() on one of them.' },
    );
  }
}

function chooseEntry(module: Module, entryClass: string | undefined, bundleName: string): Main | undefined {
  if (entryClass === undefined) return asMain(module.main) ?? asMain(module.default);
  const main = Object.hasOwn(module, entryClass) ? asMain(module[entryClass]) : undefined;
  if (main !== undefined) return main;
  const entries = entriesOf(module);
  throw new InvalidArgumentError(`${bundleName} has no entry "${entryClass}"`, {
    hint:
      entries.length === 0
        ? 'It exports no function at all; leave the entry class out.'
        : `It exports: ${entries.join(', ')}.`,
  });
}

function entriesOf(module: Module): string[] {
  return Object.keys(module).filter((name) => asMain(module[name]) !== undefined);
}

/** A function, or something with a `main` as the classes that people know from Flink. */
function asMain(exported: unknown): Main | undefined {
  if ((typeof exported === 'object' || typeof exported === 'function') && exported !== null && 'main' in exported) {
    const { main } = exported;
    if (typeof main === 'function') return (env, args) => main.call(exported, env, args);
  }
  return typeof exported === 'function' ? (exported as Main) : undefined;
}

async function withTimeout<T>({ bundleName, clock, timeoutMs }: EntryRequest, result: Promise<T>): Promise<T> {
  if (timeoutMs === undefined) return result;
  const answered = new AbortController();
  const timeout = sleep(clock, timeoutMs, answered.signal).then(() => {
    if (answered.signal.aborted) return result;
    throw new MillraceError('PROGRAM', `${bundleName} did not build its job within ${timeoutMs} ms`);
  });
  try {
    return await Promise.race([result, timeout]);
  } finally {
    answered.abort();
    // Whichever lost the race has nothing more to say.
    timeout.catch(() => {});
    result.catch(() => {});
  }
}
