import type { Clock } from '../../src/kernel/clock.ts';
import { UnavailableError } from '../../src/kernel/errors.ts';
import { checkKey, checkPrefix, checkTransaction, checkTtl } from './check-transaction.ts';
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
} from './coordination.ts';
import type { EtcdModel, ModelCall, ModelFault } from './etcd-model.ts';
import { type CallKind, closedError, lostAnswer } from './lost-answer.ts';
import { ModelWatch } from './model-watch.ts';

export interface ModelClientOptions {
  /** What the interceptor knows this client by. */
  readonly name?: string;
  /** Every call ends within this (default 1,000). */
  readonly deadlineMs?: number;
  /** A broken watch connects again after this (default 100). */
  readonly reconnectMs?: number;
}

/** One client of an {@link EtcdModel}: a connection with its own name, deadline, watches and faults. */
export class ModelCoordination implements Coordination {
  readonly name: string;
  readonly description: string;
  private readonly clock: Clock;
  private readonly deadlineMs: number;
  private readonly reconnectMs: number;
  private readonly watches = new Set<ModelWatch>();
  private closed = false;

  constructor(
    private readonly model: EtcdModel,
    options: ModelClientOptions,
  ) {
    this.clock = model.clock;
    this.name = options.name ?? 'client';
    this.description = `memory:${this.name}`;
    this.deadlineMs = options.deadlineMs ?? 1_000;
    this.reconnectMs = options.reconnectMs ?? 100;
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    return this.call({ kind: 'get', subject: key }, () => this.model.get(key));
  }

  async list(prefix: string): Promise<Listing> {
    checkPrefix(prefix);
    return this.call({ kind: 'list', subject: prefix }, () => this.model.list(prefix));
  }

  async txn(transaction: Transaction): Promise<TxnResult> {
    checkTransaction(transaction);
    return this.call({ kind: 'txn', subject: '', transaction }, () => this.model.txn(transaction));
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    checkTtl(ttlMs);
    return this.call({ kind: 'grantLease', subject: '' }, () => this.model.grantLease(ttlMs));
  }

  async keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }> {
    return this.call({ kind: 'keepAlive', subject: lease }, () => this.model.keepAlive(lease));
  }

  async revokeLease(lease: LeaseId): Promise<void> {
    return this.call({ kind: 'revokeLease', subject: lease }, () => this.model.revokeLease(lease));
  }

  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch {
    checkPrefix(prefix);
    if (this.closed) throw closedError(this.description);
    const watch = new ModelWatch({
      model: this.model,
      client: this.name,
      prefix,
      afterRevision,
      listener,
      reconnectMs: this.reconnectMs,
      onClose: () => this.watches.delete(watch),
    });
    this.watches.add(watch);
    return watch;
  }

  /** Breaks the stream of every watch, as a dying member does; they connect again by themselves. */
  breakWatches(reason: string): void {
    for (const watch of this.watches) watch.break(reason);
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const watch of [...this.watches]) await watch.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async call<T>(about: Omit<ModelCall, 'client'> & { kind: CallKind }, apply: () => T): Promise<T> {
    if (this.closed) throw closedError(this.description);
    const fault = this.model.intercept?.({ ...about, client: this.name });
    if (fault !== undefined) return this.faulty(about.kind, fault, apply);
    // One turn of the queue away, so that no caller comes to rely on an effect before its await.
    await Promise.resolve();
    return apply();
  }

  private faulty<T>(kind: CallKind, fault: ModelFault, apply: () => T): Promise<T> {
    if (fault.kind === 'failBefore')
      return Promise.reject(new UnavailableError(`${this.description}: ${kind} did not reach the store`));
    return new Promise<T>((resolve, reject) => {
      const lost = () => reject(lostAnswer(kind, `${this.description}: the answer to ${kind} was lost`));
      const deadline = this.clock.schedule(this.deadlineMs, lost);
      const settle = (end: () => void) => {
        deadline.cancel();
        end();
      };
      if (fault.kind === 'hang') return;
      const requestMs = fault.kind === 'delay' ? fault.requestMs : 0;
      this.clock.schedule(requestMs, () => {
        const end = attempt(apply, resolve, reject);
        if (fault.kind === 'failAfter') settle(lost);
        else this.clock.schedule(fault.answerMs, () => settle(end));
      });
    });
  }
}

function attempt<T>(apply: () => T, resolve: (value: T) => void, reject: (error: unknown) => void): () => void {
  try {
    const value = apply();
    return () => resolve(value);
  } catch (error) {
    return () => reject(error);
  }
}
