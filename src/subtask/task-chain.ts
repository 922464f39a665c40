import type { JobVertex } from '../contracts/job-graph.ts';
import type { TaskDeployment } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Chain, ChainFactory, ChainNode, ChainSpec } from './chain.ts';
import type { Element } from './time/element.ts';
import type { EventTimePlan } from './time/event-time-plan.ts';
import { TaskTime } from './time/task-time.ts';
import { TimedChain, type TimedNode } from './time/timed-chain.ts';

export interface TaskChainSpec extends Omit<ChainSpec, 'nodes'> {
  readonly vertex: JobVertex;
  readonly task: TaskDeployment;
  readonly nodes: readonly TimedNode[];
  readonly eventTime: EventTimePlan;
  readonly element: Element;
  readonly watermarkIntervalMs: number;
  readonly clock: Clock;
  readonly chains: ChainFactory;
  readonly wake: () => void;
}

/** A task's chain, with what goes with it where time matters. Its operators are open. */
export function createTaskChain(spec: TaskChainSpec): { readonly chain: Chain; readonly time: TaskTime | undefined } {
  const { nodes, shouldPause, room, blocked, eventTime, vertex, element, chains } = spec;
  const rest = { shouldPause, ...(room === undefined ? {} : { room }), ...(blocked === undefined ? {} : { blocked }) };
  if (!eventTime.vertices.has(vertex.id)) {
    // Without operators of time, as the vertex is none of its.
    return { chain: chains.create({ ...rest, nodes: nodes as readonly ChainNode[] }), time: undefined };
  }
  const chain = new TimedChain({ ...rest, nodes, element, chains });
  const time = new TaskTime({
    clock: spec.clock,
    chain,
    inputOf: spec.task.inputs.map(({ inputIndex }) => inputIndex),
    element,
    watermarkIntervalMs: spec.watermarkIntervalMs,
    makesWatermarks: vertex.operators.some(({ id }) => eventTime.assigners.has(id)),
    wake: spec.wake,
  });
  // Timers restored may have become due while the operators opened, with nobody there to hear of it.
  time.processingTimeDue();
  return { chain, time };
}
