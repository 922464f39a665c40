import type { Chain, ChainFactory, ChainNode, ChainSpec, ChainStep, ReceiverEnds, RecordOutput } from '../chain.ts';
import { present } from '../../kernel/assert.ts';
import type { OperatorSite } from '../operator-error.ts';
import { type Element, MAX_WATERMARK, NO_TIMESTAMP } from './element.ts';
import type { TimedOperator, TimeSignal } from './timed-operator.ts';

export type TimedStep = ChainStep | { readonly kind: 'timed'; readonly operator: TimedOperator };

/** An output on which time may travel too. */
export interface TimedOutput extends RecordOutput {
  signal?(signal: TimeSignal): void;
}

export interface TimedNode {
  readonly site: OperatorSite;
  readonly step: TimedStep;
  readonly chained: readonly number[];
  readonly outputs: readonly TimedOutput[];
  /** By the id of the side output. */
  readonly sideOutputs: ReadonlyMap<string, readonly TimedOutput[]>;
}

export interface TimedChainSpec extends Omit<ChainSpec, 'nodes'> {
  readonly nodes: readonly TimedNode[];
  readonly element: Element;
  /** Runs the stretches between operators of time; they need not know of it. */
  readonly chains: ChainFactory;
}

type Push = (record: unknown) => void;

const TIMELESS = { timestampMs: NO_TIMESTAMP };

interface Collecting {
  collect(record: unknown): void;
  readonly failure: unknown;
}

/**
 * A chain with operators that make or use time. What lies between them is cut into stretches that any
 * chain factory can run; this class carries the timestamps past them and takes watermarks through.
 *
 *   C1. A watermark leaves an operator after everything the operator emitted because of it or before it.
 *   C2. Operators see watermarks in the order of the chain: the followers of one that is still firing
 *       timers have not seen the watermark yet, though they see what the timers emit.
 *   C3. While it is paused, no record, watermark or barrier enters.
 */
export class TimedChain implements Chain {
  readonly collector: Collecting;
  private readonly pushes: Push[] = [];
  /** Downstream first: the order in which they must be resumed. */
  private readonly flatMaps: TimedFlatMap[] = [];
  private readonly stretches: Chain[] = [];
  /** The stretch that the chain begins with, if it begins with one. */
  private headChain: Chain | undefined;
  /** Signals that each node has still to deal with. */
  private readonly pending: TimeSignal[][];
  private readonly timed: { readonly index: number; readonly operator: TimedOperator }[] = [];
  /** Operators that have paused among their processing-time timers. */
  private firing: TimedOperator[] = [];

  constructor(private readonly spec: TimedChainSpec) {
    const { nodes } = spec;
    this.pending = nodes.map(() => []);
    const parents = nodes.map((_, i) => nodes.findIndex(({ chained }) => chained.includes(i)));
    const isPlain = (i: number) => {
      const { step } = nodes[i] as TimedNode;
      return step.kind === 'timed' ? step.operator.stamping !== undefined : step.kind !== 'flatMap';
    };
    // Backwards, so that each node finds its followers built.
    for (let i = nodes.length - 1; i >= 0; i--) {
      const parent = parents[i] as number;
      // Part of the stretch that begins further up.
      if (isPlain(i) && parent >= 0 && isPlain(parent)) continue;
      this.pushes[i] = this.build(i, isPlain);
    }
    this.collector = this.headChain?.collector ?? new HeadCollector(this.pushes[0] as Push);
  }

  process(record: unknown): void {
    (this.pushes[0] as Push)(record);
  }

  processRange(records: readonly unknown[], from: number, to: number): number {
    return this.processTimed(records, undefined, from, to);
  }

  /** As `processRange`, with each record's timestamp. */
  processTimed(records: readonly unknown[], timestamps: Float64Array | undefined, from: number, to: number): number {
    const { element } = this.spec;
    const head = this.pushes[0] as Push;
    const pauses = this.flatMaps.length > 0;
    let next = from;
    while (next < to) {
      element.timestampMs = timestamps === undefined ? NO_TIMESTAMP : (timestamps[next] as number);
      head(records[next++]);
      if ((pauses && this.flatMapPaused()) || this.spec.shouldPause()) break;
    }
    element.timestampMs = NO_TIMESTAMP;
    return next;
  }

  get keepsRecords(): boolean {
    const { step } = this.spec.nodes[0] as TimedNode;
    return step.kind === 'timed' && step.operator.keepsRecords;
  }

  receiver(ends: ReceiverEnds): (record: unknown) => void {
    return this.timedReceiver(ends, { input: 0, from: undefined });
  }

  /** `from`: where the producer says when its record happened. `input`: of the head that the record is for. */
  timedReceiver(
    { failed, full }: ReceiverEnds,
    { input, from = TIMELESS }: { readonly input: number; readonly from: { readonly timestampMs: number } | undefined },
  ): (record: unknown) => void {
    const head = this.pushes[0] as Push;
    const { element, blocked } = this.spec;
    if (this.headChain !== undefined && this.flatMaps.length === 0) {
      return this.headChain.receiver({ failed, full }, { element, input, from });
    }
    const pauses = this.flatMaps.length > 0;
    return (record) => {
      element.input = input;
      element.timestampMs = from.timestampMs;
      try {
        head(record);
      } catch (error) {
        failed(error);
        return;
      }
      element.timestampMs = NO_TIMESTAMP;
      // A record brings neither signals nor timers that are due: of what makes a chain pause only flatMaps are left.
      if ((pauses && this.flatMapPaused()) || blocked?.() === true) full();
    };
  }

  /** Event time has come to the head of the chain. */
  signal(signal: TimeSignal): void {
    (this.pending[0] as TimeSignal[]).push(signal);
    this.walk();
  }

  /** No record follows: event time is at its end. */
  end(): void {
    this.signal(MAX_WATERMARK);
  }

  /** Asks those that make watermarks. */
  periodic(nowMs: number): void {
    for (const { index, operator } of this.timed) {
      for (const signal of operator.periodic?.(nowMs) ?? []) this.deliver(index, signal);
    }
    this.walk();
  }

  /** Fires the processing-time timers that are due. */
  fireProcessingTime(): void {
    this.firing = this.timed.map(({ operator }) => operator);
    this.goOnFiring();
  }

  get paused(): boolean {
    return this.flatMapPaused() || this.firing.length > 0 || this.pending.some((signals) => signals.length > 0);
  }

  resume(): void {
    for (const flatMap of this.flatMaps) {
      flatMap.resume();
      // Those upstream would push into this one, which still has elements of its own to emit.
      if (flatMap.paused) return;
    }
    this.goOnFiring();
    if (this.firing.length === 0 && !this.flatMapPaused()) this.walk();
  }

  close(): void {
    this.firing = [];
    for (const signals of this.pending) signals.length = 0;
    for (const flatMap of this.flatMaps) flatMap.close();
    for (const stretch of this.stretches) stretch.close();
  }

  private goOnFiring(): void {
    for (let next = this.firing[0]; next !== undefined; next = this.firing[0]) {
      if (next.fireProcessingTime?.() === false) return;
      this.firing.shift();
    }
  }

  /** Takes waiting signals as far as they get. One pass is enough: signals only go to later nodes. C2 */
  private walk(): void {
    for (const [index, signals] of this.pending.entries()) {
      const { step } = this.spec.nodes[index] as TimedNode;
      while (signals.length > 0) {
        if (this.flatMapPaused()) return;
        const signal = signals[0] as TimeSignal;
        if (step.kind === 'timed') {
          if (signal !== 'idle' && !step.operator.advance(signal)) return;
          // Whatever an operator makes of earlier timestamps, the end of the data is the end for it too.
          if (step.operator.makesWatermarks && signal !== MAX_WATERMARK) {
            signals.shift();
            continue;
          }
        }
        if (this.flatMapPaused()) {
          // What the last timers emitted must leave before the watermark does. C1
          return;
        }
        signals.shift();
        this.deliver(index, signal);
      }
    }
  }

  /** Hands a node's signal to its followers. */
  private deliver(index: number, signal: TimeSignal): void {
    const node = this.spec.nodes[index] as TimedNode;
    for (const follower of node.chained) (this.pending[follower] as TimeSignal[]).push(signal);
    for (const output of node.outputs) output.signal?.(signal);
    for (const outputs of node.sideOutputs.values()) for (const output of outputs) output.signal?.(signal);
  }

  private flatMapPaused(): boolean {
    for (const flatMap of this.flatMaps) if (flatMap.paused) return true;
    return false;
  }

  private build(index: number, isPlain: (i: number) => boolean): Push {
    const node = this.spec.nodes[index] as TimedNode;
    if (node.step.kind === 'timed' && node.step.operator.stamping === undefined)
      return this.buildTimed(index, node, node.step.operator);
    if (node.step.kind === 'flatMap') return this.buildFlatMap(node, node.step.fn);
    return this.buildStretch(index, isPlain);
  }

  private buildTimed(index: number, node: TimedNode, operator: TimedOperator): Push {
    const emit = fanOut(this.targets(node));
    operator.connect({
      emit,
      emitSide: (tag, record) => {
        for (const output of node.sideOutputs.get(tag) ?? []) output.emit(record);
      },
      element: this.spec.element,
      shouldPause: () => this.flatMapPaused() || this.spec.shouldPause(),
    });
    this.timed.push({ index, operator });
    this.timed.sort((a, b) => a.index - b.index);
    if (operator.window === undefined) return (record) => operator.process(record);
    const chain = this.spec.chains.create({
      ...this.plainSpec(),
      nodes: [{ site: node.site, step: { kind: 'window', window: operator.window }, chained: [], outputs: [] }],
      opaque: operator.emitsLate === true,
    });
    this.stretches.push(chain);
    if (index === 0) this.headChain = chain;
    return (record) => chain.process(record);
  }

  private buildFlatMap(node: TimedNode, fn: (value: unknown) => Iterable<unknown>): Push {
    const downstream = [...this.flatMaps];
    const shouldPause = (elements?: number) =>
      this.spec.shouldPause(elements) || downstream.some((follower) => follower.paused);
    const flatMap = new TimedFlatMap(this.spec.element, fanOut(this.targets(node)), (wrapped, output) =>
      this.spec.chains.create({
        ...this.plainSpec(),
        nodes: [{ site: node.site, step: { kind: 'flatMap', fn: wrapped(fn) }, chained: [], outputs: [output] }],
        shouldPause,
      }),
    );
    this.flatMaps.push(flatMap);
    return (record) => flatMap.process(record);
  }

  /** One chain of all plain nodes that hang together from `head` on. They never pause. */
  private buildStretch(head: number, isPlain: (i: number) => boolean): Push {
    const members: number[] = [head];
    for (let at = 0; at < members.length; at++) {
      const { chained } = this.spec.nodes[members[at] as number] as TimedNode;
      members.push(...chained.filter(isPlain));
    }
    members.sort((a, b) => a - b);
    const nodes = members.map((index): ChainNode => {
      const { site, step, chained, outputs } = this.spec.nodes[index] as TimedNode;
      const beyond = chained.filter((follower) => !isPlain(follower)).map((follower) => this.pushes[follower] as Push);
      return {
        site,
        step: step.kind === 'timed' ? this.stamp(index, step.operator) : step,
        chained: chained.filter(isPlain).map((follower) => members.indexOf(follower)),
        outputs: [...beyond.map((emit) => ({ emit })), ...outputs],
      };
    });
    const opaque = nodes.some(({ outputs }) => outputs.some(({ line }) => line === undefined));
    const chain = this.spec.chains.create({ ...this.plainSpec(), nodes, opaque });
    this.stretches.push(chain);
    if (head === 0) this.headChain = chain;
    return (record) => chain.process(record);
  }

  private stamp(index: number, operator: TimedOperator): ChainStep {
    this.timed.push({ index, operator });
    this.timed.sort((a, b) => a.index - b.index);
    return {
      kind: 'stamp',
      stamp: present(operator.stamping, 'of an operator that stamps').call(operator, this.spec.element),
    };
  }

  private plainSpec(): ChainSpec {
    const { element: _, chains: __, ...rest } = this.spec;
    return { ...rest, nodes: [] };
  }

  private targets(node: TimedNode): Push[] {
    return [
      ...node.chained.map((follower) => this.pushes[follower] as Push),
      ...node.outputs.map((output) => (record: unknown) => output.emit(record)),
    ];
  }
}

/** A flatMap whose results carry the timestamp of the record they come from, however late they are emitted. */
class TimedFlatMap {
  private readonly chain: Chain;
  /** Of the records that wait, in their order. */
  private readonly waiting: number[] = [];
  private currentMs = NO_TIMESTAMP;

  constructor(
    private readonly element: Element,
    emit: Push,
    create: (
      wrapped: (fn: (value: unknown) => Iterable<unknown>) => (value: unknown) => Iterable<unknown>,
      output: RecordOutput,
    ) => Chain,
  ) {
    const output = {
      emit: (record: unknown) => {
        element.timestampMs = this.currentMs;
        emit(record);
      },
    };
    this.chain = create(
      (fn) => (value) => {
        // Waiting records are begun in their order; nothing waits when one comes directly.
        this.currentMs = this.waiting.length > 0 ? (this.waiting.shift() as number) : this.element.timestampMs;
        return fn(value);
      },
      output,
    );
  }

  get paused(): boolean {
    return this.chain.paused;
  }

  process(record: unknown): void {
    const { timestampMs } = this.element;
    if (this.chain.paused) this.waiting.push(timestampMs);
    this.chain.process(record);
    this.element.timestampMs = timestampMs;
  }

  resume(): void {
    this.chain.resume();
    this.element.timestampMs = NO_TIMESTAMP;
  }

  close(): void {
    this.chain.close();
    this.waiting.length = 0;
  }
}

class HeadCollector implements Collecting {
  failure: unknown;

  constructor(private readonly head: Push) {}

  collect(record: unknown): void {
    try {
      this.head(record);
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }
}

function fanOut(targets: readonly Push[]): Push {
  const [first, second] = targets;
  if (first === undefined) return () => undefined;
  if (second === undefined) return first;
  return (record) => {
    for (const target of targets) target(record);
  };
}
