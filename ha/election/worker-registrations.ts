import { z } from 'zod';
import { taskManagerIdSchema } from '../../src/contracts/schemas.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { TaskManagerId } from '../../src/kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
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
 * Longer than any outage of the store that tasks are to survive: were these keys gone when it is back, a new leader
 * would believe that nobody is left to wait for. Of a worker that is lost the leader removes the key at once.
 */
const TTL_MS = 3_600_000;
/** How soon a worker notices that it was taken for dead. */
const RENEW_MS = 5_000;

/**
 * Keeps `workers/<id>` while a worker lives, so that a new leader knows whom to expect: it can call those who do
 * not come, and tell at once that a process is dead.
 */
export function registerWorker(deps: LeasedKeyDeps, worker: ListedWorker): LeasedKey {
  return LeasedKey.start(deps, {
    key: deps.keys.worker(worker.taskManagerId),
    value: encodeRecord(WORKER_RECORD, worker),
    ttlMs: TTL_MS,
    renewEveryMs: RENEW_MS,
  });
}

/** The workers that are up, and those whose death nobody has noticed; by watching, so that it is known at once. */
export class WorkerRegistrations implements Closeable {
  private readonly watched: WatchedKeys;
  private readonly background: BackgroundTasks;

  private workers: readonly ListedWorker[] = [];

  private constructor(private readonly deps: LeaderRetrievalDeps) {
    this.background = new BackgroundTasks(deps.log);
    // Read as they change: whoever has just become leader has no time to.
    this.watched = WatchedKeys.start(deps, { prefix: deps.keys.workers }, () => {
      this.workers = this.read();
    });
  }

  static start(deps: LeaderRetrievalDeps): WorkerRegistrations {
    return new WorkerRegistrations(deps);
  }

  /** By id; undefined while it is not known. */
  list(): readonly ListedWorker[] | undefined {
    return this.watched.ready && this.watched.connected ? this.workers : undefined;
  }

  private read(): readonly ListedWorker[] {
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

  /** It is lost. If it lives after all, it registers again. */
  forget(taskManagerId: TaskManagerId): void {
    const lease = this.watched.entries.get(this.deps.keys.worker(taskManagerId))?.lease;
    if (lease === undefined) return;
    this.background.run('forget a lost worker', () =>
      this.deps.coordination.revokeLease(lease).catch((error: unknown) => {
        // Kept: the next leader finds that it is dead, and tries again.
        this.deps.log.warn({ err: asError(error), taskManagerId }, 'registration of a lost worker not removed');
      }),
    );
  }

  async close(): Promise<void> {
    await this.watched.close();
    await this.background.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
