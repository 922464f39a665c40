import { expect, test } from 'vitest';
import { SeededRandom } from '../kernel/random.ts';
import type { ChainNode, ChainStep } from './chain.ts';
import { pushChainFactory } from './push-chain.ts';

function node(position: number, step: ChainStep, chained: readonly number[], out?: unknown[]): ChainNode {
  return {
    site: { name: `op${position}`, position, chainLength: 4, taskName: 'task' },
    step,
    chained,
    outputs: out === undefined ? [] : [{ emit: (record) => void out.push(record) }],
  };
}

const never = () => false;

test('a tree gives every branch every record, in order', () => {
  const [left, right, head]: [unknown[], unknown[], unknown[]] = [[], [], []];
  const chain = pushChainFactory.create({
    shouldPause: never,
    nodes: [
      node(0, { kind: 'map', fn: (n) => (n as number) + 1 }, [1, 2], head),
      node(1, { kind: 'filter', fn: (n) => (n as number) % 2 === 0 }, [3]),
      node(2, { kind: 'flatMap', fn: (n) => [n, n] }, [], right),
      node(3, { kind: 'reduce', apply: (n) => `even ${n}` }, [], left),
    ],
  });
  for (const n of [1, 2, 3]) chain.process(n);
  expect(head).toEqual([2, 3, 4]);
  expect(left).toEqual(['even 2', 'even 4']);
  expect(right).toEqual([2, 2, 3, 3, 4, 4]);
});

test('pausing anywhere changes neither what comes out nor its order', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new SeededRandom(seed);
    const run = (shouldPause: () => boolean) => {
      const out: unknown[] = [];
      const generate = function* (n: unknown) {
        for (let i = 0; i < 3; i++) yield `${n}-${i}`;
      };
      const chain = pushChainFactory.create({
        shouldPause,
        nodes: [
          node(0, { kind: 'flatMap', fn: (n) => [n, `${n}'`] }, [1]),
          node(1, { kind: 'flatMap', fn: generate }, [2]),
          node(2, { kind: 'flatMap', fn: (s) => (String(s).endsWith('2') ? [] : [s, s]) }, [], out),
        ],
      });
      // As a source does it: a few records at once, paused or not; then nothing before all is out.
      for (let n = 0; n < 12; n += 3) {
        for (let i = 0; i < 3; i++) chain.process(n + i);
        while (chain.paused) chain.resume();
      }
      return out;
    };
    expect(
      run(() => random.next() < 0.5),
      `seed ${seed}`,
    ).toEqual(run(never));
  }
});

test('closing a paused chain ends its iterators', () => {
  let returned = false;
  const endless = function* () {
    try {
      for (;;) yield 1;
    } finally {
      returned = true;
    }
  };
  const chain = pushChainFactory.create({
    shouldPause: () => true,
    nodes: [node(0, { kind: 'flatMap', fn: endless }, [])],
  });
  chain.process(0);
  expect(chain.paused).toBe(true);
  chain.close();
  expect(returned).toBe(true);
  expect(chain.paused).toBe(false);
});

test('an error downstream is not blamed on the operators before it', () => {
  const chain = pushChainFactory.create({
    shouldPause: never,
    nodes: [
      node(0, { kind: 'map', fn: (n) => n }, [1]),
      node(1, { kind: 'flatMap', fn: (n) => [n] }, [2]),
      node(
        2,
        {
          kind: 'filter',
          fn: () => {
            throw new Error('no');
          },
        },
        [],
      ),
    ],
  });
  expect(() => chain.process({ a: 1 })).toThrow('operator "op2" (3 of 4 in task) threw Error: no; record: { a: 1 }');
});

test('a flatMap that returns no iterable is a clear error', () => {
  const chain = pushChainFactory.create({
    shouldPause: never,
    nodes: [node(0, { kind: 'flatMap', fn: (() => undefined) as unknown as (v: unknown) => Iterable<unknown> }, [])],
  });
  expect(() => chain.process(1)).toThrow('flatMap must return an iterable, got undefined');
});
