import { dataGen, type StreamExecutionEnvironment } from 'millrace';
import { optionsOf, prepare, write } from './job.ts';
import { forwardLineOf } from './records.ts';

/** No exchange: each subtask is a region of its own, so that a lost worker takes only some of them along. */
export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const options = optionsOf(args);
  prepare(env, options);
  const { records: count, ratePerSecond } = options;
  const lines = env
    .fromSource(dataGen({ generator: (index) => index, count, ratePerSecond }), 'indexes')
    .uid('indexes')
    .map(forwardLineOf)
    .uid('lines');
  write(lines, options);
  await env.execute('forward');
}
