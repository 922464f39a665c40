import { type DataStream, fileSink, s3Sink, type StreamExecutionEnvironment, type TwoPhaseCommitSink } from 'millrace';
import type { WorkloadOptions } from './records.ts';
import { stamps } from './stamps.ts';

export function optionsOf(args: readonly string[]): WorkloadOptions {
  return JSON.parse(args[0] ?? '{}') as WorkloadOptions;
}

export function prepare(env: StreamExecutionEnvironment, { parallelism }: WorkloadOptions): void {
  env.setParallelism(parallelism);
}

/** Lines to the transactional sink that the output names, and the times at which they came. */
export function write(lines: DataStream<string>, { output, stamps: folder }: WorkloadOptions): void {
  const sink: TwoPhaseCommitSink<string> = output.startsWith('s3://') ? s3Sink(output) : fileSink(output);
  lines.sinkTo(sink).name('output').uid('output');
  lines.sinkTo(stamps(folder)).name('stamps').uid('stamps');
}
