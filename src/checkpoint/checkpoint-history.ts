import type { CompletedCheckpoint } from '../contracts/checkpoint.ts';
import type { CheckpointAck } from '../contracts/task.ts';
import {
  type CheckpointEntry,
  type CheckpointsView,
  type CheckpointTaskEntry,
  NO_CHECKPOINTS,
} from '../contracts/views.ts';
import type { VertexId } from '../kernel/ids.ts';
import type { PendingCheckpoint, Run } from './coordinator-state.ts';

const NO_TASK: CheckpointTaskEntry = { subtasks: 0, acknowledged: 0, latestAckMs: -1, stateBytes: 0, inFlightBytes: 0 };

/** How many subtasks of each vertex are to take part. */
function tasksOf({ expected }: PendingCheckpoint, run: Run | undefined): NonNullable<CheckpointEntry['tasks']> {
  const tasks: Record<VertexId, CheckpointTaskEntry> = {};
  run?.tasks.forEach(({ vertexId }, index) => {
    if (expected[index] !== true) return;
    const task = tasks[vertexId] ?? NO_TASK;
    tasks[vertexId] = { ...task, subtasks: task.subtasks + 1 };
  });
  return tasks;
}

/** As many as Flink shows by default (`web.checkpoints.history`). */
const HISTORY_MAX = 10;

/** What people see of a job's checkpoints in this term: counts, and the newest ones. */
export class CheckpointHistory {
  private current: CheckpointsView = NO_CHECKPOINTS;

  view(): CheckpointsView {
    return this.current;
  }

  triggered(checkpoint: PendingCheckpoint, run: Run | undefined, wallMs: number): void {
    const { counts } = this.current;
    this.put(
      {
        id: checkpoint.id,
        status: 'IN_PROGRESS',
        kind: checkpoint.kind,
        triggerMs: wallMs,
        latestAckMs: -1,
        endMs: -1,
        stateBytes: 0,
        acknowledged: 0,
        subtasks: checkpoint.missing,
        metadataKey: undefined,
        discarded: false,
        failure: undefined,
        stops: checkpoint.stop !== undefined,
        tasks: tasksOf(checkpoint, run),
      },
      { counts: { ...counts, total: counts.total + 1, inProgress: counts.inProgress + 1 } },
    );
  }

  acknowledged({ checkpointId, vertexId, stateBytes, inFlightBytes }: CheckpointAck, wallMs: number): void {
    const entry = this.find(checkpointId);
    if (entry === undefined) return;
    const task = entry.tasks?.[vertexId] ?? NO_TASK;
    this.put(
      {
        ...entry,
        latestAckMs: wallMs,
        stateBytes: entry.stateBytes + stateBytes,
        acknowledged: entry.acknowledged + 1,
        ...(inFlightBytes === undefined ? {} : { inFlightBytes: (entry.inFlightBytes ?? 0) + inFlightBytes }),
        tasks: {
          ...entry.tasks,
          [vertexId]: {
            ...task,
            acknowledged: task.acknowledged + 1,
            latestAckMs: wallMs,
            stateBytes: task.stateBytes + stateBytes,
            inFlightBytes: task.inFlightBytes + (inFlightBytes ?? 0),
          },
        },
      },
      {},
    );
  }

  completed(checkpoint: CompletedCheckpoint, wallMs: number): void {
    const { counts } = this.current;
    const { metadata, metadataKey } = checkpoint;
    const entry: CheckpointEntry | undefined = this.find(metadata.checkpointId);
    const done: CheckpointEntry = {
      ...entry,
      id: metadata.checkpointId,
      kind: metadata.kind,
      triggerMs: metadata.triggerWallMs,
      latestAckMs: entry?.latestAckMs ?? -1,
      acknowledged: entry?.acknowledged ?? 0,
      subtasks: entry?.subtasks ?? 0,
      status: 'COMPLETED',
      endMs: wallMs,
      stateBytes: metadata.stateBytes,
      metadataKey,
      discarded: false,
      failure: undefined,
    };
    this.put(done, {
      counts: { ...counts, inProgress: counts.inProgress - 1, completed: counts.completed + 1 },
      ...(metadata.kind === 'SAVEPOINT' ? { latestSavepoint: done } : { latestCompleted: done }),
    });
  }

  failed(id: number, failure: string, wallMs: number): void {
    const entry = this.find(id);
    if (entry === undefined) return;
    const { counts } = this.current;
    const done: CheckpointEntry = { ...entry, status: 'FAILED', endMs: wallMs, discarded: true, failure };
    this.put(done, {
      counts: { ...counts, inProgress: counts.inProgress - 1, failed: counts.failed + 1 },
      latestFailed: done,
    });
  }

  restored(checkpoint: CompletedCheckpoint, wallMs: number): void {
    const { counts } = this.current;
    this.current = {
      ...this.current,
      counts: { ...counts, restored: counts.restored + 1 },
      latestRestored: {
        id: checkpoint.metadata.checkpointId,
        restoreMs: wallMs,
        isSavepoint: checkpoint.metadata.kind === 'SAVEPOINT',
        metadataKey: checkpoint.metadataKey,
      },
    };
  }

  /** Completed under an earlier leader: shown, not counted. */
  found({ metadata, metadataKey }: CompletedCheckpoint): void {
    const entry: CheckpointEntry = {
      id: metadata.checkpointId,
      kind: metadata.kind,
      triggerMs: metadata.triggerWallMs,
      latestAckMs: -1,
      acknowledged: 0,
      subtasks: 0,
      status: 'COMPLETED',
      endMs: metadata.completedWallMs,
      stateBytes: metadata.stateBytes,
      metadataKey,
      discarded: false,
      failure: undefined,
    };
    this.put(entry, metadata.kind === 'SAVEPOINT' ? { latestSavepoint: entry } : { latestCompleted: entry });
  }

  /** Subsumed checkpoints are shown as discarded. */
  retained(ids: ReadonlySet<number>): void {
    this.current = {
      ...this.current,
      history: this.current.history.map((entry) =>
        entry.status === 'COMPLETED' && !entry.discarded && !ids.has(entry.id) ? { ...entry, discarded: true } : entry,
      ),
    };
  }

  private find(id: number): CheckpointEntry | undefined {
    return this.current.history.find((entry) => entry.id === id);
  }

  private put(entry: CheckpointEntry, change: Partial<CheckpointsView>): void {
    const others = this.current.history.filter((other) => other.id !== entry.id);
    const history = [...others, entry].sort((a, b) => b.id - a.id);
    // Those in progress are never forgotten: their end has to find them.
    const kept = history.filter((other, i) => i < HISTORY_MAX || other.status === 'IN_PROGRESS');
    this.current = { ...this.current, ...change, history: kept };
  }
}
