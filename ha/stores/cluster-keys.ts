import { createHash } from 'node:crypto';
import type { OperationScope, TriggerId } from '../../src/contracts/operations.ts';
import { MillraceError } from '../../src/kernel/errors.ts';
import type { FencingToken, JarId, JobId, TaskManagerId } from '../../src/kernel/ids.ts';

const CLUSTER_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$/;
const REPLICA_ID = /^[A-Za-z0-9._-]{1,120}$/;
/** Enough for 10^12 checkpoints; padding makes the order of keys the order of ids. */
const CHECKPOINT_DIGITS = 12;

/**
 * Where one cluster keeps what, in both stores. Two clusters may share the stores: every name starts
 * with the cluster's id. No coordination key but `leader` and `leader.next` starts with `leader`, so that a
 * watch on that prefix sees these two, in order.
 */
export class ClusterKeys {
  private readonly root: string;

  constructor(readonly clusterId: string) {
    if (!CLUSTER_ID.test(clusterId))
      throw new MillraceError(
        'CONFIGURATION',
        `high-availability.cluster-id "${clusterId}": 1 to 60 of A-Z a-z 0-9 . _ - are allowed, the first a letter or digit`,
      );
    this.root = `${clusterId}/`;
  }

  /** Coordination: who leads. */
  get leader(): string {
    return `${this.root}leader`;
  }

  /** Coordination: who shall lead next, during a hand-over to a certain replica. */
  get nextLeader(): string {
    return `${this.root}leader.next`;
  }

  /** Coordination: changed whenever the answer to a write was lost, so that what was sent before cannot come later. */
  get doubt(): string {
    return `${this.root}doubt`;
  }

  get replicas(): string {
    return `${this.root}replicas/`;
  }

  replica(replicaId: string, incarnation: string): string {
    return `${this.replicas}${checkReplicaId(replicaId)}/${incarnation}`;
  }

  /** Workers that are up. */
  get workers(): string {
    return `${this.root}workers/`;
  }

  worker(taskManagerId: TaskManagerId): string {
    return `${this.workers}${taskManagerId}`;
  }

  get jobs(): string {
    return `${this.root}jobs/`;
  }

  job(jobId: JobId): string {
    return `${this.jobs}${jobId}`;
  }

  get cancels(): string {
    return `${this.root}cancels/`;
  }

  /** A key of its own, so that `jobs/<id>` is written once and its revision can guard all that concerns the job. */
  cancel(jobId: JobId): string {
    return `${this.cancels}${jobId}`;
  }

  get results(): string {
    return `${this.root}results/`;
  }

  result(jobId: JobId): string {
    return `${this.results}${jobId}`;
  }

  idempotency(key: string): string {
    return this.idempotencyByHash(hashIdempotencyKey(key));
  }

  idempotencyByHash(hash: string): string {
    return `${this.root}idempotency/${hash}`;
  }

  get jars(): string {
    return `${this.root}jars/`;
  }

  jar(jarId: JarId): string {
    return `${this.jars}${jarId}`;
  }

  get allCheckpoints(): string {
    return `${this.root}checkpoints/`;
  }

  checkpoints(jobId: JobId): string {
    return `${this.allCheckpoints}${jobId}/`;
  }

  checkpoint(jobId: JobId, checkpointId: number): string {
    return `${this.checkpoints(jobId)}${String(checkpointId).padStart(CHECKPOINT_DIGITS, '0')}`;
  }

  /** Savepoints and retained checkpoints that no job owns any more: kept until a user deletes them. */
  get allRetained(): string {
    return `${this.root}retained/`;
  }

  retainedOf(jobId: JobId): string {
    return `${this.allRetained}${jobId}/`;
  }

  /** The write id keeps apart two lives of one job id, whose checkpoint ids both start at 1. */
  retained(jobId: JobId, checkpointId: number, writeId: string): string {
    return `${this.retainedOf(jobId)}${String(checkpointId).padStart(CHECKPOINT_DIGITS, '0')}-${writeId}`;
  }

  get counters(): string {
    return `${this.root}counters/`;
  }

  counter(jobId: JobId): string {
    return `${this.counters}${jobId}`;
  }

  get operations(): string {
    return `${this.root}operations/`;
  }

  operationsOf(scope: OperationScope): string {
    return `${this.operations}${scope}/`;
  }

  operation(scope: OperationScope, triggerId: TriggerId): string {
    return `${this.operationsOf(scope)}${triggerId}`;
  }

  /** Objects: all savepoints of this cluster, each in a folder of its own. */
  get allSavepoints(): string {
    return `${this.root}savepoints/`;
  }

  /** Objects: everything of one job. Workers put state under it too ({@link stateObjectPrefix}). */
  jobObjects(jobId: JobId): string {
    return `${this.allJobObjects}${jobId}/`;
  }

  get allJobObjects(): string {
    return `${this.root}jobs/`;
  }

  graphObject(jobId: JobId, token: FencingToken, writeId: string): string {
    return `${this.jobObjects(jobId)}graph-${token}-${writeId}`;
  }

  detailsObject(jobId: JobId, token: FencingToken, writeId: string): string {
    return `${this.jobObjects(jobId)}details-${token}-${writeId}`;
  }

  metadataObject(jobId: JobId, checkpointId: number, token: FencingToken, writeId: string): string {
    return `${this.jobObjects(jobId)}checkpoints/${checkpointId}/metadata-${token}-${writeId}`;
  }

  /** Under which workers put the state of a job: `<this><any unique name>`. */
  stateObjectPrefix(jobId: JobId): string {
    return `${this.jobObjects(jobId)}state/`;
  }

  get allJarObjects(): string {
    return `${this.root}jars/`;
  }

  jarObject(jarId: JarId, token: FencingToken, writeId: string): string {
    return `${this.allJarObjects}${jarId}/bundle-${token}-${writeId}`;
  }

  /** The jar that an object belongs to, or undefined when it is none of this cluster's jar objects. */
  jarOfObject(objectKey: string): JarId | undefined {
    if (!objectKey.startsWith(this.allJarObjects)) return undefined;
    const end = objectKey.indexOf('/', this.allJarObjects.length);
    return end < 0 ? undefined : (objectKey.slice(this.allJarObjects.length, end) as JarId);
  }

  /** The object prefix of the job that an object belongs to, e.g. `default/jobs/<id>/`. */
  jobPrefixOfObject(objectKey: string): string | undefined {
    if (!objectKey.startsWith(this.allJobObjects)) return undefined;
    const end = objectKey.indexOf('/', this.allJobObjects.length);
    return end < 0 ? undefined : objectKey.slice(0, end + 1);
  }

  get sweepProbes(): string {
    return `${this.root}sweep/`;
  }
}

export function checkReplicaId(replicaId: string): string {
  if (!REPLICA_ID.test(replicaId))
    throw new MillraceError('CONFIGURATION', `jobmanager.id "${replicaId}": 1 to 120 of A-Z a-z 0-9 . _ - are allowed`);
  return replicaId;
}

/** Keys chosen by clients may hold anything and be long; what is stored is their digest. */
export function hashIdempotencyKey(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}
