import type { TwoPhaseCommitSink } from '../../api/sink.ts';

/** The outside world of a two-phase commit sink: what is visible, what is prepared, what was refused. */
export class TransactionalStore<T> {
  readonly committed: T[] = [];
  private readonly prepared = new Map<string, readonly T[]>();
  private readonly done = new Set<string>();
  private transactions = 0;
  commits = 0;
  /** Commits that are made to fail, one after the other. */
  failCommits = 0;
  failPrepares = 0;

  sink(name = 'Store'): TwoPhaseCommitSink<T, string> {
    return {
      name,
      twoPhaseCommit: true,
      createWriter: ({ deployment, subtaskIndex }) => {
        let open: T[] = [];
        const commit = (ids: readonly string[]) => {
          for (const id of ids) this.commit(id);
        };
        return {
          open: async (restored) => commit(restored),
          write: (value) => void open.push(value),
          ready: () => undefined,
          prepareCommit: async (checkpointId) => {
            const records = open;
            open = [];
            await new Promise((resolve) => setImmediate(resolve));
            if (this.failPrepares > 0) {
              this.failPrepares--;
              throw new Error('the disk is full');
            }
            if (records.length === 0) return [];
            const id = `${deployment}/${subtaskIndex}/${checkpointId}/${this.transactions++}`;
            this.prepared.set(id, records);
            return [id];
          },
          commit: async (ids) => {
            this.commits++;
            if (this.failCommits > 0) {
              this.failCommits--;
              throw new Error('the store is away');
            }
            await new Promise((resolve) => setImmediate(resolve));
            commit(ids);
          },
          close: async () => undefined,
        };
      },
    };
  }

  private commit(id: string): void {
    if (this.done.has(id)) return;
    const records = this.prepared.get(id);
    if (records === undefined) throw new Error(`transaction ${id} is unknown`);
    this.done.add(id);
    this.committed.push(...records);
  }
}
