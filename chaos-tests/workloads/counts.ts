import { dataGen, type StreamExecutionEnvironment } from 'millrace';
import { optionsOf, prepare, write } from './job.ts';
import { wordOf } from './records.ts';

/** Keyed counting: each word that occurs n times stands in the output with 1 to n. */
export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const options = optionsOf(args);
  prepare(env, options);
  const { records: count, ratePerSecond } = options;
  const words = env.fromSource(dataGen({ generator: wordOf, count, ratePerSecond }), 'words').uid('words');
  const lines = words
    .map((word) => ({ word, count: 1 }))
    .uid('ones')
    .keyBy(({ word }) => word)
    .sum('count')
    .uid('counts')
    .map(({ word, count: n }) => `${word} ${n}`)
    .uid('lines');
  write(lines, options);
  await env.execute('counts');
}
