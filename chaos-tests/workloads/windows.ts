import {
  type Collector,
  dataGen,
  type KeyedContext,
  KeyedProcessFunction,
  ListStateDescriptor,
  type OnTimerContext,
  type StreamExecutionEnvironment,
  WatermarkStrategy,
} from 'millrace';
import { optionsOf, prepare, write } from './job.ts';
import { type Reading, readingOf, windowEndOf } from './records.ts';

const TIMES = new ListStateDescriptor<number>('times');

/** List state and event-time timers: gathers what came in each window, and says so once when it has passed. */
class Windows extends KeyedProcessFunction<string, Reading, string> {
  override processElement({ at }: Reading, ctx: KeyedContext<string>): void {
    ctx.getListState(TIMES).add(at);
    ctx.timerService().registerEventTimeTimer(windowEndOf(at));
  }

  override onTimer(end: number, ctx: OnTimerContext<string>, out: Collector<string>): void {
    const state = ctx.getListState(TIMES);
    const all = [...(state.get() ?? [])];
    const due = all.filter((at) => at < end).sort((a, b) => a - b);
    state.update(all.filter((at) => at >= end));
    out.collect(`${ctx.getCurrentKey()} ${end} ${due.join(',')}`);
  }
}

export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const options = optionsOf(args);
  prepare(env, options);
  const { records: count, ratePerSecond } = options;
  const lines = env
    .fromSource(
      dataGen({ generator: readingOf, count, ratePerSecond }),
      WatermarkStrategy.forMonotonousTimestamps<Reading>().withTimestampAssigner(({ at }) => at),
      'readings',
    )
    .uid('readings')
    .keyBy(({ key }) => key)
    .process(() => new Windows())
    .uid('windows');
  write(lines, options);
  await env.execute('windows');
}
