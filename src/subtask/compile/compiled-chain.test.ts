import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Chain, ChainFactory, ChainNode, ChainStep } from '../chain.ts';
import { asyncFunctionError, userCodeError } from '../operator-error.ts';
import { pushChainFactory } from '../push-chain.ts';
import { compiledChainFactory } from './compiled-chain.ts';
import { buildRandomChain, chainPlans, type NodePlan, records, Room } from './testing/random-chains.ts';

const never = () => false;

interface Outcome {
  readonly seen: Record<string, readonly unknown[]>;
  readonly error: string | undefined;
}

function outcome(seen: ReadonlyMap<string, readonly unknown[]>, work: () => void): Outcome {
  let error: string | undefined;
  try {
    work();
  } catch (thrown) {
    error = (thrown as Error).message;
  }
  return { seen: Object.fromEntries(seen), error };
}

/** What each operator means, in the fewest words. */
function naive(plans: readonly NodePlan[], input: readonly unknown[]): Outcome {
  const { nodes, seen } = buildRandomChain(plans);
  const visit = (i: number, value: unknown): void => {
    const { step, chained, outputs, site } = nodes[i] as ChainNode;
    const blame = <T>(work: () => T): T => {
      try {
        return work();
      } catch (error) {
        throw userCodeError(site, error, value);
      }
    };
    const emit = (result: unknown) => {
      for (const follower of chained) visit(follower, result);
      for (const output of outputs) output.emit(result);
    };
    if (step.kind === 'source') emit(value);
    else if (step.kind === 'map') emit(blame(() => step.fn(value)));
    else if (step.kind === 'filter') blame(() => step.fn(value)) && emit(value);
    else if (step.kind === 'reduce') emit(step.apply(value));
    else if (step.kind === 'write') step.write(value);
    else if (step.kind === 'window') step.window.process(value);
    else if (step.kind === 'stamp') {
      const { element, assign } = step.stamp;
      const before = element.timestampMs;
      element.timestampMs = step.stamp.saw(
        blame(() => assign?.(value, before)),
        value,
      );
      emit(value);
      element.timestampMs = before;
    } else {
      const iterator = blame(() => step.fn(value)[Symbol.iterator]());
      for (let next = blame(() => iterator.next()); next.done !== true; next = blame(() => iterator.next())) {
        emit(next.value);
      }
    }
  };
  return outcome(seen, () => {
    for (const record of input) visit(0, record);
  });
}

interface Drive {
  readonly factory: ChainFactory;
  readonly pause: readonly boolean[];
  readonly fullEvery: number;
  /** As a source gives them: some at once, paused or not. Else as a batch. */
  readonly burst: number | undefined;
}

function drive(plans: readonly NodePlan[], input: readonly unknown[], how: Drive): Outcome {
  const room = new Room(how.fullEvery);
  const { nodes, seen } = buildRandomChain(plans, room);
  let asked = 0;
  const shouldPause = () => room.state.full > 0 || how.pause[asked++ % how.pause.length] === true;
  const chain = how.factory.create({ nodes, shouldPause, room: room.state });
  const drain = () => {
    room.drain();
    for (let turns = 0; chain.paused; turns++) {
      if (turns > 100_000) throw new Error('a resumption makes no progress');
      chain.resume();
      room.drain();
    }
  };
  return outcome(seen, () => {
    for (let next = 0; next < input.length; drain()) {
      if (how.burst === undefined) {
        next = chain.processRange(input, next, input.length);
      } else {
        for (let end = Math.min(input.length, next + how.burst); next < end; next++) {
          if (next % 2 === 0) chain.process(input[next]);
          else chain.collector.collect(input[next]);
        }
      }
    }
  });
}

const how = (factory: ChainFactory, pauses: { pause: boolean[]; fullEvery: number }, burst?: number): Drive => ({
  factory,
  ...pauses,
  burst,
});
const pauses = fc.record({
  pause: fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }).map((list) => [...list, false]),
  fullEvery: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(Number.POSITIVE_INFINITY)),
});

test('compiled, interpreted and naive chains give the same, wherever they pause', () => {
  fc.assert(
    fc.property(
      chainPlans({ throwing: false, linear: false }),
      records,
      pauses,
      fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
      (plans, input, when, burst) => {
        const expected = naive(plans, input);
        expect(drive(plans, input, how(compiledChainFactory, when, burst))).toEqual(expected);
        expect(drive(plans, input, how(pushChainFactory, when, burst))).toEqual(expected);
      },
    ),
    { numRuns: 400 },
  );
});

test('compiled, interpreted and naive chains fail at the same record with the same words', () => {
  const without = { pause: [false], fullEvery: Number.POSITIVE_INFINITY };
  fc.assert(
    fc.property(chainPlans({ throwing: true, linear: false }), records, (plans, input) => {
      const expected = naive(plans, input);
      expect(drive(plans, input, how(compiledChainFactory, without))).toEqual(expected);
      expect(drive(plans, input, how(pushChainFactory, without))).toEqual(expected);
    }),
    { numRuns: 300 },
  );
});

test('a failure after pauses is the one that comes without', () => {
  fc.assert(
    fc.property(chainPlans({ throwing: true, linear: true }), records, pauses, (plans, input, when) => {
      const expected = naive(plans, input);
      const compiled = drive(plans, input, how(compiledChainFactory, when));
      const pushed = drive(plans, input, how(pushChainFactory, when));
      expect(compiled.error).toBe(expected.error);
      expect(pushed.error).toBe(expected.error);
      if (expected.error === undefined) expect([compiled.seen, pushed.seen]).toEqual([expected.seen, expected.seen]);
    }),
    { numRuns: 300 },
  );
});

function compile(step: ChainStep, shouldPause: () => boolean = never, out: unknown[] = []): Chain {
  const site = { name: 'op', position: 0, chainLength: 1, taskName: 'task' };
  const outputs = [{ emit: (record: unknown) => void out.push(record) }];
  return compiledChainFactory.create({ shouldPause, nodes: [{ site, step, chained: [], outputs }] });
}

test('an operator with several inputs takes the records of all of them', () => {
  const out: unknown[] = [];
  const node = (position: number, step: ChainStep, chained: readonly number[]): ChainNode => ({
    site: { name: `op${position}`, position, chainLength: 4, taskName: 'task' },
    step,
    chained,
    outputs: position === 3 ? [{ emit: (record) => void out.push(record) }] : [],
  });
  const add = (n: number): ChainStep => ({ kind: 'map', fn: (value) => (value as number) + n });
  const nodes = [
    node(0, { kind: 'source' }, [1, 2]),
    node(1, add(10), [3]),
    node(2, add(20), [3]),
    node(3, { kind: 'flatMap', fn: (value) => [value, value] }, []),
  ];
  compiledChainFactory.create({ nodes, shouldPause: never }).process(1);
  expect(out).toEqual([11, 11, 21, 21]);
});

test('one record of very many elements stops soon after the outputs are full, and closing ends its iterator', () => {
  let made = 0;
  let returned = false;
  function* endless() {
    try {
      for (;;) yield made++;
    } finally {
      returned = true;
    }
  }
  const chain = compile({ kind: 'flatMap', fn: endless }, () => true);
  chain.process(0);
  expect(chain.paused).toBe(true);
  expect(made).toBeLessThanOrEqual(16);
  chain.resume();
  expect(made).toBeLessThanOrEqual(32);
  chain.close();
  expect([returned, chain.paused]).toEqual([true, false]);
});

test('a function that is async, or a flatMap that gives no iterable, fails as it does in the interpreter', async () => {
  for (const kind of ['map', 'filter', 'flatMap'] as const) {
    for (const result of [Promise.resolve(true), undefined, null, 7]) {
      const step = { kind, fn: () => result } as unknown as ChainStep;
      const site = { name: 'op', position: 0, chainLength: 1, taskName: 'task' };
      const spec = { shouldPause: never, nodes: [{ site, step, chained: [], outputs: [] }] };
      const messageOf = (factory: ChainFactory) => outcome(new Map(), () => factory.create(spec).process(1)).error;
      expect(messageOf(compiledChainFactory)).toBe(messageOf(pushChainFactory));
    }
  }
  const refused = Promise.reject(new Error('later'));
  const site = { name: 'op', position: 0, chainLength: 1, taskName: 'task' };
  expect(() => compile({ kind: 'map', fn: () => refused }).process(1)).toThrow(
    asyncFunctionError(site, refused, 1).message,
  );
  await new Promise((resolve) => setImmediate(resolve)); // an unhandled rejection would fail the test here
});

test('what the chain threw is kept for a reader that swallows it', () => {
  const chain = compile({
    kind: 'map',
    fn: () => {
      throw new Error('no');
    },
  });
  expect(() => chain.collector.collect(1)).toThrow('operator "op" (1 of 1 in task) threw Error: no; record: 1');
  expect(chain.collector.failure).toMatchObject({ code: 'USER_CODE' });
});

test('a chain of very many operators is compiled in pieces', () => {
  const out: unknown[] = [];
  const nodes = Array.from({ length: 300 }, (_, position): ChainNode => {
    const last = position === 299;
    return {
      site: { name: `op${position}`, position, chainLength: 300, taskName: 'task' },
      step: { kind: 'map', fn: (n) => (n as number) + 1 },
      chained: last ? [] : [position + 1],
      outputs: last ? [{ emit: (record) => void out.push(record) }] : [],
    };
  });
  const chain = compiledChainFactory.create({ nodes, shouldPause: never });
  expect(chain.processRange([0, 1, 2], 0, 3)).toBe(3);
  expect(out).toEqual([300, 301, 302]);
});
