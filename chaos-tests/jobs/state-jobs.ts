/** Jobs with state, for tests on real workers. Submitted as one bundle; each is an entry of it. */
import { existsSync, writeFileSync } from 'node:fs';
import {
  type Collector,
  dataGen,
  type KeyedContext,
  KeyedProcessFunction,
  type KeyedRuntimeContext,
  RestartStrategies,
  type StreamExecutionEnvironment,
  type ValueState,
  ValueStateDescriptor,
} from 'millrace';

interface Numbered {
  readonly index: number;
  readonly text: string;
}

/** Each key is new, and what is kept for it takes some 200 bytes. */
class Remember extends KeyedProcessFunction<string, Numbered, number> {
  private state: ValueState<Numbered> | undefined;

  override open(context: KeyedRuntimeContext): void {
    this.state = context.getState(new ValueStateDescriptor<Numbered>('record'));
  }

  override processElement(value: Numbered, _: KeyedContext<string>, out: Collector<number>): void {
    this.state?.update(value);
    if (value.index % 10_000 === 0) out.collect(value.index);
  }
}

const numbered = (index: number): Numbered => ({ index, text: `${index}`.padStart(60, 'x') });

/** Arguments: backend, number of records (0: without end). */
export async function Hoard(env: StreamExecutionEnvironment, [backend, count]: string[]): Promise<void> {
  env.setStateBackend(backend as 'hashmap' | 'lmdb').setRestartStrategy(RestartStrategies.noRestart());
  const bound = Number(count) === 0 ? {} : { count: Number(count) };
  env
    .fromSource(dataGen({ generator: numbered, ...bound }))
    .keyBy(({ index }) => `key-${index}`)
    .process(() => new Remember())
    .name('Remember')
    .print();
  await env.execute('Hoard');
}

const leaked: string[][] = [];

/** Keeps everything outside of state, where nobody counts. */
export async function Leak(env: StreamExecutionEnvironment): Promise<void> {
  env.setRestartStrategy(RestartStrategies.noRestart());
  env
    .fromSource(dataGen({ generator: numbered }))
    .map((value) => {
      leaked.push(Array.from({ length: 8 }, (_, i) => `${value.text}-${i}`));
      return value.index;
    })
    .filter((index) => index % 100_000 === 0)
    .print();
  await env.execute('Leak');
}

/** Fails once in the middle, behind some checkpoints. Arguments: backend, a file that says that it has failed. */
export async function FailOnce(env: StreamExecutionEnvironment, [backend, marker = '']: string[]): Promise<void> {
  env.setStateBackend(backend as 'hashmap' | 'lmdb', { incremental: true, localRecovery: true });
  env.enableCheckpointing(150).setRestartStrategy(RestartStrategies.fixedDelayRestart(3, 10));
  env
    .fromSource(dataGen({ generator: numbered, count: 6_000, ratePerSecond: 3_000 }))
    .map((value) => {
      if (value.index === 3_500 && !existsSync(marker)) {
        writeFileSync(marker, '');
        throw new Error('once, in the middle');
      }
      return value;
    })
    .keyBy(({ index }) => `key-${index % 1_000}`)
    .process(() => new Remember())
    .print();
  await env.execute('FailOnce');
}
