import type { KeyedStateHandle, OperatorStateHandle } from '../../contracts/state-handles.ts';
import type { KeyedStateBackend, OperatorStateBackend, PendingSnapshot, SnapshotOptions } from '../../state/ports.ts';
import { operatorError } from '../operator-error.ts';
import { handlesOf } from './checkpointed-state.ts';
import type { OperatorContext, OperatorCut, WrittenCut } from './operator.ts';

/** The keyed state of an operator, restored. */
export async function openKeyedState(context: OperatorContext): Promise<KeyedStateBackend> {
  const { scope, range, maxParallelism, restore, signal, stateBackends, site } = context;
  try {
    return await stateBackends.createKeyedStateBackend({
      scope,
      range,
      maxParallelism,
      restore: restore?.snapshot?.keyed ?? [],
      ...(restore === undefined ? {} : { restoredCheckpointId: restore.checkpointId }),
      signal,
    });
  } catch (error) {
    throw operatorError(site, 'to restore its state', error);
  }
}

/** The operator's own non-keyed state, restored; its function's is {@link CheckpointedState}. */
export async function openOperatorState(context: OperatorContext): Promise<OperatorStateBackend> {
  const { scope, restore, signal, stateBackends, site } = context;
  try {
    return await stateBackends.createOperatorStateBackend({
      scope,
      restore: handlesOf(restore?.snapshot?.operator ?? [], 'operator'),
      ...(restore === undefined ? {} : { restoredCheckpointId: restore.checkpointId }),
      signal,
    });
  } catch (error) {
    throw operatorError(site, 'to restore its state', error);
  }
}

/** What an operator may have in state. */
export interface OperatorStates {
  readonly keyed?: KeyedStateBackend | undefined;
  /** The operator's own and its function's. */
  readonly operator?: readonly (OperatorStateBackend | undefined)[];
}

/** The state as it is now. */
export function cutState(
  context: OperatorContext,
  states: OperatorStates,
  checkpointId: number,
  options: SnapshotOptions | undefined,
): OperatorCut {
  const pending: PendingSnapshot<unknown>[] = [];
  const begin = <H>(backend: { snapshot(id: number, options?: SnapshotOptions): PendingSnapshot<H> }) => {
    const snapshot = backend.snapshot(checkpointId, options);
    pending.push(snapshot);
    return snapshot;
  };
  const discard = () => {
    for (const snapshot of pending) snapshot.discard();
  };
  try {
    const keyed = states.keyed === undefined ? [] : [begin(states.keyed)];
    const operator = (states.operator ?? []).flatMap((backend) => (backend === undefined ? [] : [begin(backend)]));
    return { write: (signal) => writeState(context, { keyed, operator }, signal), discard };
  } catch (error) {
    discard();
    throw error;
  }
}

async function writeState(
  context: OperatorContext,
  snapshots: {
    readonly keyed: readonly PendingSnapshot<KeyedStateHandle>[];
    readonly operator: readonly PendingSnapshot<OperatorStateHandle>[];
  },
  signal: AbortSignal,
): Promise<WrittenCut | undefined> {
  // Both settle before this does, so nothing is written after an answer.
  const [keyed, operator] = await Promise.allSettled([
    writeAll(snapshots.keyed, signal),
    writeAll(snapshots.operator, signal),
  ]);
  if (keyed.status === 'rejected') throw keyed.reason;
  if (operator.status === 'rejected') throw operator.reason;
  if (keyed.value.handles.length + operator.value.handles.length === 0) return undefined;
  const { operatorId } = context.scope;
  return {
    snapshot: { operatorId, keyed: keyed.value.handles, operator: operator.value.handles },
    bytes: keyed.value.bytes + operator.value.bytes,
  };
}

async function writeAll<H>(snapshots: readonly PendingSnapshot<H>[], signal: AbortSignal) {
  const written = await Promise.allSettled(snapshots.map((snapshot) => snapshot.write(signal)));
  const handles: H[] = [];
  let bytes = 0;
  for (const one of written) {
    if (one.status === 'rejected') throw one.reason;
    handles.push(...one.value.handles);
    bytes += one.value.bytes;
  }
  return { handles, bytes };
}
