import {
  type Collector,
  dataGen,
  KeyedCoProcessFunction,
  type KeyedContext,
  type StreamExecutionEnvironment,
} from 'millrace';
import { optionsOf, prepare, write } from './job.ts';
import { type Half, leftOf, rightOf } from './records.ts';

/** Two inputs and value state: joins the halves of each id, whichever comes first. */
class Pairs extends KeyedCoProcessFunction<number, Half, Half, string> {
  override processElement1(left: Half, ctx: KeyedContext<number>, out: Collector<string>): void {
    const right = ctx.getState<number>({ name: 'right' });
    const value = right.value();
    if (value === undefined) ctx.getState<number>({ name: 'left' }).update(left.value);
    else {
      right.clear();
      out.collect(`${left.id} ${left.value} ${value}`);
    }
  }

  override processElement2(right: Half, ctx: KeyedContext<number>, out: Collector<string>): void {
    const left = ctx.getState<number>({ name: 'left' });
    const value = left.value();
    if (value === undefined) ctx.getState<number>({ name: 'right' }).update(right.value);
    else {
      left.clear();
      out.collect(`${right.id} ${value} ${right.value}`);
    }
  }
}

export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const options = optionsOf(args);
  prepare(env, options);
  const { records: count, ratePerSecond } = options;
  const left = env.fromSource(dataGen({ generator: leftOf, count, ratePerSecond }), 'left').uid('left');
  const right = env
    .fromSource(dataGen({ generator: (index) => rightOf(index, count), count, ratePerSecond }), 'right')
    .uid('right');
  const lines = left
    .connect(right)
    .keyBy(
      ({ id }) => id,
      ({ id }) => id,
    )
    .process(() => new Pairs())
    .uid('pairs');
  write(lines, options);
  await env.execute('pairs');
}
