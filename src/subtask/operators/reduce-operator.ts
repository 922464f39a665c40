import type { OperatorDefinition } from '../../api/operator-definition.ts';
import type { KeyedStateBackend, SnapshotOptions, ValueState } from '../../state/ports.ts';
import { copyRecord } from '../../exchange/record-copies.ts';
import { present } from '../../kernel/assert.ts';
import type { KeyedReduce } from '../chain.ts';
import { type OperatorSite, userCodeError } from '../operator-error.ts';
import { cutState, openKeyedState } from './operator-state.ts';
import { type OperatorContext, type OperatorCut, RESOLVED, type SubtaskOperator } from './operator.ts';

type ReduceDefinition = Extract<OperatorDefinition, { kind: 'reduce' }>;

const STATE_NAME = 'reduce';

/** Keeps one value per key and emits it after each record. */
export class ReduceOperator implements SubtaskOperator {
  readonly site: OperatorSite;
  private backend: KeyedStateBackend | undefined;
  private state: ValueState<unknown> | undefined;

  constructor(
    private readonly definition: ReduceDefinition,
    private readonly context: OperatorContext,
  ) {
    this.site = context.site;
  }

  async open(): Promise<void> {
    this.backend = await openKeyedState(this.context);
    this.state = this.backend.valueState(STATE_NAME);
  }

  /** What {@link apply} works with. Once it is open. */
  parts(): KeyedReduce {
    const { keySelector, fn, sumOf } = this.definition;
    const backend = present(this.backend, 'the state of an open operator');
    const cells = sumOf === undefined ? undefined : backend.packedSums(STATE_NAME, sumOf);
    return {
      keySelector,
      fn,
      backend,
      state: present(this.state, 'the state of an open operator'),
      ...(sumOf === undefined || cells === undefined ? {} : { sums: { field: sumOf, cells } }),
    };
  }

  apply(value: unknown): unknown {
    const state = this.state as ValueState<unknown>;
    try {
      (this.backend as KeyedStateBackend).setCurrentKey(this.definition.keySelector(value));
      const current = state.value();
      let next = current === undefined ? value : this.definition.fn(current, value);
      // The function may change what the state holds, but the record belongs to whoever emitted it.
      if (next === value && typeof next === 'object') next = copyRecord(next);
      state.update(next);
      return next;
    } catch (error) {
      throw userCodeError(this.site, error, value);
    }
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    const keyed = present(this.backend, 'the state of an open operator');
    return cutState(this.context, { keyed }, checkpointId, options);
  }

  checkpointCompleted(checkpointId: number): Promise<void> {
    this.backend?.checkpointCompleted(checkpointId);
    return RESOLVED;
  }

  checkpointAborted(checkpointId: number): void {
    this.backend?.checkpointAborted(checkpointId);
  }

  finish(): Promise<void> {
    return RESOLVED;
  }

  async close(): Promise<void> {
    this.backend?.dispose();
    this.backend = undefined;
  }
}
