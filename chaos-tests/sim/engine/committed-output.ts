import { FencedError } from '../../../src/kernel/errors.ts';
import { compareDeployments, type DeploymentId, type JobId } from '../../../src/kernel/ids.ts';
import type { SimRecord } from './records.ts';

/** What one writer prepared for one checkpoint; committed as a whole, under its own name, once. */
export interface SimTransaction {
  readonly id: string;
  /** Whose checkpoint it was prepared for; another that goes on from it commits it again. */
  readonly jobId: JobId;
  readonly deployment: DeploymentId;
  readonly checkpointId: number;
  readonly records: readonly SimRecord[];
}

/** The outside world that a job's sink writes to. From each subtask it refuses what older deployments bring. */
export class CommittedOutput {
  /** Told of each commit that makes something visible. */
  onCommit: (jobId: JobId, transaction: SimTransaction, by: DeploymentId, checkpointId: number | undefined) => void =
    () => {};
  private readonly newest = new Map<string, DeploymentId>();
  private readonly committed = new Set<string>();

  open(jobId: JobId, task: string, deployment: DeploymentId): void {
    this.fence(jobId, task, deployment);
    this.newest.set(`${jobId}/${task}`, deployment);
  }

  /** `checkpointId`: the completed checkpoint that lets it be; undefined for what a restored checkpoint held. */
  commit(
    jobId: JobId,
    task: string,
    by: DeploymentId,
    transactions: readonly SimTransaction[],
    checkpointId: number | undefined,
  ): void {
    this.fence(jobId, task, by);
    for (const transaction of transactions) {
      if (this.committed.has(transaction.id)) continue;
      this.committed.add(transaction.id);
      this.onCommit(jobId, transaction, by, checkpointId);
    }
  }

  private fence(jobId: JobId, task: string, deployment: DeploymentId): void {
    const newest = this.newest.get(`${jobId}/${task}`);
    if (newest !== undefined && compareDeployments(deployment, newest) < 0)
      throw new FencedError(`deployment ${deployment} of ${task} was replaced by ${newest}`);
  }
}
