import { MemoryObjectStore } from '../../../../ha/objects/memory-object-store.ts';
import { asAttemptId, asFencingToken, asJobId, asOperatorId, deploymentId } from '../../../kernel/ids.ts';
import { silentLogger } from '../../../kernel/log.ts';
import { ManualClock } from '../../../kernel/manual-clock.ts';
import { SeededRandom } from '../../../kernel/random.ts';
import { createStateBackends } from '../../../state/state-backends.ts';
import type { OperatorSite } from '../../operator-error.ts';
import type { OperatorContext } from '../../operators/operator.ts';

/** What an operator of a fresh task without parallelism knows and uses; its state is in memory. */
export function freshContext(site: OperatorSite): OperatorContext {
  const clock = new ManualClock();
  const scope = {
    jobId: asJobId('5'.repeat(32)),
    deployment: deploymentId(asFencingToken(1n), 1),
    operatorId: asOperatorId('a'.repeat(32)),
    attemptId: asAttemptId('1'.repeat(32)),
    subtaskIndex: 0,
  };
  return {
    clock,
    random: new SeededRandom(1),
    log: silentLogger,
    runtime: {
      jobId: scope.jobId,
      jobName: 'test',
      taskName: 'task',
      subtaskIndex: 0,
      parallelism: 1,
      maxParallelism: 8,
      attemptNumber: 0,
      deployment: scope.deployment,
    },
    site,
    scope,
    range: { first: 0, last: 7 },
    maxParallelism: 8,
    stateBackends: createStateBackends({ objects: new MemoryObjectStore(clock) }),
    restore: undefined,
    signal: new AbortController().signal,
    fail: (error) => {
      throw error;
    },
  };
}
