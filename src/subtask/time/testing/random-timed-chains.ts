import fc from 'fast-check';
import { aggregate } from '../../../api/aggregations.ts';
import { WatermarkStrategy } from '../../../api/watermark-strategy.ts';
import { TumblingEventTimeWindows } from '../../../api/windows.ts';
import type { ChainFactory } from '../../chain.ts';
import { KeyedProcessOperator } from '../../operators/keyed-process-operator.ts';
import type { SubtaskOperator } from '../../operators/operator.ts';
import { ReduceOperator } from '../../operators/reduce-operator.ts';
import { TimestampsOperator } from '../../operators/timestamps-operator.ts';
import { WindowOperator } from '../../operators/window-operator.ts';
import { newElement } from '../element.ts';
import { TimedChain, type TimedNode, type TimedOutput, type TimedStep } from '../timed-chain.ts';
import type { TimeSignal } from '../timed-operator.ts';
import { freshContext } from './operator-context.ts';

/** All records: a key and a number. */
export type Pair = readonly [key: string, n: number];

/** An operator as data, so that a counterexample can be read. */
export type TimedPlan =
  | { readonly kind: 'map'; readonly add: number }
  | { readonly kind: 'filter'; readonly modulo: number }
  | { readonly kind: 'flatMap'; readonly times: number; readonly lazily: boolean }
  | { readonly kind: 'sum' }
  | { readonly kind: 'stamp'; readonly addMs: number; readonly lateMs: number }
  | { readonly kind: 'timers'; readonly everyMs: number }
  | { readonly kind: 'window'; readonly sizeMs: number };

export interface TimedNodePlan {
  readonly operator: TimedPlan;
  /** Chooses the parent among the earlier nodes. */
  readonly parent: number;
  /** The operator throws for a record whose number leaves this remainder. */
  readonly throwsAt: number | undefined;
}

export type TimedEvent =
  | { readonly kind: 'records'; readonly records: readonly Pair[]; readonly timesMs: readonly number[] }
  | { readonly kind: 'watermark'; readonly timeMs: number }
  | { readonly kind: 'periodic' };

const operator: fc.Arbitrary<TimedPlan> = fc.oneof(
  fc.record({ kind: fc.constant('map' as const), add: fc.nat(5) }),
  fc.record({ kind: fc.constant('filter' as const), modulo: fc.integer({ min: 2, max: 4 }) }),
  fc.record({ kind: fc.constant('flatMap' as const), times: fc.nat(3), lazily: fc.boolean() }),
  fc.record({ kind: fc.constant('sum' as const) }),
  fc.record({ kind: fc.constant('stamp' as const), addMs: fc.nat(7), lateMs: fc.nat(5) }),
  fc.record({ kind: fc.constant('timers' as const), everyMs: fc.integer({ min: 1, max: 20 }) }),
  fc.record({ kind: fc.constant('window' as const), sizeMs: fc.integer({ min: 1, max: 20 }) }),
);

export function timedPlans(throwing: boolean): fc.Arbitrary<readonly TimedNodePlan[]> {
  const node = fc.record({
    operator,
    parent: fc.nat(),
    throwsAt: throwing ? fc.option(fc.nat(12), { nil: undefined, freq: 2 }) : fc.constant(undefined),
  });
  return fc.array(node, { minLength: 1, maxLength: 6 });
}

const record: fc.Arbitrary<Pair> = fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.nat(50));
export const timedEvents: fc.Arbitrary<readonly TimedEvent[]> = fc.array(
  fc.oneof(
    {
      arbitrary: fc.array(fc.tuple(record, fc.nat(60)), { minLength: 1, maxLength: 8 }).map(
        (rows): TimedEvent => ({
          kind: 'records',
          records: rows.map(([row]) => row),
          timesMs: rows.map(([, timeMs]) => timeMs),
        }),
      ),
      weight: 5,
    },
    { arbitrary: fc.nat(60).map((timeMs): TimedEvent => ({ kind: 'watermark', timeMs })), weight: 3 },
    { arbitrary: fc.constant<TimedEvent>({ kind: 'periodic' }), weight: 2 },
  ),
  { maxLength: 14 },
);

export function parentsOf(plans: readonly TimedNodePlan[]): readonly number[] {
  // Node 0 is the head that passes everything on.
  return plans.map(({ parent }, i) => parent % (i + 1));
}

export const checkNumber = (n: number, throwsAt: number | undefined) => {
  if (throwsAt !== undefined && n % 13 === throwsAt) throw new RangeError(`not ${throwsAt}`);
};

export interface TimedRun {
  readonly chain: TimedChain;
  /** What came out, by output: `key n @time`, and `~ time` for a signal. */
  readonly seen: ReadonlyMap<string, readonly string[]>;
  close(): Promise<void>;
}

/** The real operators, with real state, in a chain of any factory. */
export async function buildTimedChain(
  plans: readonly TimedNodePlan[],
  chains: ChainFactory,
  shouldPause: () => boolean,
): Promise<TimedRun> {
  const element = newElement();
  const seen = new Map<string, string[]>();
  const outputOf = (name: string): TimedOutput => {
    const into: string[] = [];
    seen.set(name, into);
    return {
      emit: (value) => void into.push(`${(value as Pair).join(' ')} @${element.timestampMs}`),
      signal: (signal: TimeSignal) => void into.push(`~ ${signal}`),
    };
  };
  const operators: SubtaskOperator[] = [];
  const parents = parentsOf(plans);
  const chainLength = plans.length + 1;
  const siteOf = (position: number) => ({ name: `op${position}`, position, chainLength, taskName: 'task' });
  const nodes: TimedNode[] = [
    {
      site: siteOf(0),
      step: { kind: 'source' },
      chained: childrenOf(0, parents),
      outputs: [outputOf('0')],
      sideOutputs: new Map(),
    },
  ];
  for (const [i, plan] of plans.entries()) {
    const site = siteOf(i + 1);
    const step = stepOf(plan, site, operators);
    nodes.push({
      site,
      step,
      chained: childrenOf(i + 1, parents),
      outputs: [outputOf(`${i + 1}`)],
      sideOutputs: new Map([['side', [outputOf(`${i + 1} side`)]]]),
    });
  }
  for (const each of operators) await each.open();
  const chain = new TimedChain({ nodes, element, chains, shouldPause });
  return {
    chain,
    seen,
    close: async () => {
      chain.close();
      for (const each of operators) await each.close();
    },
  };
}

function childrenOf(index: number, parents: readonly number[]): readonly number[] {
  return parents.flatMap((parent, i) => (parent === index ? [i + 1] : []));
}

function stepOf(
  { operator: plan, throwsAt }: TimedNodePlan,
  site: TimedNode['site'],
  operators: SubtaskOperator[],
): TimedStep {
  const check = (value: unknown) => checkNumber((value as Pair)[1], throwsAt);
  const keySelector = (value: unknown) => {
    check(value);
    return (value as Pair)[0];
  };
  switch (plan.kind) {
    case 'map':
      return {
        kind: 'map',
        fn: (value) => {
          check(value);
          const [key, n] = value as Pair;
          return [key, n + plan.add];
        },
      };
    case 'filter':
      return {
        kind: 'filter',
        fn: (value) => {
          check(value);
          return (value as Pair)[1] % plan.modulo !== 0;
        },
      };
    case 'flatMap': {
      const results = (value: unknown): Pair[] => {
        check(value);
        const [key, n] = value as Pair;
        return Array.from({ length: plan.times }, (_, i): Pair => [key, n + i]);
      };
      return { kind: 'flatMap', fn: plan.lazily ? (value) => new Set(results(value)) : results };
    }
    case 'sum': {
      const made = new ReduceOperator(
        { kind: 'reduce', keySelector, fn: aggregate('sum', 1), sumOf: 1 },
        freshContext(site),
      );
      operators.push(made);
      return { kind: 'reduce', apply: (value) => made.apply(value), keyed: () => made.parts(), sumOf: 1 };
    }
    case 'stamp': {
      const strategy = WatermarkStrategy.forBoundedOutOfOrderness<unknown>(plan.lateMs).withTimestampAssigner(
        (value, before) => {
          check(value);
          return (before ?? 0) + plan.addMs;
        },
      );
      return { kind: 'timed', operator: new TimestampsOperator(strategy as WatermarkStrategy<unknown>, site, 1) };
    }
    case 'timers': {
      const made = new KeyedProcessOperator(
        {
          keySelectors: [keySelector],
          create: () => ({
            open: undefined,
            close: undefined,
            elements: [
              (value, ctx) => {
                const [, n] = value as Pair;
                const state = ctx.getState<number>({ name: 'sum', defaultValue: 0 });
                state.update((state.value() as number) + n);
                if (n % 3 === 0) ctx.output({ id: 'side' } as never, value);
                const timeMs = ctx.timestamp() ?? 0;
                ctx.timerService().registerEventTimeTimer(timeMs - (timeMs % plan.everyMs) + plan.everyMs);
              },
            ],
            onTimer: (_timeMs, ctx, out) => {
              const state = ctx.getState<number>({ name: 'sum', defaultValue: 0 });
              out.collect([ctx.getCurrentKey(), state.value()]);
              state.clear();
            },
          }),
        },
        freshContext(site),
        () => undefined,
      );
      operators.push(made);
      return { kind: 'timed', operator: made };
    }
    case 'window': {
      const made = new WindowOperator(
        {
          kind: 'window',
          keySelector,
          windows: TumblingEventTimeWindows.of(plan.sizeMs),
          contents: { kind: 'reduce', fn: aggregate('sum', 1), sumOf: 1 },
          lateTag: 'side',
        },
        freshContext(site),
      );
      operators.push(made);
      return { kind: 'timed', operator: made };
    }
  }
}
