import type {
  Coordination,
  Entry,
  Lease,
  LeaseId,
  Listing,
  Revision,
  Transaction,
  TxnResult,
  Watch,
  WatchEvent,
} from '../../ha/coordination/coordination.ts';
import type { EtcdModel } from '../../ha/coordination/etcd-model.ts';
import type { ModelCoordination } from '../../ha/coordination/model-coordination.ts';
import type { SimProcess } from './sim-process.ts';

/** One process's client of the model: its answers and events reach the process only while that lives. */
export class SimCoordination implements Coordination {
  readonly description: string;
  private readonly inner: ModelCoordination;

  constructor(
    private readonly process: SimProcess,
    model: EtcdModel,
    deadlineMs: number,
  ) {
    this.inner = model.client({ name: process.name, deadlineMs });
    this.description = this.inner.description;
    process.onDeath(() => void this.inner.close());
  }

  get(key: string): Promise<Entry | undefined> {
    return this.call(() => this.inner.get(key));
  }

  list(prefix: string): Promise<Listing> {
    return this.call(() => this.inner.list(prefix));
  }

  txn(transaction: Transaction): Promise<TxnResult> {
    return this.call(() => this.inner.txn(transaction));
  }

  grantLease(ttlMs: number): Promise<Lease> {
    return this.call(() => this.inner.grantLease(ttlMs));
  }

  keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }> {
    return this.call(() => this.inner.keepAlive(lease));
  }

  revokeLease(lease: LeaseId): Promise<void> {
    return this.call(() => this.inner.revokeLease(lease));
  }

  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch {
    let closed = false;
    const watch = this.inner.watch(prefix, afterRevision, (event) =>
      this.process.enter(() => {
        if (!closed) listener(event);
      }),
    );
    return {
      close: async () => {
        closed = true;
        await watch.close();
      },
    };
  }

  breakWatches(reason: string): void {
    this.inner.breakWatches(reason);
  }

  async close(): Promise<void> {
    await this.inner.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private call<T>(work: () => Promise<T>): Promise<T> {
    return this.process.outside((resolve, reject) => {
      work().then(resolve, reject);
    });
  }
}
