import type { BundleRef, JobGraph } from '../contracts/job-graph.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { Random } from '../kernel/random.ts';
import { BundleFolder } from './bundle-folder.ts';
import { toUserProgram } from './program-graph.ts';
import { type EntryResult, runEntry } from './run-entry.ts';
import type { ProgramLoader, UserProgram } from './user-program.ts';

export type ObjectBundleRef = Extract<BundleRef, { kind: 'object' }>;

export interface BundleLoaderDeps {
  /** The bundle's bytes from wherever they are kept. */
  readonly fetchBundle: (ref: ObjectBundleRef) => Promise<Uint8Array>;
  readonly clock: Clock;
  readonly random: Random;
}

export interface BundleLoaderOptions {
  /** Folder of cached bundles; several processes may share it. */
  readonly dir: string;
  /** Longest time that a program may take to build its graph. */
  readonly timeoutMs: number;
  /** The package that `import 'millrace'` stands for; default: the one this code is part of. */
  readonly packageRoot?: string;
}

/**
 * Loads programs from bundles, in the thread that will run them.
 *
 * Invariants:
 *   P1. One program runs at a time in a thread: the execution context is the thread's.
 *   P2. What a slot runs is what was planned: same digest of the bundle, same fingerprint of the graph.
 *   P3. Each load gives functions of its own: closures of an earlier attempt would keep what it had counted.
 */
export class BundleProgramLoader implements ProgramLoader {
  private readonly folder: BundleFolder;

  constructor(
    private readonly deps: BundleLoaderDeps,
    private readonly options: BundleLoaderOptions,
  ) {
    this.folder = new BundleFolder(options.dir, deps.random, options.packageRoot);
  }

  async load(graph: JobGraph): Promise<UserProgram> {
    const { bundle } = graph;
    if (bundle.kind !== 'object') {
      throw new MillraceError('PROGRAM', `the program ${bundle.programId} lives in another process`, {
        hint: 'A job with inline functions can only run in the process that made them.',
      });
    }
    const { graph: built } = await this.run(graph, bundle);
    const program = toUserProgram(built);
    if (program.plan.fingerprint !== graph.fingerprint) throw differentGraph(graph, program);
    return program;
  }

  /** Removes the cached file of a bundle; what has been loaded stays. Another load fetches it again. */
  async forget(bundle: ObjectBundleRef): Promise<void> {
    await this.folder.remove(bundle.digest);
  }

  private async run(graph: JobGraph, bundle: ObjectBundleRef): Promise<EntryResult> {
    const { moduleUrl, libraryUrl } = await this.folder.materialise(bundle.digest, () => this.deps.fetchBundle(bundle));
    const url = reusableUrls.get(moduleUrl) ?? freshUrl(moduleUrl);
    const result = await runEntry({
      bundleName: `the program of "${graph.name}"`,
      moduleUrl: url,
      libraryUrl,
      entryClass: bundle.entryClass,
      args: bundle.args,
      defaults: { parallelism: bundle.parallelism ?? 1, config: graph.config },
      clock: this.deps.clock,
      timeoutMs: this.options.timeoutMs,
    });
    if (!result.ranWhileLoading) reusableUrls.set(moduleUrl, url);
    return result;
  }
}

/**
 * A thread evaluates a module once per URL and never forgets it. A module whose `main` is called may be
 * used again; one that runs its job while it is loaded, or that failed, must be loaded afresh, under
 * another URL. (Each such load stays in the thread's memory: a reason to export `main`.)
 */
const reusableUrls = new Map<string, string>();
let freshUrls = 0;

function freshUrl(moduleUrl: string): string {
  freshUrls++;
  return `${moduleUrl}?load=${freshUrls}`;
}

function differentGraph(planned: JobGraph, built: UserProgram): MillraceError {
  const names = (vertices: JobGraph['vertices']) =>
    vertices.map((vertex) => `${vertex.name} (${vertex.parallelism})`).join(', ');
  const [was, is] = [names(planned.vertices), names(built.plan.vertices)];
  const difference = was === is ? 'the same vertices, joined or identified differently' : `now ${is}, before ${was}`;
  return new MillraceError('PROGRAM', `the program of "${planned.name}" builds another graph here: ${difference}`, {
    hint: 'main must build the same graph each time: no time, randomness, environment or files in its decisions.',
  });
}
