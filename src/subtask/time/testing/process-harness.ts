import type { MemoryObjectStore } from '../../../../ha/objects/memory-object-store.ts';
import { assignKeyedHandles } from '../../../checkpoint/assign-state.ts';
import { type KeyGroupRange, keyGroupRange } from '../../../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../../../contracts/state-handles.ts';
import type { Clock } from '../../../kernel/clock.ts';
import { asAttemptId, asFencingToken, asJobId, asOperatorId, deploymentId } from '../../../kernel/ids.ts';
import { silentLogger } from '../../../kernel/log.ts';
import { SeededRandom } from '../../../kernel/random.ts';
import { createStateBackends } from '../../../state/state-backends.ts';
import { compiledChainFactory } from '../../compile/compiled-chain.ts';
import {
  type KeyedProcessDefinition,
  KeyedProcessOperator,
  type ProcessFunctionCalls,
} from '../../operators/keyed-process-operator.ts';
import type { OperatorContext } from '../../operators/operator.ts';
import { newElement } from '../element.ts';
import { TimedChain } from '../timed-chain.ts';
import type { TimeSignal } from '../timed-operator.ts';

export interface Emitted<T> {
  readonly value: T;
  readonly timestampMs: number;
}

/** One subtask's keyed process operator with real state, and a flatMap behind it that may pause. */
export class ProcessHarness<T> {
  readonly emitted: Emitted<T>[] = [];
  /** What left the chain, in order: indexes into `emitted` are implied by the counts. */
  readonly signals: { readonly signal: TimeSignal; readonly emittedBefore: number }[] = [];
  private due = false;

  private constructor(
    readonly range: KeyGroupRange,
    readonly operator: KeyedProcessOperator,
    readonly chain: TimedChain,
    private readonly element: ReturnType<typeof newElement>,
  ) {}

  static async open<T>(options: {
    readonly clock: Clock;
    readonly objects: MemoryObjectStore;
    readonly maxParallelism: number;
    readonly parallelism: number;
    readonly subtaskIndex: number;
    readonly attempt: number;
    readonly restore: readonly KeyedStateHandle[] | undefined;
    readonly definition: KeyedProcessDefinition;
    readonly shouldPause: () => boolean;
  }): Promise<ProcessHarness<T>> {
    const { maxParallelism, parallelism, subtaskIndex, restore } = options;
    const range = keyGroupRange(maxParallelism, parallelism, subtaskIndex);
    const site = { name: 'process', position: 0, chainLength: 2, taskName: 'test' };
    const operatorId = asOperatorId('a'.repeat(32));
    const scope = {
      jobId: asJobId('5'.repeat(32)),
      deployment: deploymentId(asFencingToken(1n), options.attempt),
      operatorId,
      attemptId: asAttemptId(`${options.attempt}${subtaskIndex}`.padStart(32, '0')),
      subtaskIndex,
    };
    const context: OperatorContext = {
      clock: options.clock,
      random: new SeededRandom(1),
      log: silentLogger,
      runtime: {
        jobId: scope.jobId,
        jobName: 'test',
        taskName: 'test',
        subtaskIndex,
        parallelism,
        maxParallelism,
        attemptNumber: 0,
        deployment: scope.deployment,
      },
      site,
      scope,
      range,
      maxParallelism,
      stateBackends: createStateBackends({ objects: options.objects }, { memoryThresholdBytes: 64 }),
      restore:
        restore === undefined
          ? undefined
          : {
              checkpointId: 1,
              snapshot: { operatorId, keyed: [...assignKeyedHandles(restore, range)], operator: [] },
            },
      signal: new AbortController().signal,
      fail: (error) => {
        throw error;
      },
    };
    const element = newElement();
    let made: ProcessHarness<T> | undefined;
    const operator = new KeyedProcessOperator(options.definition, context, () => {
      if (made !== undefined) made.due = true;
    });
    await operator.open();
    const chain = new TimedChain({
      nodes: [
        { site, step: { kind: 'timed', operator }, chained: [1], outputs: [], sideOutputs: new Map() },
        {
          site: { ...site, position: 1 },
          // Twice each, so that pausing in the middle of a record's results is possible.
          step: { kind: 'flatMap', fn: (value) => [value, value] },
          chained: [],
          outputs: [
            {
              emit: (value) => made?.emitted.push({ value: value as T, timestampMs: element.timestampMs }),
              signal: (signal) => made?.signals.push({ signal, emittedBefore: made.emitted.length }),
            },
          ],
          sideOutputs: new Map(),
        },
      ],
      element,
      chains: compiledChainFactory,
      shouldPause: options.shouldPause,
    });
    made = new ProcessHarness<T>(range, operator, chain, element);
    made.due = true;
    return made;
  }

  record(record: unknown, timestampMs: number, input = 0): void {
    this.element.input = input;
    this.chain.processTimed([record], Float64Array.of(timestampMs), 0, 1);
    this.settle();
  }

  watermark(timestampMs: number): void {
    this.chain.signal(timestampMs);
    this.settle();
  }

  /** As the loop does when a clock has said so. */
  fireIfDue(): void {
    if (!this.due) return;
    this.due = false;
    this.chain.fireProcessingTime();
    this.settle();
  }

  async snapshot(): Promise<readonly KeyedStateHandle[]> {
    const written = await this.operator.snapshot(1).write(new AbortController().signal);
    return written?.snapshot.keyed ?? [];
  }

  async close(): Promise<void> {
    this.chain.close();
    await this.operator.close();
  }

  private settle(): void {
    while (this.chain.paused) this.chain.resume();
  }
}

export type { ProcessFunctionCalls };
