import type { OperatorStateBackend } from '../../state/ports.ts';
import { operatorError } from '../operator-error.ts';
import type { OperatorContext, OperatorCut } from './operator.ts';

/** The non-keyed state of an operator, restored. */
export async function openOperatorState(context: OperatorContext): Promise<OperatorStateBackend> {
  const { scope, restore, signal, stateBackends, site } = context;
  try {
    return await stateBackends.createOperatorStateBackend({
      scope,
      restore: restore?.snapshot?.operator ?? [],
      signal,
    });
  } catch (error) {
    throw operatorError(site, 'to restore its state', error);
  }
}

/** The state as it is now. */
export function cutOperatorState(
  context: OperatorContext,
  state: OperatorStateBackend,
  checkpointId: number,
): OperatorCut {
  const pending = state.snapshot(checkpointId);
  return {
    write: async (signal) => {
      const { handles, bytes } = await pending.write(signal);
      if (handles.length === 0) return undefined;
      return { snapshot: { operatorId: context.scope.operatorId, keyed: [], operator: [...handles] }, bytes };
    },
    discard: () => pending.discard(),
  };
}
