/** The word count of the memory benchmark, packed and submitted like anybody's. Argument: the folder of the input. */
import type { Sink, StreamExecutionEnvironment } from 'millrace';

/** Takes everything and keeps nothing. */
const nowhere: Sink<unknown> = {
  name: 'Nowhere',
  createWriter: () => ({
    open: async () => undefined,
    write: () => undefined,
    ready: () => undefined,
    flush: async () => undefined,
    close: async () => undefined,
  }),
};

export async function WordCount(
  env: StreamExecutionEnvironment,
  [input = '', intervalMs = '1000']: string[],
): Promise<void> {
  env.setParallelism(2).enableCheckpointing(Number(intervalMs));
  env
    .readTextFile(input)
    .flatMap((line) =>
      line
        .toLowerCase()
        .split(/\W+/)
        .filter(Boolean)
        .map((word) => [word, 1] as const),
    )
    .keyBy(([word]) => word)
    .sum(1)
    .sinkTo(nowhere);
  await env.execute('Word count of a large file');
}
