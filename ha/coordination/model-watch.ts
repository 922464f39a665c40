import type { Timer } from '../../src/kernel/clock.ts';
import type { Revision, Watch, WatchEvent } from './coordination.ts';
import type { EtcdModel, ModelFault } from './etcd-model.ts';
import { deliverChanges } from './deliver-changes.ts';
import type { ChangeSet } from './revision-engine.ts';

export interface ModelWatchOptions {
  readonly model: EtcdModel;
  readonly client: string;
  readonly prefix: string;
  readonly afterRevision: Revision;
  readonly listener: (event: WatchEvent) => void;
  readonly reconnectMs: number;
  readonly onClose: () => void;
}

type Phase =
  | { readonly kind: 'connecting'; readonly timer: Timer | undefined }
  | { readonly kind: 'connected'; readonly unsubscribe: () => void; readonly delivery: Timer | 'microtask' | undefined }
  | { readonly kind: 'closed' };

/** A watch that always asks for what comes after the last revision it has delivered (C4). */
export class ModelWatch implements Watch {
  private phase: Phase = { kind: 'connecting', timer: undefined };
  private last: Revision;

  constructor(private readonly options: ModelWatchOptions) {
    this.last = options.afterRevision;
    queueMicrotask(() => this.connect());
  }

  async close(): Promise<void> {
    if (this.phase.kind === 'closed') return;
    this.leave();
    this.phase = { kind: 'closed' };
    this.options.onClose();
  }

  break(reason: string): void {
    if (this.phase.kind !== 'connected') return;
    this.leave();
    this.reconnectLater();
    this.options.listener({ kind: 'disconnected', reason });
  }

  private connect(): void {
    if (this.phase.kind !== 'connecting') return;
    const fault = this.fault('watch');
    if (fault !== undefined && fault.kind !== 'delay') {
      this.reconnectLater();
      return;
    }
    const unsubscribe = this.options.model.subscribe(() => this.changed());
    this.phase = { kind: 'connected', unsubscribe, delivery: undefined };
    this.deliverSoon();
  }

  private reconnectLater(): void {
    const timer = this.options.model.clock.schedule(this.options.reconnectMs, () => this.connect());
    this.phase = { kind: 'connecting', timer };
  }

  /** As with etcd, changes to other keys are no news: they cost no message. */
  private changed(): void {
    if (this.phase.kind !== 'connected' || this.phase.delivery !== undefined) return;
    const { model, prefix } = this.options;
    const sets = model.changesAfter(this.last);
    const concerns = ({ changes }: ChangeSet) =>
      changes.some((change) => (change.kind === 'put' ? change.entry.key : change.key).startsWith(prefix));
    if (sets === undefined || sets.some(concerns)) this.deliverSoon();
    else this.last = sets.at(-1)?.revision ?? this.last;
  }

  private deliverSoon(): void {
    if (this.phase.kind !== 'connected' || this.phase.delivery !== undefined) return;
    const fault = this.fault('watchEvents');
    if (fault !== undefined && fault.kind !== 'delay') {
      // Told later: the change that led here is still being applied by its caller.
      queueMicrotask(() => this.break(`injected: ${fault.kind}`));
      return;
    }
    if (fault === undefined) {
      this.phase = { ...this.phase, delivery: 'microtask' };
      queueMicrotask(() => this.deliver());
      return;
    }
    const delivery = this.options.model.clock.schedule(fault.requestMs + fault.answerMs, () => this.deliver());
    this.phase = { ...this.phase, delivery };
  }

  private deliver(): void {
    if (this.phase.kind !== 'connected') return;
    this.phase = { ...this.phase, delivery: undefined };
    const sets = this.options.model.changesAfter(this.last);
    if (sets === undefined) {
      const listing = this.options.model.list(this.options.prefix);
      this.last = listing.revision;
      this.options.listener({ kind: 'reset', listing });
      return;
    }
    for (const set of sets) {
      // A listener may close or break its watch: what it has not seen then comes after it connects again.
      if (this.phase.kind !== 'connected') return;
      this.last = set.revision;
      deliverChanges(set, this.options.prefix, (event) => this.tell(event));
    }
  }

  private tell(event: WatchEvent): void {
    if (this.phase.kind !== 'closed') this.options.listener(event);
  }

  private leave(): void {
    if (this.phase.kind === 'connecting') this.phase.timer?.cancel();
    if (this.phase.kind !== 'connected') return;
    this.phase.unsubscribe();
    if (typeof this.phase.delivery === 'object') this.phase.delivery.cancel();
  }

  private fault(kind: 'watch' | 'watchEvents'): ModelFault | undefined {
    const { model, client, prefix } = this.options;
    return model.intercept?.({ client, kind, subject: prefix });
  }
}
