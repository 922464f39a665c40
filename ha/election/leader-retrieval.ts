import type { LeaderInfo, LeaderRetrieval } from '../../src/contracts/leadership.ts';
import { asError } from '../../src/kernel/errors.ts';
import { asFencingToken } from '../../src/kernel/ids.ts';
import type { Closeable } from '../../src/kernel/lifecycle.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import { decodeLeader } from './leader-record.ts';
import { WatchedKeys, type WatchedKeysDeps } from './watched-keys.ts';

export interface LeaderRetrievalDeps extends WatchedKeysDeps {
  readonly keys: ClusterKeys;
}

/**
 * Who leads, by watching the leader key.
 *
 * Invariant V1: what is shown never goes back to an older token. "Nobody" may follow a leader, an
 * older leader may not follow anything.
 */
export class WatchedLeaderRetrieval implements LeaderRetrieval, Closeable {
  private leader: LeaderInfo | undefined;
  private highest = asFencingToken(0n);
  private readonly listeners = new Set<(leader: LeaderInfo | undefined) => void>();
  private readonly watched: WatchedKeys;

  private constructor(private readonly deps: LeaderRetrievalDeps) {
    this.watched = WatchedKeys.start(deps, { prefix: deps.keys.leader }, () => this.changed());
  }

  /** Returns at once; with the store away there is simply no leader yet. */
  static start(deps: LeaderRetrievalDeps): WatchedLeaderRetrieval {
    return new WatchedLeaderRetrieval(deps);
  }

  current(): LeaderInfo | undefined {
    return this.leader;
  }

  connected(): boolean {
    return this.watched.connected;
  }

  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void {
    this.listeners.add(listener);
    listener(this.leader);
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
    const next = this.read();
    if (next?.token === this.leader?.token) return;
    this.leader = next;
    for (const listener of [...this.listeners]) {
      try {
        listener(next);
      } catch (error) {
        this.deps.log.error({ err: asError(error) }, 'a listener for the leader failed');
      }
    }
  }

  private read(): LeaderInfo | undefined {
    const entry = this.watched.entries.get(this.deps.keys.leader);
    if (entry === undefined) return undefined;
    const token = asFencingToken(entry.modRevision);
    if (token < this.highest) return undefined; // V1
    this.highest = token;
    try {
      const { campaign: _campaign, stolenFrom: _stolenFrom, ...leader } = decodeLeader(entry);
      return leader;
    } catch (error) {
      this.deps.log.error({ err: asError(error), token: String(token) }, 'leader record unreadable');
      return undefined;
    }
  }
}
