/**
 * The first word count as a named entry of a bundle, for submission over REST:
 *
 *     curl -X POST -H "Content-Type: application/json" -d '{"entryClass":"WordCount"}' \
 *          http://localhost:8081/jars/<id>/run
 */
import type { StreamExecutionEnvironment } from 'millrace';

export async function WordCount(env: StreamExecutionEnvironment): Promise<void> {
  env
    .fromElements('Hello World', 'Hello Flink')
    .flatMap((line) => line.toLowerCase().split(/\W+/).filter(Boolean))
    .map((word) => [word, 1] as const)
    .keyBy(([word]) => word)
    .sum(1)
    .print();
  await env.execute('WordCount Example');
}
