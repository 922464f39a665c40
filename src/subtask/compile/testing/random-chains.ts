import fc from 'fast-check';
import type { ChainNode, ChainStep } from '../../chain.ts';

/** An operator as data, so that a counterexample can be read. */
export type OperatorPlan =
  | { readonly kind: 'source' }
  | { readonly kind: 'map'; readonly add: number; readonly wrap: boolean }
  | { readonly kind: 'filter'; readonly modulo: number }
  | { readonly kind: 'flatMap'; readonly times: number; readonly as: 'array' | 'generator' | 'set' }
  | { readonly kind: 'reduce'; readonly modulo: number }
  | { readonly kind: 'write' };

export interface NodePlan {
  readonly operator: OperatorPlan;
  /** Chooses the parent among the earlier nodes that can have followers. */
  readonly parent: number;
  readonly outputs: number;
  /** Records whose number leaves this remainder make the operator throw. */
  readonly throwsAt: number | undefined;
}

const operator: fc.Arbitrary<OperatorPlan> = fc.oneof(
  fc.record({ kind: fc.constant('map' as const), add: fc.nat(5), wrap: fc.boolean() }),
  fc.record({ kind: fc.constant('filter' as const), modulo: fc.integer({ min: 2, max: 4 }) }),
  fc.record({
    kind: fc.constant('flatMap' as const),
    times: fc.nat(6),
    as: fc.constantFrom('array' as const, 'generator' as const, 'set' as const),
  }),
  fc.record({ kind: fc.constant('reduce' as const), modulo: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ kind: fc.constant('write' as const) }),
  fc.record({ kind: fc.constant('source' as const) }),
);

export function chainPlans({ throwing, linear }: { readonly throwing: boolean; readonly linear: boolean }) {
  const node = fc.record({
    operator,
    parent: linear ? fc.constant(Number.MAX_SAFE_INTEGER) : fc.nat(),
    outputs: fc.nat(2),
    throwsAt: throwing ? fc.option(fc.nat(40), { nil: undefined, freq: 2 }) : fc.constant(undefined),
  });
  return fc.array(node, { minLength: 1, maxLength: 9 });
}

/** Records of several types, told apart by the number in them. */
export const records = fc.array(
  fc.oneof(
    fc.nat(1_000),
    fc.nat(1_000).map((n) => ({ n })),
    fc.nat(1_000).map((n) => `${n}`),
  ),
  { maxLength: 40 },
);

export interface RandomChain {
  readonly nodes: readonly ChainNode[];
  /** What came out, by output and by writer, in order. */
  readonly seen: ReadonlyMap<string, readonly unknown[]>;
}

export function buildRandomChain(plans: readonly NodePlan[], room: Room = new Room()): RandomChain {
  const seen = new Map<string, unknown[]>();
  const collect = (name: string) => {
    const into: unknown[] = [];
    seen.set(name, into);
    return (value: unknown) => {
      into.push(value);
      room.used();
    };
  };
  const chained = plans.map((): number[] => []);
  plans.forEach((plan, i) => {
    const open = plans.slice(0, i).flatMap((earlier, at) => (earlier.operator.kind === 'write' ? [] : [at]));
    // A chain that begins with a write has nowhere to go on: its later nodes are never reached.
    if (open.length > 0) chained[open[Math.min(plan.parent, Number.MAX_SAFE_INTEGER) % open.length] as number]?.push(i);
  });
  if (plans.every(({ parent }) => parent === Number.MAX_SAFE_INTEGER)) makeLinear(plans, chained);
  const nodes = plans.map((plan, i): ChainNode => {
    const isWrite = plan.operator.kind === 'write';
    return {
      site: { name: `op${i}`, position: i, chainLength: plans.length, taskName: 'task' },
      step: stepOf(plan, isWrite ? collect(`write ${i}`) : undefined, i % 2 === 0, room),
      chained: isWrite ? [] : (chained[i] ?? []),
      outputs: isWrite ? [] : Array.from({ length: plan.outputs }, (_, o) => ({ emit: collect(`out ${i}.${o}`) })),
    };
  });
  return { nodes, seen };
}

function makeLinear(plans: readonly NodePlan[], chained: number[][]): void {
  let last: number | undefined;
  plans.forEach(({ operator: { kind } }, i) => {
    chained[i] = [];
    if (last !== undefined) chained[last]?.push(i);
    if (kind !== 'write') last = i;
  });
}

/** Outputs that are full after every few records, until they are drained. */
export class Room {
  readonly state = { full: 0 };
  private count = 0;

  constructor(private readonly every = Number.POSITIVE_INFINITY) {}

  used(): void {
    if (++this.count % this.every === 0) this.state.full = 1;
  }

  drain(): void {
    this.state.full = 0;
  }
}

function numberOf(value: unknown): number {
  if (typeof value === 'number') return value;
  return typeof value === 'string' ? Number.parseInt(value, 10) : (value as { n: number }).n;
}

function stepOf(
  { operator: plan, throwsAt }: NodePlan,
  write: ((value: unknown) => void) | undefined,
  direct: boolean,
  room: Room,
): ChainStep {
  const check = (value: unknown) => {
    if (throwsAt !== undefined && numberOf(value) % 41 === throwsAt) throw new RangeError(`not ${throwsAt}`);
  };
  switch (plan.kind) {
    case 'source':
      return { kind: 'source' };
    case 'map':
      return {
        kind: 'map',
        fn: (value) => {
          check(value);
          const n = numberOf(value) + plan.add;
          return plan.wrap ? { n } : n;
        },
      };
    case 'filter':
      return {
        kind: 'filter',
        fn: (value) => {
          check(value);
          return numberOf(value) % plan.modulo !== 0;
        },
      };
    case 'flatMap':
      return { kind: 'flatMap', fn: flatMapOf(plan, check) };
    case 'reduce': {
      const sums = new Map<number, number>();
      return {
        kind: 'reduce',
        apply: (value) => {
          const key = numberOf(value) % plan.modulo;
          const sum = (sums.get(key) ?? 0) + numberOf(value);
          sums.set(key, sum);
          return sum;
        },
      };
    }
    case 'write': {
      const push = write as (value: unknown) => void;
      const writer = { write: push, ready: () => (room.state.full > 0 ? Promise.resolve() : undefined) };
      return { kind: 'write', write: push, ...(direct ? { writer: () => writer } : {}) };
    }
  }
}

function flatMapOf(
  { times, as }: Extract<OperatorPlan, { kind: 'flatMap' }>,
  check: (value: unknown) => void,
): (value: unknown) => Iterable<unknown> {
  const elements = (value: unknown) => Array.from({ length: times }, (_, i) => numberOf(value) * 10 + i);
  switch (as) {
    case 'array':
      return (value) => {
        check(value);
        return elements(value);
      };
    case 'set':
      return (value) => {
        check(value);
        return new Set(elements(value));
      };
    case 'generator':
      return function* (value) {
        for (const element of elements(value)) {
          yield element;
          check(value);
        }
      };
  }
}
