import { parseArgs } from 'node:util';
import { fileSink, type StreamExecutionEnvironment, textFileSource } from 'millrace';

/**
 * Counts the words of a folder of text files, exactly once, and writes `word count` each time a count
 * grows. Run it on a cluster:
 *
 *   millrace run examples/word-count-files.ts -- --input /data/books --output /data/counts
 */
export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      input: { type: 'string' },
      output: { type: 'string' },
      parallelism: { type: 'string', default: '1' },
      /** Lines a second over all subtasks; as fast as possible without. */
      rate: { type: 'string' },
    },
  });
  const { input, output } = values;
  if (input === undefined || output === undefined) throw new Error('--input FOLDER and --output FOLDER are needed');

  env.setParallelism(Number(values.parallelism));
  env
    .fromSource(textFileSource(input, values.rate === undefined ? {} : { ratePerSecond: Number(values.rate) }), 'Text')
    .uid('text')
    .flatMap((line: string) =>
      line
        .toLowerCase()
        .split(/\W+/)
        .filter(Boolean)
        .map((word) => [word, 1] as const),
    )
    .keyBy(([word]) => word)
    .sum(1)
    .uid('counts')
    .map(([word, count]) => `${word} ${count}`)
    .sinkTo(fileSink(output))
    .uid('files');
  await env.execute('Word count of files');
}
