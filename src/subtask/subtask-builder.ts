import type { Sink, TwoPhaseCommitSink } from '../api/sink.ts';
import type { RuntimeContext } from '../api/functions.ts';
import type { KeyedCoProcessFunction, KeyedProcessFunction } from '../api/process-function.ts';
import type { CommitContext } from '../api/sink.ts';
import type { WatermarkStrategy } from '../api/watermark-strategy.ts';
import type { JobVertex, OperatorDescriptor } from '../contracts/job-graph.ts';
import { keyGroupRange } from '../contracts/key-groups.ts';
import type { SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import { unreachable } from '../kernel/assert.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { OperatorId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { UserProgram } from '../program/user-program.ts';
import type { OperatorSite } from './operator-error.ts';
import type { OperatorContext, SubtaskOperator } from './operators/operator.ts';
import { ReduceOperator } from './operators/reduce-operator.ts';
import { SinkOperator } from './operators/sink-operator.ts';
import { SourceOperator } from './operators/source-operator.ts';
import { TwoPhaseSinkOperator } from './operators/two-phase-sink-operator.ts';
import type { StateBackendFactory } from './state-backend-factory.ts';
import { KeyedProcessOperator, type ProcessFunctionCalls } from './operators/keyed-process-operator.ts';
import { WindowOperator } from './operators/window-operator.ts';
import { TimestampsOperator } from './operators/timestamps-operator.ts';
import { siteOf, taskNameOf } from './task-lookup.ts';
import type { EventTimePlan } from './time/event-time-plan.ts';
import type { TimedNode, TimedOutput, TimedStep } from './time/timed-chain.ts';

/** A subtask's operators, before they are opened. */
export interface BuiltChain {
  readonly nodes: readonly TimedNode[];
  /** Those with a life, in topological order. */
  readonly operators: readonly SubtaskOperator[];
  readonly source: SourceOperator | undefined;
  readonly sinks: readonly SubtaskOperator[];
}

export interface BuildRequest {
  readonly deployment: SlotDeployment;
  readonly task: TaskDeployment;
  readonly vertex: JobVertex;
  readonly program: UserProgram;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly stateBackends: StateBackendFactory;
  readonly signal: AbortSignal;
  readonly fail: (error: unknown) => void;
  /** The edges that leave the vertex from an operator. */
  readonly outputsOf: (
    operatorId: OperatorId,
    site: OperatorSite,
  ) => { readonly main: readonly TimedOutput[]; readonly side: ReadonlyMap<string, readonly TimedOutput[]> };
  readonly eventTime: EventTimePlan;
  readonly watermarkIntervalMs: number;
  /** Processing-time timers are due. */
  readonly onTimersDue: () => void;
}

/** Joins the graph's descriptors with the program's functions. */
export function buildChain(request: BuildRequest): BuiltChain {
  const { vertex, task, outputsOf } = request;
  const operators: SubtaskOperator[] = [];
  const sinks: SubtaskOperator[] = [];
  let source: SourceOperator | undefined;
  const nodes = vertex.operators.map((descriptor): TimedNode => {
    const context = contextFor(request, descriptor);
    const { step, operator } = buildOperator(request, descriptor, context);
    if (operator !== undefined) operators.push(operator);
    if (operator instanceof SourceOperator) source = operator;
    if (operator?.ready !== undefined) sinks.push(operator);
    const outputs = outputsOf(descriptor.id, context.site);
    return {
      site: context.site,
      step,
      chained: vertex.operators.flatMap(({ inputs }, i) => (inputs.includes(descriptor.id) ? [i] : [])),
      outputs: outputs.main,
      sideOutputs: outputs.side,
    };
  });
  if (source === undefined && task.inputs.length === 0) {
    throw new MillraceError(
      'INVALID_ARGUMENT',
      `task ${taskNameOf(vertex, task.subtaskIndex)} has neither a source nor inputs`,
    );
  }
  return { nodes, operators, source, sinks };
}

interface BuiltOperator {
  readonly step: TimedStep;
  readonly operator: SubtaskOperator | undefined;
}

function buildOperator(request: BuildRequest, descriptor: OperatorDescriptor, context: OperatorContext): BuiltOperator {
  const definition = request.program.operators.get(descriptor.id)?.definition;
  if (definition === undefined || definition.kind !== descriptor.kind) {
    throw new MillraceError(
      'PROGRAM',
      `the program has no ${descriptor.kind} operator "${descriptor.name}" (${descriptor.id})`,
      { hint: 'Build the same graph on every run of main: no randomness, no clock, no environment.' },
    );
  }
  switch (definition.kind) {
    case 'source': {
      const operator = new SourceOperator(definition.source, descriptor.splits ?? [], context);
      const { watermarks } = definition;
      return {
        step: watermarks === undefined ? { kind: 'source' } : timestamps(request, watermarks, context),
        operator,
      };
    }
    case 'map':
      return { step: { kind: 'map', fn: definition.fn }, operator: undefined };
    case 'flatMap':
      return { step: { kind: 'flatMap', fn: definition.fn }, operator: undefined };
    case 'filter':
      return { step: { kind: 'filter', fn: definition.fn }, operator: undefined };
    case 'reduce': {
      const operator = new ReduceOperator(definition, context);
      return {
        step: {
          kind: 'reduce',
          apply: (value) => operator.apply(value),
          keyed: () => operator.parts(),
          sumOf: definition.sumOf,
        },
        operator,
      };
    }
    case 'timestamps':
      return { step: timestamps(request, definition.watermarks, context), operator: undefined };
    case 'process': {
      const { keySelector, create } = definition;
      return keyedProcess(request, context, [keySelector], () => {
        const fn = create();
        return { ...lifeOf(fn), elements: [(value, ctx, out) => fn.processElement(value, ctx, out)] };
      });
    }
    case 'coProcess': {
      const { keySelectors, create } = definition;
      return keyedProcess(request, context, keySelectors, () => {
        const fn = create();
        return {
          ...lifeOf(fn),
          elements: [
            (value, ctx, out) => fn.processElement1(value, ctx, out),
            (value, ctx, out) => fn.processElement2(value, ctx, out),
          ],
        };
      });
    }
    case 'window': {
      const operator = new WindowOperator(definition, context);
      return { step: { kind: 'timed', operator }, operator };
    }
    case 'sink': {
      if (isTwoPhase(definition.sink)) {
        const operator = new TwoPhaseSinkOperator(definition.sink, context);
        return { step: { kind: 'write', write: (value) => operator.write(value) }, operator };
      }
      const operator = new SinkOperator(definition.sink, context);
      return {
        step: { kind: 'write', write: (value) => operator.write(value), writer: () => operator.openWriter() },
        operator,
      };
    }
    default:
      return unreachable(definition);
  }
}

/** Timestamps that nobody looks at are not read. */
function timestamps(
  request: BuildRequest,
  strategy: WatermarkStrategy<unknown>,
  { site, scope }: OperatorContext,
): TimedStep {
  if (!request.eventTime.assigners.has(scope.operatorId)) return { kind: 'map', fn: (value) => value };
  return { kind: 'timed', operator: new TimestampsOperator(strategy, site, request.watermarkIntervalMs) };
}

function keyedProcess(
  request: BuildRequest,
  context: OperatorContext,
  keySelectors: readonly ((value: unknown) => unknown)[],
  create: () => ProcessFunctionCalls,
): BuiltOperator {
  const operator = new KeyedProcessOperator({ keySelectors, create }, context, request.onTimersDue);
  return { step: { kind: 'timed', operator }, operator };
}

/** Methods as calls on their object: what the author wrote may use `this`. */
function lifeOf(
  fn: KeyedProcessFunction<unknown, unknown, unknown> | KeyedCoProcessFunction<unknown, unknown, unknown, unknown>,
): Omit<ProcessFunctionCalls, 'elements'> {
  return {
    fn,
    open: (runtime) => fn.open?.(runtime),
    onTimer: fn.onTimer === undefined ? undefined : (timeMs, ctx, out) => fn.onTimer?.(timeMs, ctx, out),
    close: () => fn.close?.(),
  };
}

function isTwoPhase(
  sink: Sink<unknown> | TwoPhaseCommitSink<unknown, unknown>,
): sink is TwoPhaseCommitSink<unknown, unknown> {
  return sink.twoPhaseCommit === true;
}

function contextFor(request: BuildRequest, descriptor: OperatorDescriptor): OperatorContext {
  const { deployment, task, vertex } = request;
  const { parallelism, maxParallelism } = vertex;
  const { state } = deployment.graph.config;
  const { subtaskIndex, attemptId } = task;
  const runtime: RuntimeContext & CommitContext = Object.freeze({
    jobId: deployment.jobId,
    jobName: deployment.graph.name,
    taskName: taskNameOf(vertex, subtaskIndex),
    subtaskIndex,
    parallelism,
    maxParallelism,
    attemptNumber: task.attemptNumber,
    deployment: deployment.deployment,
    signal: request.signal,
  });
  return {
    clock: request.clock,
    random: request.random,
    log: request.log,
    runtime,
    site: siteOf(vertex, subtaskIndex, descriptor.id),
    scope: {
      jobId: deployment.jobId,
      deployment: deployment.deployment,
      operatorId: descriptor.id,
      attemptId,
      subtaskIndex,
    },
    range: keyGroupRange(maxParallelism, parallelism, subtaskIndex),
    maxParallelism,
    stateBackends: state === undefined ? request.stateBackends : request.stateBackends.configured(state),
    restore:
      task.restore === undefined || task.restore.newOperators?.includes(descriptor.id) === true
        ? undefined
        : {
            checkpointId: task.restore.checkpointId,
            snapshot: mergeSnapshots(task.restore.operators.filter(({ operatorId }) => operatorId === descriptor.id)),
          },
    signal: request.signal,
    fail: request.fail,
  };
}

/** One operator's pieces, should they come in several entries. */
function mergeSnapshots(
  snapshots: readonly NonNullable<TaskDeployment['restore']>['operators'][number][],
): NonNullable<TaskDeployment['restore']>['operators'][number] | undefined {
  const [first] = snapshots;
  if (first === undefined) return undefined;
  return {
    operatorId: first.operatorId,
    keyed: snapshots.flatMap(({ keyed }) => keyed),
    operator: snapshots.flatMap(({ operator }) => operator),
  };
}
