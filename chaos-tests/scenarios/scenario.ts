import type { Stage } from '../stage/stage.ts';
import type { WorkloadName } from '../workloads/records.ts';

/** What a scenario cannot do without. */
export type Need =
  /** Network namespaces as hosts. */
  | 'hosts'
  /** May mount file systems. */
  | 'root'
  /** Debian's libfaketime. */
  | 'faketime';

/** One kind of misfortune: facts about it, and its story. */
export interface Scenario {
  readonly name: string;
  /** One line for people. */
  readonly says: string;
  readonly needs?: readonly Need[];
  /** How long the job's data lasts when nothing goes wrong (default 8 s). The faults must fit in. */
  readonly seconds?: number;
  /** The same in the long form. */
  readonly longSeconds?: number;
  /** All etcd calls, or all S3 calls, go through proxies that the story can use. */
  readonly proxied?: readonly ('etcd' | 's3')[];
  /** `key=value`, on top of what all scenarios have. */
  readonly config?: readonly string[];
  readonly workload?: WorkloadName;
  readonly sink?: 'files' | 's3';
  readonly masters?: number;
  readonly workers?: number;
  /** Added to a process's environment. */
  readonly env?: (role: 'jobmanager' | 'taskmanager', index: number) => Readonly<Record<string, string>>;
  /** The output lies in a file system of this size of its own. */
  readonly outputBytes?: number;
  /** Messages in logs that only a bug would explain elsewhere. */
  readonly expects?: readonly string[];
  /** How the job ends (default FINISHED). */
  readonly ends?: 'FINISHED' | 'CANCELED';
  /** Whatever is hurt here, no task has to be deployed again because of it. */
  readonly neverRestarts?: boolean;
  /** Wall clocks differ between processes, so that their logs cannot be put in one order. */
  readonly clocksDiffer?: boolean;
  /** The story submits the job itself. */
  readonly submitsItself?: boolean;
  /** Begins when the job runs and has completed checkpoints. */
  readonly story: (stage: Stage) => Promise<void>;
}
