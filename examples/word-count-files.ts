/**
 * Counts the words of text files into files, exactly once: whatever fails meanwhile, each word that
 * occurs n times stands in the output with the counts 1 to n, each once.
 *
 *     npx millrace run examples/word-count-files.ts -- --input texts --output counts --parallelism 2
 *
 * --input        a text file, or a folder of text files; every worker must see it under the same path
 * --output       the folder of counts, one `word count` a line; or s3://bucket/prefix, with the cluster's s3.* keys
 * --parallelism  subtasks of each operator; default: the cluster's
 * --rate         lines read a second, over all subtasks; default: as fast as possible
 */
import { parseArgs } from 'node:util';
import { fileSink, s3Sink, type StreamExecutionEnvironment, textFileSource, type TwoPhaseCommitSink } from 'millrace';

interface WordCount {
  readonly word: string;
  readonly count: number;
}

function sinkFor(output: string): TwoPhaseCommitSink<WordCount> {
  const encoder = ({ word, count }: WordCount) => `${word} ${count}`;
  return output.startsWith('s3://') ? s3Sink(output, { encoder }) : fileSink(output, { encoder });
}

export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const { input, output, parallelism, ratePerSecond } = parse(args);
  if (parallelism !== undefined) env.setParallelism(parallelism);
  // Output becomes visible with checkpoints, so the job needs some, whatever the cluster's default is.
  if (env.getConfig().checkpointing.intervalMs === undefined) env.enableCheckpointing(1_000);

  env
    .fromSource(textFileSource(input, ratePerSecond === undefined ? {} : { ratePerSecond }), 'lines')
    .uid('lines')
    .flatMap((line) => line.toLowerCase().split(/\W+/).filter(Boolean))
    .name('words')
    .uid('words')
    .map((word) => ({ word, count: 1 }))
    .name('ones')
    .uid('ones')
    .keyBy(({ word }) => word)
    .sum('count')
    .name('counts')
    .uid('counts')
    .sinkTo(sinkFor(output))
    .name('files')
    .uid('files');
  await env.execute('Word count of files');
}

function parse(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      input: { type: 'string' },
      output: { type: 'string' },
      parallelism: { type: 'string' },
      rate: { type: 'string' },
    },
  });
  const { input, output } = values;
  if (input === undefined || output === undefined) throw new Error('--input and --output are needed');
  return {
    input,
    output,
    parallelism: count('parallelism', values.parallelism),
    ratePerSecond: count('rate', values.rate),
  };
}

function count(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new Error(`--${option} must be a whole number of 1 or more, not "${text}"`);
}
