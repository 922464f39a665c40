import { z } from 'zod';
import { leaderAddressSchema } from '../../src/contracts/leadership.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { Closeable } from '../../src/kernel/lifecycle.ts';
import { decodeRecord, encodeRecord, type RecordType } from '../stores/record-codec.ts';
import type { LeaderRetrievalDeps } from './leader-retrieval.ts';
import { WatchedKeys } from './watched-keys.ts';

/** A master that is up, leading or not, as the dashboard lists it. */
const replicaSchema = leaderAddressSchema.omit({ electedWallMs: true }).extend({ startedWallMs: z.number() });
export type ReplicaInfo = z.infer<typeof replicaSchema>;

export const REPLICA_RECORD: RecordType<ReplicaInfo> = { name: 'replica', version: 1, schema: replicaSchema };

export function encodeReplica(replica: ReplicaInfo): string {
  return encodeRecord(REPLICA_RECORD, replica);
}

/** All masters that are up, by watching their registrations. */
export class ReplicaDirectory implements Closeable {
  private replicas: readonly ReplicaInfo[] = [];
  private readonly listeners = new Set<(replicas: readonly ReplicaInfo[]) => void>();
  private readonly watched: WatchedKeys;

  private constructor(private readonly deps: LeaderRetrievalDeps) {
    this.watched = WatchedKeys.start(deps, { prefix: deps.keys.replicas }, () => this.changed());
  }

  static start(deps: LeaderRetrievalDeps): ReplicaDirectory {
    return new ReplicaDirectory(deps);
  }

  /** By id. A replica that died without a word is listed until its registration's lease expires. */
  list(): readonly ReplicaInfo[] {
    return this.replicas;
  }

  /** Called with each change, at once with the present list. Returns the unsubscriber. */
  subscribe(listener: (replicas: readonly ReplicaInfo[]) => void): () => void {
    this.listeners.add(listener);
    listener(this.replicas);
    return () => this.listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.listeners.clear();
    await this.watched.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private changed(): void {
    // A replica that was restarted quickly is registered twice until the old lease expires: the newest counts.
    const newest = new Map<string, { readonly revision: bigint; readonly replica: ReplicaInfo }>();
    for (const entry of this.watched.entries.values()) {
      try {
        const replica = decodeRecord(REPLICA_RECORD, entry);
        const known = newest.get(replica.replicaId);
        if (known === undefined || known.revision < entry.modRevision)
          newest.set(replica.replicaId, { revision: entry.modRevision, replica });
      } catch (error) {
        this.deps.log.warn({ err: asError(error), key: entry.key }, 'replica record unreadable');
      }
    }
    this.replicas = [...newest.values()]
      .map(({ replica }) => replica)
      .sort((a, b) => (a.replicaId < b.replicaId ? -1 : 1));
    for (const listener of [...this.listeners]) {
      try {
        listener(this.replicas);
      } catch (error) {
        this.deps.log.error({ err: asError(error) }, 'a listener for the replicas failed');
      }
    }
  }
}
