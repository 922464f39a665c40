import type { Clock } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination, Entry, Listing, Revision, Watch, WatchEvent } from '../coordination/coordination.ts';
import { Doorbell } from './doorbell.ts';

export interface WatchedKeysDeps {
  readonly coordination: Coordination;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface WatchedKeysOptions {
  readonly prefix: string;
  /** Between two tries while the store is away (default 500). */
  readonly retryMs?: number;
  /**
   * Everything is listed again this often (default 5,000), because a stream can die without a sign:
   * then news is late by this at most.
   */
  readonly resyncMs?: number;
}

/**
 * A mirror of all keys under a prefix, kept by a watch. It starts empty and not `ready`, and never
 * goes back to an older revision of the store.
 */
export class WatchedKeys implements Closeable {
  private mirror = new Map<string, Entry>();
  /** All changes up to here are in the mirror, by a listing; an event at or below it is old news. */
  private listed: Revision = 0n;
  /** The newest revision that a listing or an event brought; an older listing is stale. */
  private newest: Revision = 0n;
  private synced = false;
  private reachable = false;
  private watch: Watch | undefined;
  private readonly stopping = new AbortController();
  /** Rung when the mirror may be out of date: it is listed at once. */
  private readonly doubt: Doorbell;
  private doubted = false;
  private readonly tasks: BackgroundTasks;
  private readonly retryMs: number;
  private readonly resyncMs: number;

  private constructor(
    private readonly deps: WatchedKeysDeps,
    private readonly options: WatchedKeysOptions,
    private readonly onChange: () => void,
  ) {
    this.tasks = new BackgroundTasks(deps.log);
    this.doubt = new Doorbell(deps.clock, this.stopping.signal);
    this.retryMs = options.retryMs ?? 500;
    this.resyncMs = options.resyncMs ?? 5_000;
  }

  /** Returns at once; connects in the background for as long as it takes. `onChange` must not throw. */
  static start(deps: WatchedKeysDeps, options: WatchedKeysOptions, onChange: () => void): WatchedKeys {
    const keys = new WatchedKeys(deps, options, onChange);
    keys.tasks.run('watch keys', () => keys.follow());
    return keys;
  }

  /** Whether the store has answered at all: before that an empty mirror means nothing. */
  get ready(): boolean {
    return this.synced;
  }

  /** Whether the store answered when it was last asked; while it does not, the mirror may be out of date. */
  get connected(): boolean {
    return this.reachable;
  }

  get entries(): ReadonlyMap<string, Entry> {
    return this.mirror;
  }

  /** The mirror is at least as new as this. */
  get revision(): Revision {
    return this.newest;
  }

  async close(): Promise<void> {
    this.stopping.abort();
    await this.watch?.close();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async follow(): Promise<void> {
    const { coordination, log } = this.deps;
    const { signal } = this.stopping;
    let away = false;
    while (!signal.aborted) {
      this.doubted = false;
      try {
        const listing = await coordination.list(this.options.prefix);
        if (signal.aborted) return;
        if (away) log.info({ prefix: this.options.prefix }, 'coordination store answers again');
        away = false;
        this.reachable = true;
        this.replace(listing);
        this.watch ??= coordination.watch(this.options.prefix, listing.revision, (event) => this.apply(event));
      } catch (error) {
        if (!away) log.warn({ err: asError(error), prefix: this.options.prefix }, 'coordination store away, retrying');
        away = true;
        this.reachable = false;
      }
      if (away || !this.doubted) await this.doubt.wait(away ? this.retryMs : this.resyncMs);
    }
  }

  private apply(event: WatchEvent): void {
    if (this.stopping.signal.aborted) return;
    switch (event.kind) {
      case 'disconnected':
        // Until the next listing, which says how it is. At once: whoever becomes leader meanwhile does not know whom to expect.
        this.reachable = false;
        this.doubted = true;
        this.doubt.ring();
        this.deps.log.debug({ prefix: this.options.prefix, reason: event.reason }, 'watch disconnected');
        return;
      case 'reset':
        this.replace(event.listing);
        return;
      case 'put':
      case 'delete':
        this.reachable = true;
        if (event.revision <= this.listed) return;
        this.newest = event.revision;
        if (event.kind === 'put') this.mirror.set(event.entry.key, event.entry);
        else this.mirror.delete(event.key);
        this.onChange();
        return;
    }
  }

  private replace(listing: Listing): void {
    // A listing that is older than what a watch has told, as a member that lags may give, is no news.
    if (listing.revision < this.newest) return;
    const next = new Map(listing.entries.map((entry) => [entry.key, entry]));
    const same =
      this.synced &&
      next.size === this.mirror.size &&
      [...next].every(([key, entry]) => this.mirror.get(key)?.modRevision === entry.modRevision);
    this.listed = listing.revision;
    this.newest = listing.revision;
    this.synced = true;
    this.mirror = next;
    if (!same) this.onChange();
  }
}
