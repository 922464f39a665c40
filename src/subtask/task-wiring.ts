import type { JobEdge, JobVertex } from '../contracts/job-graph.ts';
import type { InputChannelDescriptor, SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import type { DataExchange } from '../exchange/data-exchange.ts';
import type { RecordCodec } from '../exchange/record-codec.ts';
import { RECORD_CODECS } from '../exchange/record-codecs.ts';
import type { Subpartition } from '../exchange/subpartition.ts';
import { present } from '../kernel/assert.ts';
import { CorruptError, isMillraceError } from '../kernel/errors.ts';
import type { OperatorId } from '../kernel/ids.ts';
import type { Random } from '../kernel/random.ts';
import type { UserProgram } from '../program/user-program.ts';
import { BatchReader } from './batch-reader.ts';
import type { InputGate } from './input-gate.ts';
import type { IoMeter } from './io-meter.ts';
import type { OperatorSite } from './operator-error.ts';
import { mayOvertakeOn } from './in-flight.ts';
import { type BatchLimits, OutputEdge, type OutputEdgeSpec } from './output-edge.ts';
import { createPartitioner } from './partitioner.ts';
import { edgeOf, taskNameOf, vertexOf } from './task-lookup.ts';
import type { TaskOutputs } from './task-outputs.ts';
import type { Element } from './time/element.ts';
import { timedCodec } from './time/timed-codec.ts';

export interface TaskWiringSpec {
  readonly exchange: DataExchange;
  readonly codec: RecordCodec;
  readonly limits: BatchLimits;
  readonly deployment: SlotDeployment;
  readonly task: TaskDeployment;
  readonly outputs: TaskOutputs;
  readonly meter: IoMeter;
  readonly random: Random;
}

/** Where an operator's results go. */
export interface OperatorOutputs {
  readonly main: readonly OutputEdge[];
  /** By the id of the side output. */
  readonly side: ReadonlyMap<string, readonly OutputEdge[]>;
}

/** Joins one task to the exchange: its subpartitions, its output edges, its input channels. */
export class TaskWiring {
  private readonly edges: readonly { readonly edge: JobEdge; readonly subpartitions: readonly Subpartition[] }[];

  /** Makes the outputs, so that consumers find them from now on. */
  constructor(private readonly spec: TaskWiringSpec) {
    const { deployment, task } = spec;
    this.edges = task.outputs.map(({ edgeId, subpartitions }) => ({
      edge: edgeOf(deployment, edgeId),
      subpartitions: Array.from({ length: subpartitions }, (_, subpartition) => this.create(edgeId, subpartition)),
    }));
  }

  /** The edges that leave the task from one operator. Called once for each operator. */
  connectOutputs(
    operatorId: OperatorId,
    site: OperatorSite,
    program: UserProgram,
    time: { readonly edges: ReadonlySet<string>; readonly element: Element },
  ): OperatorOutputs {
    const { deployment, task, limits, meter, outputs } = this.spec;
    const leaving = this.edges.filter(({ edge }) => edge.sourceOperator === operatorId);
    const main: OutputEdge[] = [];
    const side = new Map<string, OutputEdge[]>();
    for (const { edge, subpartitions } of leaving) {
      const eventTime = time.edges.has(edge.id);
      const codec = eventTime ? timedCodec(this.spec.codec, time.element) : this.spec.codec;
      const target = present(
        deployment.graph.vertices.find(({ id }) => id === edge.target),
        'the target of an edge',
      );
      const select = createPartitioner({
        partitioner: edge.partitioner,
        subpartitions: subpartitions.length,
        subtaskIndex: task.subtaskIndex,
        maxParallelism: target.maxParallelism,
        parallelism: target.parallelism,
        random: this.spec.random,
        keySelector: program.keySelectors.get(edge.id),
      });
      const local = subpartitions.map((_, subpartition) => this.isLocal(edge.id, subpartition));
      const onBuffered = () => outputs.onBuffered();
      const output = new OutputEdge({
        edgeId: edge.id,
        site,
        select,
        subpartitions,
        codec,
        local,
        limits,
        meter,
        element: eventTime ? time.element : undefined,
        onBuffered,
        ...this.inFlightOf(edge, target),
      });
      outputs.add(output);
      if (edge.sideOutput === undefined) main.push(output);
      else side.set(edge.sideOutput, [...(side.get(edge.sideOutput) ?? []), output]);
    }
    return { main, side };
  }

  /** Where barriers may overtake, and how what they pass is named. */
  private inFlightOf(edge: JobEdge, { parallelism, maxParallelism }: JobVertex): Pick<OutputEdgeSpec, 'inFlight'> {
    const { deployment, task } = this.spec;
    const { unaligned, mode } = deployment.graph.config.checkpointing;
    if (!unaligned || mode !== 'EXACTLY_ONCE' || !mayOvertakeOn(edge.partitioner)) return {};
    const firstConsumer = task.outputs.find(({ edgeId }) => edgeId === edge.id)?.firstConsumer ?? 0;
    const { id: edgeId, partitioner } = edge;
    return {
      inFlight: {
        edge: { edgeId, partitioner, parallelism, maxParallelism },
        producer: task.subtaskIndex,
        firstConsumer,
      },
    };
  }

  /** Rejects when a producer cannot be reached, refuses, or does not appear in time. */
  async openInputs(gate: InputGate, onLost: (error: Error) => void, signal: AbortSignal): Promise<void> {
    await Promise.all(this.spec.task.inputs.map((input, i) => this.openInput(gate, input, i, onLost, signal)));
  }

  createReader(): BatchReader {
    return new BatchReader(RECORD_CODECS, this.taskName);
  }

  /** Consumers that have not read everything learn why they never will. */
  failOutputs(reason: Error): void {
    for (const { subpartitions } of this.edges) {
      for (const subpartition of subpartitions) subpartition.fail(reason);
    }
  }

  private async openInput(
    gate: InputGate,
    input: InputChannelDescriptor,
    index: number,
    onLost: (error: Error) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { deployment, exchange } = this.spec;
    const isLocal = input.producerAllocation === deployment.allocationId;
    const channel = await exchange.openInput(
      {
        jobId: deployment.jobId,
        deployment: deployment.deployment,
        edgeId: input.edgeId,
        producerAttempt: input.producerAttempt,
        producerSubtask: input.producerSubtask,
        subpartition: input.subpartition,
        consumer: this.taskName.slice(0, 300),
      },
      isLocal ? undefined : input.producerAddress,
      {
        onData: () => gate.onData(index),
        onBarrier: (barrier, overtook) => gate.onBarrier(index, barrier, overtook),
        // Damage must be found by its report alone; a loss is seen by whoever lost the other end as well.
        onFailed: (error) =>
          onLost(
            isMillraceError(error, 'CORRUPT')
              ? new CorruptError(`${this.taskName}: ${error.message}`, { cause: error })
              : error,
          ),
      },
      signal,
    );
    gate.connect(index, channel);
  }

  private get taskName(): string {
    const { deployment, task } = this.spec;
    return taskNameOf(vertexOf(deployment, task), task.subtaskIndex);
  }

  /** Whether the consumer is a task of this very slot, and so reads in this thread. */
  private isLocal(edgeId: string, subpartition: number): boolean {
    const { deployment, task } = this.spec;
    return deployment.tasks.some(({ inputs }) =>
      inputs.some(
        (input) =>
          input.edgeId === edgeId &&
          input.subpartition === subpartition &&
          input.producerAttempt === task.attemptId &&
          input.producerAllocation === deployment.allocationId,
      ),
    );
  }

  private create(edgeId: string, subpartition: number): Subpartition {
    const { exchange, outputs, deployment, task } = this.spec;
    const { jobId } = deployment;
    return exchange.createOutput(
      { jobId, deployment: deployment.deployment, attemptId: task.attemptId, edgeId, subpartition },
      outputs,
    );
  }
}
