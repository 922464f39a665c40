import { z } from 'zod';
import { taskManagerIdSchema } from '../../src/contracts/schemas.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { TaskManagerId } from '../../src/kernel/ids.ts';
import type { Closeable } from '../../src/kernel/lifecycle.ts';
import { decodeRecord, encodeRecord, type RecordType } from '../stores/record-codec.ts';
import type { LeaderRetrievalDeps } from './leader-retrieval.ts';
import { LeasedKey, type LeasedKeyDeps } from './leased-key.ts';
import { WatchedKeys } from './watched-keys.ts';

/** A worker as masters know it before it has registered with them. */
const workerSchema = z.object({
  taskManagerId: taskManagerIdSchema,
  /** `host:port` of its control RPC. */
  rpcAddress: z.string().min(3).max(300),
});
export type ListedWorker = z.infer<typeof workerSchema>;

const WORKER_RECORD: RecordType<ListedWorker> = { name: 'worker', version: 1, schema: workerSchema };

/**
 * Keeps `workers/<id>` while a worker lives, so that a new leader knows whom to expect: it can call those who do
 * not come, and tell at once that a process is dead.
 */
export function registerWorker(deps: LeasedKeyDeps, worker: ListedWorker, ttlMs = 10_000): LeasedKey {
  return LeasedKey.start(deps, {
    key: deps.keys.worker(worker.taskManagerId),
    value: encodeRecord(WORKER_RECORD, worker),
    ttlMs,
  });
}

/** The workers that are up, or died within the time of their lease; by watching, so that it is known at once. */
export class WorkerDirectory implements Closeable {
  private readonly watched: WatchedKeys;

  private constructor(private readonly deps: LeaderRetrievalDeps) {
    this.watched = WatchedKeys.start(deps, { prefix: deps.keys.workers }, () => undefined);
  }

  static start(deps: LeaderRetrievalDeps): WorkerDirectory {
    return new WorkerDirectory(deps);
  }

  /** By id. */
  list(): readonly ListedWorker[] {
    const workers = new Map<TaskManagerId, ListedWorker>();
    for (const entry of this.watched.entries.values()) {
      try {
        const worker = decodeRecord(WORKER_RECORD, entry);
        workers.set(worker.taskManagerId, worker);
      } catch (error) {
        this.deps.log.warn({ err: asError(error), key: entry.key }, 'worker record unreadable');
      }
    }
    return [...workers.values()].sort((a, b) => (a.taskManagerId < b.taskManagerId ? -1 : 1));
  }

  async close(): Promise<void> {
    await this.watched.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
