import type { Entry, Transaction } from '../../ha/coordination/coordination.ts';
import { EtcdModel, type EtcdModelOptions, type ModelCall, type ModelFault } from '../../ha/coordination/etcd-model.ts';
import type { ChangeSet } from '../../ha/coordination/revision-engine.ts';

export interface EtcdWatcher {
  /** Before a call leaves its client. */
  fate(call: ModelCall): ModelFault | undefined;
  /** Every committed change, with the transaction that made it. */
  changed(
    set: ChangeSet,
    writer: string | undefined,
    transaction: Transaction | undefined,
    leader: Entry | undefined,
  ): void;
}

/** The model of etcd, with who did what. */
export class ObservedEtcd extends EtcdModel {
  private readonly writers = new WeakMap<Transaction, string>();
  private writing: { readonly writer: string | undefined; readonly transaction: Transaction } | undefined;
  private seen: bigint;
  private leader: Entry | undefined;

  constructor(
    options: EtcdModelOptions,
    private readonly leaderKey: string,
    private readonly watcher: EtcdWatcher,
  ) {
    super(options);
    this.seen = this.revision;
    this.intercept = (call) => {
      if (call.transaction !== undefined) this.writers.set(call.transaction, call.client);
      return watcher.fate(call);
    };
    this.subscribe(() => this.look());
  }

  override txn(transaction: Transaction) {
    this.writing = { writer: this.writers.get(transaction), transaction };
    try {
      return super.txn(transaction);
    } finally {
      this.writing = undefined;
    }
  }

  private look(): void {
    const sets = this.changesAfter(this.seen) ?? [];
    for (const [i, set] of sets.entries()) {
      this.seen = set.revision;
      // Expired leases go before the transaction, in revisions of their own.
      const own = i === sets.length - 1 ? this.writing : undefined;
      this.watcher.changed(set, own?.writer, own?.transaction, this.leader);
      for (const change of set.changes) {
        const key = change.kind === 'put' ? change.entry.key : change.key;
        if (key === this.leaderKey) this.leader = change.kind === 'put' ? change.entry : undefined;
      }
    }
  }
}
