import type { KeyedStateHandle, OperatorStateHandle } from '../../contracts/state-handles.ts';
import type { KeyedStateBackend, OperatorStateBackend, PendingSnapshot, SnapshotOptions } from '../../state/ports.ts';
import { operatorError } from '../operator-error.ts';
import type { OperatorContext, OperatorCut } from './operator.ts';

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

/** The non-keyed state of an operator, restored. */
export async function openOperatorState(context: OperatorContext): Promise<OperatorStateBackend> {
  const { scope, restore, signal, stateBackends, site } = context;
  try {
    return await stateBackends.createOperatorStateBackend({
      scope,
      restore: restore?.snapshot?.operator ?? [],
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
  readonly operator?: OperatorStateBackend | undefined;
}

/** The state as it is now. */
export function cutState(
  context: OperatorContext,
  states: OperatorStates,
  checkpointId: number,
  options: SnapshotOptions | undefined,
): OperatorCut {
  const keyed = states.keyed?.snapshot(checkpointId, options);
  let operator: PendingSnapshot<OperatorStateHandle> | undefined;
  try {
    operator = states.operator?.snapshot(checkpointId, options);
  } catch (error) {
    keyed?.discard();
    throw error;
  }
  return {
    write: async (signal) => {
      const [ofKeys, ofOperator] = await writeBoth(keyed, operator, signal);
      if (ofKeys.handles.length + ofOperator.handles.length === 0) return undefined;
      const { operatorId } = context.scope;
      return {
        snapshot: { operatorId, keyed: [...ofKeys.handles], operator: [...ofOperator.handles] },
        bytes: ofKeys.bytes + ofOperator.bytes,
      };
    },
    discard: () => {
      keyed?.discard();
      operator?.discard();
    },
  };
}

/** Nothing of either is written any more once this has settled. */
async function writeBoth(
  keyed: PendingSnapshot<KeyedStateHandle> | undefined,
  operator: PendingSnapshot<OperatorStateHandle> | undefined,
  signal: AbortSignal,
) {
  const none = { handles: [], bytes: 0 };
  const results = await Promise.allSettled([keyed?.write(signal) ?? none, operator?.write(signal) ?? none]);
  const [ofKeys, ofOperator] = results;
  if (ofKeys.status === 'rejected') throw ofKeys.reason;
  if (ofOperator.status === 'rejected') throw ofOperator.reason;
  return [ofKeys.value, ofOperator.value] as const;
}
