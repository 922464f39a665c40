/**
 * The first word count.
 *
 *     npx millrace run examples/word-count.ts     on a cluster
 *     node dist/examples/word-count.js            in this process, without any cluster
 */
import { StreamExecutionEnvironment } from 'millrace';

const env = StreamExecutionEnvironment.getExecutionEnvironment();
// biome-ignore format: as the documentation prints it
env.fromElements('Hello World', 'Hello Flink')
  .flatMap((line: string) => line.toLowerCase().split(/\W+/).filter(Boolean).map((w) => [w, 1] as const))
  .keyBy(([word]) => word)
  .sum(1)
  .print();
await env.execute('WordCount Example');
