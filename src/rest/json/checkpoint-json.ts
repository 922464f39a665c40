import type { CheckpointEntry, CheckpointsView, ExceptionEntry, ExceptionsView } from '../../contracts/views.ts';

/** Checkpoints and exceptions under Flink's field names. */

export function checkpointsJson(view: CheckpointsView) {
  const completed = view.history.filter((entry) => entry.status === 'COMPLETED');
  return {
    counts: {
      restored: view.counts.restored,
      total: view.counts.total,
      in_progress: view.counts.inProgress,
      completed: view.counts.completed,
      failed: view.counts.failed,
    },
    summary: {
      checkpointed_size: summary(completed.map((entry) => entry.stateBytes)),
      state_size: summary(completed.map((entry) => entry.stateBytes)),
      end_to_end_duration: summary(completed.map(durationMs)),
      alignment_buffered: summary([]),
      processed_data: summary([]),
      persisted_data: summary([]),
    },
    latest: {
      completed: view.latestCompleted === undefined ? null : entryJson(view.latestCompleted),
      savepoint: view.latestSavepoint === undefined ? null : entryJson(view.latestSavepoint),
      failed: view.latestFailed === undefined ? null : entryJson(view.latestFailed),
      restored:
        view.latestRestored === undefined
          ? null
          : {
              id: view.latestRestored.id,
              restore_timestamp: view.latestRestored.restoreMs,
              is_savepoint: view.latestRestored.isSavepoint,
              external_path: view.latestRestored.metadataKey,
            },
    },
    history: view.history.map(entryJson),
  };
}

export function entryJson(entry: CheckpointEntry) {
  const common = {
    className: entry.status.toLowerCase(),
    id: entry.id,
    status: entry.status,
    is_savepoint: entry.kind === 'SAVEPOINT',
    savepointFormat: entry.kind === 'SAVEPOINT' ? 'CANONICAL' : null,
    checkpoint_type: typeOf(entry),
    trigger_timestamp: entry.triggerMs,
    latest_ack_timestamp: entry.latestAckMs,
    checkpointed_size: entry.stateBytes,
    state_size: entry.stateBytes,
    end_to_end_duration: durationMs(entry),
    alignment_buffered: 0,
    processed_data: 0,
    persisted_data: entry.inFlightBytes ?? 0,
    num_subtasks: entry.subtasks,
    num_acknowledged_subtasks: entry.acknowledged,
    tasks: {},
  };
  switch (entry.status) {
    case 'COMPLETED':
      return { ...common, external_path: entry.metadataKey ?? '', discarded: entry.discarded };
    case 'FAILED':
      return { ...common, failure_timestamp: entry.endMs, failure_message: entry.failure ?? '' };
    case 'IN_PROGRESS':
      return common;
  }
}

function typeOf(entry: CheckpointEntry): string {
  if (entry.kind === 'SAVEPOINT') return entry.stops === true ? 'SYNC_SAVEPOINT' : 'SAVEPOINT';
  return entry.inFlightBytes === undefined ? 'CHECKPOINT' : 'UNALIGNED_CHECKPOINT';
}

/** One checkpoint by itself: the only place where its tasks are told, as in Flink. */
export function checkpointDetailsJson(entry: CheckpointEntry) {
  const tasks = Object.entries(entry.tasks ?? {}).map(([vertexId, task]) => [
    vertexId,
    {
      id: entry.id,
      status: entry.status,
      latest_ack_timestamp: task.latestAckMs,
      checkpointed_size: task.stateBytes,
      state_size: task.stateBytes,
      end_to_end_duration: task.latestAckMs < 0 ? -1 : Math.max(0, task.latestAckMs - entry.triggerMs),
      alignment_buffered: 0,
      processed_data: 0,
      persisted_data: task.inFlightBytes,
      num_subtasks: task.subtasks,
      num_acknowledged_subtasks: task.acknowledged,
    },
  ]);
  return { ...entryJson(entry), tasks: Object.fromEntries(tasks) };
}

function durationMs(entry: CheckpointEntry): number {
  return Math.max(0, (entry.endMs < 0 ? entry.latestAckMs : entry.endMs) - entry.triggerMs);
}

function summary(values: readonly number[]) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
  const sum = sorted.reduce((a, b) => a + b, 0);
  return {
    min: sorted[0] ?? 0,
    max: sorted.at(-1) ?? 0,
    avg: sorted.length === 0 ? 0 : Math.round(sum / sorted.length),
    p50: at(0.5),
    p90: at(0.9),
    p95: at(0.95),
    p99: at(0.99),
    p999: at(0.999),
  };
}

export function exceptionsJson(view: ExceptionsView, maxEntries: number) {
  const entries = view.history.slice(0, maxEntries);
  return {
    'root-exception': view.root?.stack ?? null,
    timestamp: view.root?.timestampMs ?? null,
    'all-exceptions': entries.map((entry) => ({
      exception: entry.stack,
      task: entry.taskName ?? null,
      location: entry.location ?? null,
      endpoint: entry.location ?? null,
      timestamp: entry.timestampMs,
      taskManagerId: entry.taskManagerId ?? null,
    })),
    truncated: view.truncated || entries.length < view.history.length,
    exceptionHistory: {
      entries: entries.map((entry) => ({ ...exceptionJson(entry), concurrentExceptions: [] })),
      truncated: view.truncated || entries.length < view.history.length,
    },
  };
}

function exceptionJson(entry: ExceptionEntry) {
  return {
    exceptionName: entry.name,
    stacktrace: entry.stack,
    timestamp: entry.timestampMs,
    taskName: entry.taskName ?? null,
    endpoint: entry.location ?? null,
    taskManagerId: entry.taskManagerId ?? null,
    failureLabels: {},
  };
}
