import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { fileSink, RestartStrategies, type Sink, StreamExecutionEnvironment, textFileSource } from './index.ts';

let folder: string;
beforeEach(() => {
  folder = makeTempFolder('mini');
});
afterEach(() => removeTempFolder(folder));

/** Remembers what it was given, in this process, where the job runs too. */
function collecting<T>(into: T[]): Sink<T> {
  return {
    name: 'Collect',
    createWriter: () => ({
      open: async () => undefined,
      write: (value) => void into.push(value),
      ready: () => undefined,
      flush: async () => undefined,
      close: async () => undefined,
    }),
  };
}

const words = (line: string) =>
  line
    .toLowerCase()
    .split(/\W+/)
    .filter(Boolean)
    .map((word) => [word, 1] as const);

test('a plain script counts words without any cluster, and may execute twice', async () => {
  for (let round = 0; round < 2; round++) {
    const counts: (readonly [string, number])[] = [];
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    env
      .fromElements('Hello World', 'Hello Flink')
      .flatMap(words)
      .keyBy(([word]) => word)
      .sum(1)
      .sinkTo(collecting(counts));
    const result = await env.execute('WordCount Example');
    expect(result.jobName).toBe('WordCount Example');
    expect(counts.filter(([word]) => word === 'hello').map(([, n]) => n)).toEqual([1, 2]);
    expect(counts).toHaveLength(4);
  }
});

test('a function that throws fails the job with an error that names operator and record', async () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  env
    .fromElements(1, 2, 3)
    .map((n) => {
      if (n === 2) throw new RangeError('two is not allowed');
      return n;
    })
    .name('No twos')
    .sinkTo(collecting([]));
  await expect(env.execute('Failing')).rejects.toThrow(/No twos[\s\S]*two is not allowed/);
});

test.each([
  ['hashmap', { incremental: true, compression: 'gzip' }],
  ['lmdb', { incremental: true, compression: 'lz4' }],
] as const)(
  'with checkpoints a job that fails in the middle restarts and its files are exact (%s)',
  async (type, how) => {
    const input = join(folder, 'input');
    const output = join(folder, 'output');
    mkdirSync(input);
    for (const name of ['a', 'b', 'c'])
      writeFileSync(join(input, name), Array.from({ length: 400 }, (_, i) => `${name}${i}`).join('\n'));
    let failures = 0;
    let seen = 0;
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    env.setStateBackend(type, how);
    env.setParallelism(2).enableCheckpointing(20).setRestartStrategy(RestartStrategies.fixedDelayRestart(5, 1));
    env
      .fromSource(textFileSource(input, { ratePerSecond: 2_000 }), 'Lines')
      .map((line: string) => {
        if (++seen > 500 && failures === 0) {
          failures++;
          throw new Error('once, in the middle');
        }
        return line;
      })
      .keyBy((line) => line)
      .reduce((line) => `${line} twice`)
      .sinkTo(fileSink(output));
    await env.execute('Restarts');
    expect(failures).toBe(1);
    const lines = readdirSync(output)
      .filter((name) => !name.startsWith('.'))
      .flatMap((name) => readFileSync(join(output, name), 'utf8').trimEnd().split('\n'));
    expect(lines.filter((line) => line.endsWith('twice'))).toEqual([]);
    expect(new Set(lines).size).toBe(1_200);
    expect(lines).toHaveLength(1_200);
    const mine = readdirSync(tmpdir()).filter((name) => name.startsWith(`millrace-${process.pid}-`));
    expect(mine, 'state on disk').toEqual([]);
  },
);

test('an input that is not there is said at once', async () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  env.readTextFile(join(folder, 'nothing-here')).sinkTo(collecting([]));
  await expect(env.execute('Missing input')).rejects.toThrow(/nothing-here/);
});
