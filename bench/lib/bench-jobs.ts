import { installConnectors } from '../../src/api/builtin-connectors.ts';
import type { DataStream } from '../../src/api/data-stream.ts';
import { StreamExecutionEnvironment } from '../../src/api/environment.ts';
import { WatermarkStrategy } from '../../src/api/watermark-strategy.ts';
import { TumblingEventTimeWindows } from '../../src/api/windows.ts';
import { BUILTIN_CONNECTORS } from '../../src/connectors/builtin-connectors.ts';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import type { ProgramLoader, UserProgram } from '../../src/program/user-program.ts';
import { enumerateSplits, toUserProgram } from '../../src/program/program-graph.ts';
import { discardingSink } from './discarding-sink.ts';
import { linesSource, type TextShape } from './lines-source.ts';
import { type Reading, readingsSource, type ReadingsShape } from './readings-source.ts';

installConnectors(BUILTIN_CONNECTORS);

/** A job by name and parameters: functions do not travel to threads, so every thread builds it for itself. */
export type BenchJob =
  | { readonly job: 'word count of a file'; readonly path: string }
  | {
      readonly job: 'sum of readings' | 'windowed sum of readings';
      readonly readings: ReadingsShape;
      readonly windowMs: number;
    }
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
  switch (spec.job) {
    case 'word count of a file':
      env.setParallelism(1);
      countWords(env.readTextFile(spec.path));
      return env;
    case 'word count of lines':
      env.setParallelism(spec.parallelism);
      countWords(env.fromSource(linesSource(spec.text)));
      return env;
    case 'sum of readings':
      env.setParallelism(1);
      env
        .fromSource(readingsSource(spec.readings))
        .map(({ sensor, value }): SensorAndValue => [sensor, value])
        .keyBy(([sensor]) => sensor)
        .sum(1)
        .sinkTo(discardingSink());
      return env;
    case 'windowed sum of readings':
      env.setParallelism(1);
      env
        .fromSource(readingsSource(spec.readings), byTime)
        .map(({ sensor, value }): SensorAndValue => [sensor, value])
        .keyBy(([sensor]) => sensor)
        .window(TumblingEventTimeWindows.of(spec.windowMs))
        .sum(1)
        .sinkTo(discardingSink());
      return env;
  }
}

type SensorAndValue = [sensor: string, value: number];

const byTime = WatermarkStrategy.forBoundedOutOfOrderness<Reading>(1_000).withTimestampAssigner(({ atMs }) => atMs);

function countWords(lines: DataStream<string>): void {
  lines
    .flatMap(wordsOf)
    .keyBy(([word]) => word)
    .sum(1)
    .sinkTo(discardingSink());
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
