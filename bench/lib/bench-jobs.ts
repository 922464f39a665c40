import { installConnectors } from '../../src/api/builtin-connectors.ts';
import { StreamExecutionEnvironment } from '../../src/api/environment.ts';
import { BUILTIN_CONNECTORS } from '../../src/connectors/builtin-connectors.ts';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import type { ProgramLoader, UserProgram } from '../../src/program/user-program.ts';
import { enumerateSplits, toUserProgram } from '../../src/program/program-graph.ts';
import { discardingSink } from './discarding-sink.ts';
import { linesSource, type TextShape } from './lines-source.ts';

installConnectors(BUILTIN_CONNECTORS);

/** A job by name and parameters: functions do not travel to threads, so every thread builds it for itself. */
export type BenchJob =
  | { readonly job: 'word count of a file'; readonly path: string }
  | { readonly job: 'word count of lines'; readonly text: TextShape; readonly parallelism: number };

export type WordAndCount = [word: string, count: number];

export function wordsOf(line: string): readonly WordAndCount[] {
  return line
    .toLowerCase()
    .split(/\W+/)
    .filter(Boolean)
    .map((word) => [word, 1]);
}

function build(spec: BenchJob): StreamExecutionEnvironment {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  env.setParallelism(spec.job === 'word count of a file' ? 1 : spec.parallelism);
  const lines =
    spec.job === 'word count of a file' ? env.readTextFile(spec.path) : env.fromSource(linesSource(spec.text));
  lines
    .flatMap(wordsOf)
    .keyBy(([word]) => word)
    .sum(1)
    .sinkTo(discardingSink());
  return env;
}

export async function planOf(spec: BenchJob, jobId: JobGraph['jobId']): Promise<JobGraph> {
  const graph = build(spec).getStreamGraph(spec.job);
  const { plan } = toUserProgram(graph, await enumerateSplits(graph));
  return { ...plan, jobId, bundle: { kind: 'inline', programId: JSON.stringify(spec) }, submittedWallMs: 0 };
}

/** Finds the job's functions by what its graph calls its program. */
export const benchPrograms: ProgramLoader = {
  async load({ bundle }): Promise<UserProgram> {
    if (bundle.kind !== 'inline') throw new Error('benchmarks run inline programs only');
    return toUserProgram(build(JSON.parse(bundle.programId) as BenchJob).getStreamGraph());
  },
};
