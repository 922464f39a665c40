import { unreachable } from '../kernel/assert.ts';
import type {
  Chain,
  ChainCollector,
  ChainFactory,
  ChainNode,
  ChainSpec,
  ReceiverEnds,
  ReceiverTime,
  Stamping,
} from './chain.ts';
import { asyncFunctionError, type OperatorSite, userCodeError } from './operator-error.ts';
import { PausableFlatMap } from './pausable-flat-map.ts';

type Push = (record: unknown) => void;

/** Interprets a chain by one call per operator and record. The oracle for any faster way. */
export const pushChainFactory: ChainFactory = { create: (spec) => new PushChain(spec) };

class PushChain implements Chain {
  readonly collector: ChainCollector;
  private readonly head: Push;
  /** In the order in which they must be resumed: the furthest downstream first. */
  private readonly flatMaps: PausableFlatMap[] = [];

  constructor(private readonly spec: ChainSpec) {
    const pushes: Push[] = [];
    // Backwards, so that each node finds its followers built.
    for (let i = spec.nodes.length - 1; i >= 0; i--) {
      const node = spec.nodes[i] as ChainNode;
      pushes[i] = this.build(node, this.downstream(node, pushes));
    }
    this.head = pushes[0] as Push;
    this.collector = new PushCollector(this.head);
  }

  process(record: unknown): void {
    this.head(record);
  }

  processRange(records: readonly unknown[], from: number, to: number): number {
    for (let i = from; i < to; ) {
      this.head(records[i++]);
      if (this.paused || this.spec.shouldPause()) return i;
    }
    return to;
  }

  get keepsRecords(): boolean {
    return false;
  }

  receiver({ failed, full }: ReceiverEnds, time?: ReceiverTime): (record: unknown) => void {
    const { head, spec } = this;
    return (record) => {
      if (time !== undefined) {
        time.element.input = time.input;
        time.element.timestampMs = time.from.timestampMs;
      }
      try {
        head(record);
      } catch (error) {
        failed(error);
        return;
      }
      if (this.paused || spec.blocked?.() === true) full();
    };
  }

  get paused(): boolean {
    for (const flatMap of this.flatMaps) if (flatMap.paused) return true;
    return false;
  }

  resume(): void {
    for (const flatMap of this.flatMaps) {
      flatMap.resume();
      // Those upstream would push into this one, which still has elements of its own to emit.
      if (flatMap.paused) return;
    }
  }

  close(): void {
    for (const flatMap of this.flatMaps) flatMap.close();
  }

  private downstream(node: ChainNode, pushes: readonly Push[]): Push {
    const targets: Push[] = [
      ...node.chained.map((i) => pushes[i] as Push),
      ...node.outputs.map((output) => (record: unknown) => output.emit(record)),
    ];
    const [first, second] = targets;
    if (first === undefined) return () => undefined;
    if (second === undefined) return first;
    if (targets.length === 2) {
      return (record) => {
        first(record);
        second(record);
      };
    }
    return (record) => {
      for (const target of targets) target(record);
    };
  }

  private build({ site, step }: ChainNode, emit: Push): Push {
    switch (step.kind) {
      case 'source':
        return emit;
      case 'map':
        return mapPush(site, step.fn, emit);
      case 'filter':
        return filterPush(site, step.fn, emit);
      case 'flatMap': {
        // Built backwards: those already there include all that this one can push into.
        const downstream = [...this.flatMaps];
        const downstreamPaused = () => downstream.some((follower) => follower.paused);
        const shouldPause =
          downstream.length === 0 ? this.spec.shouldPause : () => this.spec.shouldPause() || downstreamPaused();
        const flatMap = new PausableFlatMap(site, step.fn, emit, shouldPause);
        this.flatMaps.push(flatMap);
        return (record) => flatMap.process(record);
      }
      case 'reduce': {
        const { apply } = step;
        return (record) => emit(apply(record));
      }
      case 'stamp':
        return stampPush(site, step.stamp, emit);
      case 'window':
        return (record) => step.window.process(record);
      case 'write':
        return step.write;
      default:
        return unreachable(step);
    }
  }
}

class PushCollector implements ChainCollector {
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

/** `emit` stays outside the `try`: an error downstream belongs to the operator there. */
function mapPush(site: OperatorSite, fn: (value: unknown) => unknown, emit: Push): Push {
  return (record) => {
    let result: unknown;
    try {
      result = fn(record);
    } catch (error) {
      throw userCodeError(site, error, record);
    }
    // A promise would travel on as a record and fail far from its cause.
    if (result instanceof Promise) throw asyncFunctionError(site, result, record);
    emit(result);
  };
}

function stampPush(site: OperatorSite, stamp: Stamping, emit: Push): Push {
  const { assign, element } = stamp;
  return (record) => {
    const before = element.timestampMs;
    let given: unknown = before;
    if (assign !== undefined) {
      try {
        given = assign(record, Number.isNaN(before) ? undefined : before);
      } catch (error) {
        throw userCodeError(site, error, record);
      }
    }
    element.timestampMs = stamp.saw(given, record);
    emit(record);
    element.timestampMs = before;
  };
}

function filterPush(site: OperatorSite, fn: (value: unknown) => boolean, emit: Push): Push {
  return (record) => {
    let kept: unknown;
    try {
      kept = fn(record);
    } catch (error) {
      throw userCodeError(site, error, record);
    }
    if (kept instanceof Promise) throw asyncFunctionError(site, kept, record);
    if (kept) emit(record);
  };
}
