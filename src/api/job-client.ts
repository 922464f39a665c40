import type { JobId } from '../kernel/ids.ts';

/** What a job that has ended tells the program that ran it. */
export interface JobExecutionResult {
  readonly jobId: JobId;
  readonly jobName: string;
  /** Milliseconds between submission and end. */
  readonly netRuntimeMs: number;
}

/** A running job, as the program that submitted it holds it. */
export interface JobClient {
  readonly jobId: JobId;
  /** Resolves when the job has finished; rejects with the failure, or when it was cancelled. */
  getJobExecutionResult(): Promise<JobExecutionResult>;
  cancel(): Promise<void>;
}
