import type { CheckpointMetadata, CompletedCheckpoint, StopMode } from '../contracts/checkpoint.ts';
import { type CheckpointConfig, JOB_GRAPH_FORMAT, type JobGraph, type JobVertex } from '../contracts/job-graph.ts';
import { type Operation, type OperationStore, succeeded, type TriggerId } from '../contracts/operations.ts';
import type { OperatorSnapshot } from '../contracts/state-handles.ts';
import type { CheckpointAck } from '../contracts/task.ts';
import { FencedError, MillraceError, NotFoundError, UnknownOutcomeError } from '../kernel/errors.ts';
import {
  asDigest,
  asFencingToken,
  asJobId,
  asOperatorId,
  asVertexId,
  type DeploymentId,
  type FencingToken,
  type JobId,
} from '../kernel/ids.ts';
import type { RunTask } from './coordinator-state.ts';
import type {
  CheckpointIdCounter,
  CheckpointStores,
  CompletedCheckpointStore,
  Completion,
  ListedCheckpoint,
} from './ports.ts';

export const JOB = asJobId('a'.repeat(32));
export const SOURCE = asVertexId('1'.repeat(32));
export const SINK = asVertexId('2'.repeat(32));
export const SOURCE_OPERATOR = asOperatorId('3'.repeat(32));
export const SINK_OPERATOR = asOperatorId('4'.repeat(32));

export function checkpointConfig(change: Partial<CheckpointConfig> = {}): CheckpointConfig {
  return {
    intervalMs: 1_000,
    mode: 'EXACTLY_ONCE',
    timeoutMs: 5_000,
    minPauseMs: 0,
    maxConcurrent: 1,
    tolerableFailedCheckpoints: 3,
    numRetained: 1,
    externalizedRetention: 'NO_EXTERNALIZED_CHECKPOINTS',
    unaligned: false,
    alignedTimeoutMs: 0,
    ...change,
  };
}

/** A source and a sink of the given parallelism, all to all, in one slot sharing group. */
export function twoVertexGraph(
  change: {
    readonly parallelism?: number;
    /** FORWARD: each subtask index is a pipelined region of its own. */
    readonly partitioner?: JobGraph['edges'][number]['partitioner'];
    readonly checkpointing?: Partial<CheckpointConfig>;
  } & Partial<Pick<JobGraph, 'restoreFrom'> & Omit<JobGraph['config'], 'checkpointing'>> = {},
): JobGraph {
  const { parallelism = 1, partitioner = 'REBALANCE', checkpointing, restoreFrom, ...config } = change;
  const vertex = (id: JobVertex['id'], name: string, operatorId: JobVertex['operators'][number]['id']): JobVertex => ({
    id,
    name,
    parallelism,
    maxParallelism: 128,
    slotSharingGroup: 'default',
    operators: [{ id: operatorId, name, kind: name.toLowerCase(), inputs: [] }],
  });
  return {
    formatVersion: JOB_GRAPH_FORMAT,
    jobId: JOB,
    name: 'a job',
    vertices: [vertex(SOURCE, 'Source', SOURCE_OPERATOR), vertex(SINK, 'Sink', SINK_OPERATOR)],
    edges: [
      {
        id: 'e',
        source: SOURCE,
        sourceOperator: SOURCE_OPERATOR,
        target: SINK,
        targetOperator: SINK_OPERATOR,
        inputIndex: 0,
        partitioner,
      },
    ],
    config: {
      restartStrategy: { type: 'fixed-delay', attempts: 3, delayMs: 100 },
      bufferTimeoutMs: 20,
      recoveryFallback: 'none',
      userConfig: {},
      ...config,
      checkpointing: checkpointConfig(checkpointing),
    },
    bundle: { kind: 'inline', programId: 'p' },
    fingerprint: 'f',
    ...(restoreFrom === undefined ? {} : { restoreFrom }),
    submittedWallMs: 1_700_000_000_000,
  };
}

export const token = (n: number): FencingToken => asFencingToken(BigInt(n));

/** State in one object of the given key. */
export function objectState(operatorId: OperatorSnapshot['operatorId'], key: string): OperatorSnapshot {
  return {
    operatorId,
    keyed: [
      {
        firstKeyGroup: 0,
        lastKeyGroup: 0,
        offsets: [0, 10],
        handle: { kind: 'object', key, size: 10, digest: asDigest('d'.repeat(64)) },
      },
    ],
    operator: [],
  };
}

export function ackOf(
  task: RunTask,
  deployment: DeploymentId,
  checkpointId: number,
  operators: readonly OperatorSnapshot[] = [],
): CheckpointAck {
  const { vertexId, subtaskIndex, attemptId } = task;
  return {
    jobId: JOB,
    deployment,
    checkpointId,
    vertexId,
    subtaskIndex,
    attemptId,
    operators: [...operators],
    stateBytes: 10,
    alignmentMs: 0,
    syncMs: 0,
    asyncMs: 0,
  };
}

export function emptyMetadata(checkpointId: number, deployment: string): CheckpointMetadata {
  const operator = (operatorId: OperatorSnapshot['operatorId']) => ({
    operatorId,
    parallelism: 1,
    maxParallelism: 128,
    subtasks: [{ operatorId, keyed: [], operator: [] }],
  });
  return {
    formatVersion: 1,
    jobId: JOB,
    checkpointId,
    kind: 'CHECKPOINT',
    deployment: deployment as DeploymentId,
    triggerWallMs: 1,
    completedWallMs: 2,
    stateBytes: 0,
    graphFingerprint: 'f',
    operators: [operator(SOURCE_OPERATOR), operator(SINK_OPERATOR)],
  };
}

/** How the next call of `add` fares; `lost`: it happens and the answer is lost. */
export type AddFate = 'ok' | 'lost' | 'lost-undone' | { readonly refuse: MillraceError };

/**
 * Checkpoint stores that outlive masters, as the real ones do: pointers are fenced by the highest
 * token, ids are given once, and everything that was discarded is on record.
 */
export class ModelCheckpointStores implements CheckpointStores {
  /** The token that leads; a caller with a lower one is fenced. */
  leader: FencingToken = token(1);
  readonly pointers = new Map<number, CheckpointMetadata>();
  readonly stops = new Map<number, StopMode>();
  readonly operationRecords = new Map<TriggerId, Operation>();
  readonly discarded: string[] = [];
  readonly log: string[] = [];
  readonly external = new Map<string, CheckpointMetadata>();
  /** Thrown by `read`, by checkpoint id. */
  readonly unreadable = new Map<number, MillraceError>();
  /** Thrown by every read and listing while set. */
  away: MillraceError | undefined;
  counterAway: MillraceError | undefined;
  fates: AddFate[] = [];
  /** While set, `add` waits for it before it does anything. */
  gate: Promise<void> | undefined;
  private lastId = 0;

  completed(_jobId: JobId): CompletedCheckpointStore {
    return {
      add: (metadata, by, completion) => this.add(metadata, by, completion),
      listIds: async () => {
        this.throwIfAway();
        return [...this.pointers.keys()].sort((a, b) => a - b).map((checkpointId) => this.pointer(checkpointId));
      },
      read: async (checkpointId) => {
        this.throwIfAway();
        const broken = this.unreadable.get(checkpointId);
        if (broken !== undefined) throw broken;
        const metadata = this.pointers.get(checkpointId);
        if (metadata === undefined) throw new NotFoundError(`no checkpoint ${checkpointId}`);
        return { metadata, metadataKey: this.pointer(checkpointId).metadataKey, metadataBytes: 1 };
      },
      subsume: async (retain, by) => {
        this.fence(by);
        for (const id of [...this.pointers.keys()].sort((a, b) => a - b).slice(0, -retain)) this.pointers.delete(id);
        this.log.push(`subsume to ${retain}`);
      },
      claim: async (metadataKey, by) => {
        this.fence(by);
        const metadata = this.external.get(metadataKey);
        if (metadata === undefined) throw new NotFoundError(`no savepoint ${metadataKey}`);
        this.seed(metadata);
        this.log.push(`claimed ${metadata.checkpointId}`);
        return metadata.checkpointId;
      },
      copy: async (from, to) => {
        this.log.push(`copied ${from} to ${to}`);
      },
      discard: async (keys) => {
        this.discarded.push(...keys);
      },
    };
  }

  counter(_jobId: JobId): CheckpointIdCounter {
    return {
      next: async (by) => {
        this.fence(by);
        if (this.counterAway !== undefined) throw this.counterAway;
        return ++this.lastId;
      },
    };
  }

  async readExternal(metadataKey: string): Promise<CompletedCheckpoint> {
    this.throwIfAway();
    const metadata = this.external.get(metadataKey);
    if (metadata === undefined) throw new NotFoundError(`no savepoint ${metadataKey}`);
    return { metadata, metadataKey, metadataBytes: 1 };
  }

  /** As if an earlier leader had completed it. */
  seed(metadata: CheckpointMetadata): void {
    this.pointers.set(metadata.checkpointId, metadata);
    this.lastId = Math.max(this.lastId, metadata.checkpointId);
  }

  readonly operations: OperationStore = {
    begin: async (operation, by) => {
      this.fence(by);
      const present = this.operationRecords.get(operation.triggerId);
      if (present !== undefined) return { outcome: 'existing', operation: present };
      this.operationRecords.set(operation.triggerId, operation);
      return { outcome: 'created', operation };
    },
    get: async (_scope, triggerId) => this.operationRecords.get(triggerId),
    pending: async () => [...this.operationRecords.values()].filter(({ result }) => result === undefined),
    finish: async (_scope, triggerId, result, by) => {
      this.fence(by);
      const present = this.operationRecords.get(triggerId);
      if (present === undefined || present.result !== undefined) return present?.result;
      this.operationRecords.set(triggerId, { ...present, result });
      return result;
    },
  };

  private async add(
    metadata: CheckpointMetadata,
    by: FencingToken,
    completion: Completion = {},
  ): Promise<CompletedCheckpoint> {
    await this.gate;
    this.fence(by);
    const id = metadata.checkpointId;
    const fate = this.fates.shift() ?? 'ok';
    if (typeof fate === 'object') throw fate.refuse;
    if (fate === 'lost-undone') throw new UnknownOutcomeError('answer lost');
    if (this.pointers.has(id)) throw new MillraceError('CONFLICT', `checkpoint ${id} exists`);
    this.pointers.set(id, metadata);
    if (completion.stop !== undefined) this.stops.set(id, completion.stop);
    if (completion.cancelJob === true) this.log.push('cancel requested');
    const operation = completion.triggerId && this.operationRecords.get(completion.triggerId);
    if (operation) this.operationRecords.set(operation.triggerId, { ...operation, result: succeeded(id) });
    this.log.push(`completed ${id}`);
    if (fate === 'lost') throw new UnknownOutcomeError('answer lost');
    return { metadata, metadataKey: this.pointer(id).metadataKey, metadataBytes: 1 };
  }

  private pointer(checkpointId: number): ListedCheckpoint {
    const kind = this.pointers.get(checkpointId)?.kind ?? 'CHECKPOINT';
    return { checkpointId, metadataKey: `metadata-${checkpointId}`, kind, stop: this.stops.get(checkpointId) };
  }

  private throwIfAway(): void {
    if (this.away !== undefined) throw this.away;
  }

  private fence(by: FencingToken): void {
    if (by !== this.leader) throw new FencedError(`token ${by} does not lead, ${this.leader} does`);
  }
}
