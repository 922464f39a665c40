import type { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import type { ObjectInfo, ObjectStore, ObjectUpload } from '../../src/contracts/object-store.ts';
import { UnavailableError } from '../../src/kernel/errors.ts';
import type { SimProcess } from './sim-process.ts';

/** What one request to the object store meets. `late`: it takes effect so much later than its failure was told. */
export interface ObjectFate {
  readonly requestMs: number;
  readonly answerMs: number;
  readonly fails: 'no' | 'before' | 'after' | 'late';
}

export type ObjectCall = { readonly kind: 'put' | 'get' | 'size' | 'delete' | 'list'; readonly key: string };

/** One process's client of the shared store. */
export class SimObjects implements ObjectStore {
  readonly description = 'memory:';

  constructor(
    private readonly process: SimProcess,
    private readonly store: MemoryObjectStore,
    private readonly fateOf: (process: SimProcess, call: ObjectCall) => ObjectFate,
  ) {}

  put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    const copy = new Uint8Array(bytes);
    return this.call({ kind: 'put', key }, () => this.store.put(key, copy), signal);
  }

  get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    return this.call({ kind: 'get', key }, () => this.store.get(key), signal);
  }

  getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.call({ kind: 'get', key }, () => this.store.getRange(key, offset, length), signal);
  }

  size(key: string): Promise<number | undefined> {
    return this.call({ kind: 'size', key }, () => this.store.size(key));
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.call({ kind: 'delete', key: keys[0] ?? '' }, () => this.store.delete(keys));
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    yield* await this.call({ kind: 'list', key: prefix }, async () => {
      const page: ObjectInfo[] = [];
      for await (const object of this.store.list(prefix)) page.push(object);
      return page;
    });
  }

  async upload(key: string): Promise<ObjectUpload> {
    const parts: Uint8Array[] = [];
    return {
      write: async (bytes) => void parts.push(new Uint8Array(bytes)),
      complete: () => this.put(key, Buffer.concat(parts)),
      abort: async () => {},
    };
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  private call<T>(call: ObjectCall, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const { process } = this;
    if (signal?.aborted) return Promise.reject(signal.reason);
    return process.outside((resolve, reject) => {
      const { time } = process;
      const fate = this.fateOf(process, call);
      const away = () => reject(new UnavailableError(`${this.description}: ${call.kind} ${call.key} failed`));
      if (fate.fails === 'before') {
        time.after(fate.answerMs, away);
        return;
      }
      // The request has left: whatever becomes of its sender, it takes effect.
      const arriveMs = fate.fails === 'late' ? fate.requestMs + fate.answerMs : fate.requestMs;
      time.after(arriveMs, () => {
        work().then(
          (value) => {
            if (fate.fails === 'no') time.after(fate.answerMs, () => resolve(value));
          },
          (error: unknown) => {
            if (fate.fails === 'no') time.after(fate.answerMs, () => reject(error));
          },
        );
      });
      if (fate.fails !== 'no') time.after(fate.requestMs + (fate.fails === 'after' ? fate.answerMs : 0), away);
    });
  }
}
