import type { LocalExecutor } from '../api/execution-context.ts';
import { DEFAULT_JOB_CONFIG } from '../api/job-settings.ts';
import { availableParallelism } from 'node:os';

/**
 * What `execute` does in a plain script: runs the job on a mini cluster in this process. The cluster's
 * code is loaded only then; a slot or a planner that loads this package never needs it.
 */
export const localExecutor: LocalExecutor = {
  defaults: { parallelism: availableParallelism(), config: DEFAULT_JOB_CONFIG },
  async submit(graph) {
    const { MiniCluster } = await import('./mini-cluster.ts');
    return MiniCluster.run(graph);
  },
};
