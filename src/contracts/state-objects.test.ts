import { expect, test } from 'vitest';
import type { DeploymentId } from '../kernel/ids.ts';
import { isBorrowed, sharedObjectName, stateObjectName } from './state-objects.ts';

test('what tasks of another deployment wrote for a checkpoint is its own: regions begin again by themselves', () => {
  const writer = { checkpointId: 2, deployment: '4-2' as DeploymentId };
  for (const name of [stateObjectName(writer, 'x'), sharedObjectName(writer, 'x')]) {
    const key = `sim/jobs/j/state/${name}`;
    expect(isBorrowed(key, { checkpointId: 2 })).toBe(false);
    expect(isBorrowed(key, { checkpointId: 3 })).toBe(true);
  }
});
