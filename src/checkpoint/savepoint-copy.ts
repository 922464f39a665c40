import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { StateHandle } from '../contracts/state-handles.ts';

/**
 * Makes a savepoint stand on its own: tasks that had finished left their state in a checkpoint, which goes its own
 * way. What of it lies outside of the savepoint's folder is copied there.
 */
export async function copyIntoSavepoint(
  metadata: CheckpointMetadata,
  location: string,
  copy: (objectKey: string, targetKey: string) => Promise<void>,
): Promise<CheckpointMetadata> {
  const copies = new Map<string, string>();
  const moved = async (handle: StateHandle): Promise<StateHandle> => {
    if (handle.kind !== 'object' || handle.key.startsWith(location)) return handle;
    let key = copies.get(handle.key);
    if (key === undefined) {
      key = `${location}finished-${copies.size}`;
      copies.set(handle.key, key);
      await copy(handle.key, key);
    }
    return { ...handle, key };
  };
  const operators: CheckpointMetadata['operators'] = [];
  for (const operator of metadata.operators) {
    const subtasks: (typeof operator)['subtasks'] = [];
    for (const subtask of operator.subtasks) {
      const keyed: (typeof subtask)['keyed'] = [];
      for (const part of subtask.keyed) keyed.push({ ...part, handle: await moved(part.handle) });
      const lists: (typeof subtask)['operator'] = [];
      for (const part of subtask.operator) lists.push({ ...part, handle: await moved(part.handle) });
      subtasks.push({ ...subtask, keyed, operator: lists });
    }
    operators.push({ ...operator, subtasks });
  }
  return { ...metadata, operators };
}
