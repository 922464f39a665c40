import type { ObjectInfo, ObjectStore, ObjectUpload } from '../../src/contracts/object-store.ts';
import { type Clock, sleep, type Timer } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination, Entry } from '../coordination/coordination.ts';
import { WatchedKeys } from '../election/watched-keys.ts';
import type { ClusterKeys } from './cluster-keys.ts';
import { copyOf, decodeAhead, type ObjectPointer, type ObjectType, readVerified } from './object-codec.ts';
import { decodeRecord } from './record-codec.ts';
import { CHECKPOINT_RECORD, GRAPH_OBJECT, JOB_RECORD, METADATA_OBJECT } from './records.ts';

export interface WarmObjectsDeps {
  readonly coordination: Coordination;
  readonly objects: ObjectStore;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface WarmObjectsOptions {
  /** Held at most (default 64 MiB). What does not fit is read when it is needed. */
  readonly bytesMax?: number;
}

type Wanted = ObjectPointer & { readonly type: ObjectType<unknown> };

const READS_AT_ONCE = 4;
/** Changes come in bursts; the objects are needed when a leader dies, not within the millisecond. */
const SETTLE_MS = 50;
/** Recovery is over by then. */
const USEFUL_MS = 15_000;

/**
 * The object store as a standby has it: graphs and the newest checkpoint's metadata of every job are here
 * already, and decoded, when it takes over.
 *
 * Invariants:
 *   P1. Nothing is decided by what is held. Which objects count the pointers say, read when they are needed;
 *       objects never change, and whoever reads one checks it against the digest in its pointer.
 *   P2. An object that cannot be fetched, or a record that cannot be read, is left out: whoever needs it reads it
 *       again and meets the failure for that one job.
 */
export class WarmObjects implements ObjectStore {
  readonly description: string;
  private readonly held = new Map<string, Uint8Array>();
  private bytes = 0;
  private readonly watches: readonly WatchedKeys[];
  private readonly tasks: BackgroundTasks;
  private readonly bytesMax: number;
  private paused = false;
  private forgetting: Timer | undefined;
  private looking = false;
  private closed = false;

  private constructor(
    private readonly deps: WarmObjectsDeps,
    options: WarmObjectsOptions,
  ) {
    this.description = deps.objects.description;
    this.bytesMax = options.bytesMax ?? 64 * 1024 * 1024;
    this.tasks = new BackgroundTasks(deps.log);
    this.watches = [deps.keys.jobs, deps.keys.allCheckpoints].map((prefix) =>
      WatchedKeys.start(deps, { prefix }, () => this.lookSoon()),
    );
  }

  /** Returns at once and fetches in the background. */
  static start(deps: WarmObjectsDeps, options: WarmObjectsOptions = {}): WarmObjects {
    return new WarmObjects(deps, options);
  }

  /** This replica leads: it recovers from what is held, and then needs it no more. */
  pause(): void {
    this.paused = true;
    this.forgetting = this.deps.clock.schedule(USEFUL_MS, () => this.drop([...this.held.keys()]));
  }

  resume(): void {
    this.forgetting?.cancel();
    this.paused = false;
    this.lookSoon();
  }

  /** For tests: what is held, by key. */
  get warm(): readonly string[] {
    return [...this.held.keys()];
  }

  async close(): Promise<void> {
    this.closed = true;
    this.forgetting?.cancel();
    for (const watch of this.watches) await watch.close();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    // A copy: a caller that changes what it was given must not change what the next one gets.
    const held = this.held.get(key);
    return held === undefined ? await this.deps.objects.get(key, signal) : copyOf(held);
  }

  put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.deps.objects.put(key, bytes, signal);
  }

  getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.deps.objects.getRange(key, offset, length, signal);
  }

  size(key: string): Promise<number | undefined> {
    return this.deps.objects.size(key);
  }

  delete(keys: readonly string[]): Promise<void> {
    this.drop(keys);
    return this.deps.objects.delete(keys);
  }

  list(prefix: string): AsyncIterable<ObjectInfo> {
    return this.deps.objects.list(prefix);
  }

  upload(key: string): Promise<ObjectUpload> {
    return this.deps.objects.upload(key);
  }

  private lookSoon(): void {
    if (this.looking || this.paused || this.closed) return;
    this.looking = true;
    this.tasks.run('fetch objects ahead', async () => {
      await sleep(this.deps.clock, SETTLE_MS);
      this.looking = false;
      await this.fetchWanted();
    });
  }

  private async fetchWanted(): Promise<void> {
    const wanted = this.pointers();
    this.drop(this.warm.filter((key) => !wanted.has(key)));
    const missing = [...wanted.values()].filter(({ objectKey }) => !this.held.has(objectKey));
    const fetchNext = async () => {
      for (let one = missing.shift(); one !== undefined; one = missing.shift()) {
        if (this.closed || this.paused) return;
        if (this.bytes + one.bytes <= this.bytesMax) await this.fetch(one);
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, fetchNext));
  }

  private async fetch(pointer: Wanted): Promise<void> {
    try {
      const bytes = await readVerified(this.deps.objects, pointer);
      // Another round may have been quicker.
      if (this.held.has(pointer.objectKey)) return;
      // A hundred jobs are a hundred graphs: to decode them all takes longer than to elect a leader.
      decodeAhead(pointer.type, pointer.objectKey, bytes);
      this.held.set(pointer.objectKey, bytes);
      this.bytes += bytes.length;
    } catch (error) {
      // P2. Gone already, damaged, or a store that is away.
      this.deps.log.debug({ err: asError(error), objectKey: pointer.objectKey }, 'object not fetched ahead');
    }
  }

  /** Every job's graph, and the metadata of its newest checkpoint. */
  private pointers(): ReadonlyMap<string, Wanted> {
    const [jobs, checkpoints] = this.watches.map((watch) => [...watch.entries.values()]);
    const newest = new Map<string, Entry>();
    for (const entry of checkpoints ?? []) {
      const job = entry.key.slice(0, entry.key.lastIndexOf('/'));
      if ((newest.get(job)?.key ?? '') < entry.key) newest.set(job, entry);
    }
    const pointers = new Map<string, Wanted>();
    const add = (type: Wanted['type'], read: () => ObjectPointer) => {
      try {
        const pointer = read();
        pointers.set(pointer.objectKey, { ...pointer, type });
      } catch (error) {
        this.deps.log.debug({ err: asError(error) }, 'record not read ahead'); // P2
      }
    };
    for (const entry of jobs ?? []) add(GRAPH_OBJECT, () => decodeRecord(JOB_RECORD, entry).graph);
    for (const entry of newest.values()) add(METADATA_OBJECT, () => decodeRecord(CHECKPOINT_RECORD, entry).metadata);
    return pointers;
  }

  private drop(keys: readonly string[]): void {
    for (const key of keys) {
      this.bytes -= this.held.get(key)?.length ?? 0;
      this.held.delete(key);
    }
  }
}
