import { asAttemptId, asFencingToken, asJobId, asOperatorId, deploymentId } from '../../kernel/ids.ts';
import type { StateScope } from '../state-backends.ts';

let attempts = 0;

/** A fresh attempt of a subtask. */
export function testScope(subtaskIndex: number): StateScope {
  return {
    jobId: asJobId('0'.repeat(32)),
    deployment: deploymentId(asFencingToken(5n), 1),
    operatorId: asOperatorId('a'.repeat(32)),
    attemptId: asAttemptId((++attempts).toString(16).padStart(32, '0')),
    subtaskIndex,
  };
}
