import type { Chain, ChainFactory, ChainNode, ChainStep } from '../src/subtask/chain.ts';
import { compiledChainFactory } from '../src/subtask/compile/compiled-chain.ts';
import { pushChainFactory } from '../src/subtask/push-chain.ts';
import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { type Contender, measureRounds, type Measurement, speedup } from './lib/rounds.ts';

const BATCH_RECORDS = 1_024;
const BATCHES = 200;
const RECORDS = BATCH_RECORDS * BATCHES;

interface Case {
  readonly name: string;
  readonly steps: readonly ChainStep[];
  /** The same work as one would write it by hand, into the same kind of sink. */
  readonly byHand: (records: readonly number[], write: (value: number) => void) => void;
  readonly target: number;
}

const map = (fn: (value: number) => number): ChainStep => ({ kind: 'map', fn: fn as (value: unknown) => unknown });
const filter = (fn: (value: number) => boolean): ChainStep => ({
  kind: 'filter',
  fn: fn as (value: unknown) => boolean,
});

/** Readings in Celsius to rounded Fahrenheit, without the cold ones. */
const CASES: readonly Case[] = [
  {
    name: '3 operators',
    steps: [map((c) => c * 1.8 + 32), filter((f) => f > 50), map((f) => Math.round(f * 10) / 10)],
    byHand: (records, write) => {
      for (let i = 0; i < records.length; i++) {
        const fahrenheit = (records[i] as number) * 1.8 + 32;
        if (fahrenheit > 50) write(Math.round(fahrenheit * 10) / 10);
      }
    },
    target: 0.85,
  },
  {
    name: '8 operators',
    steps: [
      map((c) => c * 1.8 + 32),
      filter((f) => f > 50),
      map((f) => Math.round(f * 10) / 10),
      map((f) => f - 32),
      map((f) => f / 1.8),
      filter((c) => c !== 15),
      map((c) => c + 273.15),
      map((k) => Math.sqrt(k)),
    ],
    byHand: (records, write) => {
      for (let i = 0; i < records.length; i++) {
        const fahrenheit = (records[i] as number) * 1.8 + 32;
        if (fahrenheit <= 50) continue;
        const back = (Math.round(fahrenheit * 10) / 10 - 32) / 1.8;
        if (back !== 15) write(Math.sqrt(back + 273.15));
      }
    },
    target: 0.8,
  },
];

/** A chain of numeric operators, also in a thread that has run other chains on records of other shapes before. */
export const chainBench: Benchmark = {
  name: 'chain',
  description: 'chains of numeric operators, compiled into one function, against a hand-written loop',
  async run({ rounds }, say) {
    const records = Array.from({ length: BATCH_RECORDS }, (_, i) => (i % 400) / 10 + 0.05);
    const results: BenchResult[] = [];
    for (const polluted of [false, true]) {
      if (polluted) pollute();
      for (const each of CASES) {
        const { name, steps, byHand, target } = each;
        checkSums(each, records);
        const label = polluted ? `${name}, polluted types` : name;
        const contenders = [
          handWritten(records, byHand),
          chained('compiled', compiledChainFactory, steps, records),
          chained('pushed', pushChainFactory, steps, records),
        ];
        const measured = await measureRounds(contenders, { rounds, warmupRounds: 10, clock: 'cpu' });
        const [loop, compiled, pushed] = measured as readonly [Measurement, Measurement, Measurement];
        say(`${label}: ${measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(0)} M/s`).join(', ')}`);
        results.push(
          {
            name: `${label}: compiled / loop`,
            value: speedup(compiled, loop),
            unit: 'x',
            target: { atLeast: target },
            against: 'hand-written loop',
          },
          { name: `${label}: pushed / loop`, value: speedup(pushed, loop), unit: 'x', against: 'hand-written loop' },
        );
      }
    }
    return results;
  },
};

function handWritten(records: readonly number[], byHand: Case['byHand']): Contender {
  const { write } = addingSink();
  return {
    name: 'loop',
    run() {
      for (let batch = 0; batch < BATCHES; batch++) byHand(records, write);
      return RECORDS;
    },
  };
}

function chained(
  name: string,
  factory: ChainFactory,
  steps: readonly ChainStep[],
  records: readonly number[],
): Contender {
  const { write } = addingSink();
  const chain = createChain(factory, steps, write as (value: unknown) => void);
  return {
    name,
    run() {
      for (let batch = 0; batch < BATCHES; batch++) chain.processRange(records, 0, records.length);
      return RECORDS;
    },
  };
}

/** Adds up in a typed array: a number in a variable of a closure would be boxed again for each record. */
function addingSink(): { readonly write: (value: number) => void; readonly sum: () => number } {
  const total = new Float64Array(1);
  return {
    write: (value) => {
      total[0] = (total[0] as number) + value;
    },
    sum: () => total[0] as number,
  };
}

/** No contender is quick because it does less. */
function checkSums({ name, steps, byHand }: Case, records: readonly number[]): void {
  const expected = addingSink();
  byHand(records, expected.write);
  for (const factory of [compiledChainFactory, pushChainFactory]) {
    const actual = addingSink();
    createChain(factory, steps, actual.write as (value: unknown) => void).processRange(records, 0, records.length);
    if (actual.sum() !== expected.sum()) throw new Error(`${name}: ${actual.sum()} instead of ${expected.sum()}`);
  }
}

function createChain(factory: ChainFactory, steps: readonly ChainStep[], write: (value: unknown) => void): Chain {
  const all: readonly ChainStep[] = [...steps, { kind: 'write', write }];
  const nodes = all.map(
    (step, position): ChainNode => ({
      site: { name: step.kind, position, chainLength: all.length, taskName: 'bench' },
      step,
      chained: position + 1 < all.length ? [position + 1] : [],
      outputs: [],
    }),
  );
  return factory.create({ nodes, shouldPause: () => false });
}

/** What a thread has seen that has run other jobs' chains: objects and strings through operators of each kind. */
function pollute(): void {
  const shapes: readonly unknown[] = [{ a: 1 }, { b: 'x', c: 2 }, 'text', [1, 2], { d: { e: 1 } }, null, 1.5, true];
  const records = Array.from({ length: BATCH_RECORDS }, (_, i) => shapes[i % shapes.length]);
  const steps: readonly ChainStep[] = [
    { kind: 'map', fn: (value) => value },
    { kind: 'filter', fn: (value) => value !== null },
    { kind: 'map', fn: (value) => [value] },
  ];
  for (const factory of [compiledChainFactory, pushChainFactory]) {
    const chain = createChain(factory, steps, () => undefined);
    for (let batch = 0; batch < BATCHES; batch++) chain.processRange(records, 0, records.length);
  }
}
