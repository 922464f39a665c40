import type { Collector, RuntimeContext } from '../../api/functions.ts';
import type { SourceReader } from '../../api/source.ts';

export function readerContext(overrides: Partial<RuntimeContext> = {}): RuntimeContext {
  return {
    jobId: '0'.repeat(32),
    jobName: 'test',
    taskName: 'Source',
    subtaskIndex: 0,
    parallelism: 1,
    maxParallelism: 128,
    attemptNumber: 0,
    ...overrides,
  };
}

/** Polls as a subtask would until the reader ends or `limit` records came out. */
export async function readUpTo<T>(
  reader: SourceReader<T, unknown>,
  limit = Number.POSITIVE_INFINITY,
  perPoll = 100,
): Promise<T[]> {
  const records: T[] = [];
  const out: Collector<T> = { collect: (record) => void records.push(record) };
  while (records.length < limit) {
    const status = reader.poll(out, Math.min(perPoll, limit - records.length));
    if (status === 'end') break;
    if (status === 'wait') await reader.available();
  }
  return records;
}
