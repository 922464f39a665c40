import type { Dirent } from 'node:fs';
import { type FileHandle, mkdir, open, opendir, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { ObjectInfo, ObjectStore, ObjectUpload } from '../../src/contracts/object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import {
  asError,
  InvalidArgumentError,
  MillraceError,
  NotFoundError,
  UnavailableError,
} from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { checkObjectKey, checkObjectPrefix, checkRange } from './check-object-key.ts';

export interface DirectoryObjectStoreDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface DirectoryObjectStoreOptions {
  /** Made with mode 0700 when it does not exist. Shared by all processes of the cluster. */
  readonly directory: string;
  /** Whether an object survives a power failure once `put` has answered (default true). */
  readonly fsync?: boolean;
  /** Unfinished writes not touched for this long are of dead processes (default one hour). */
  readonly unfinishedMaxAgeMs?: number;
}

/** Object keys cannot hold a tilde, so nothing in here is ever taken for an object. */
const UNFINISHED = '~unfinished';
/** Objects are files, so a key cannot also be a folder: every file name ends so, and no folder does. */
const SUFFIX = '~';

/**
 * Objects as files of a local directory.
 *
 * Invariants:
 *   D1. An object is written under another name, made durable, then renamed: who reads a key finds
 *       the whole object or none, also after a crash or a power failure.
 *   D2. Unfinished writes live apart from objects and are swept when their writer is long dead.
 */
export class DirectoryObjectStore implements ObjectStore {
  readonly description: string;
  private readonly root: string;
  private readonly unfinished: string;
  private readonly fsync: boolean;
  private closed = false;

  private constructor(
    private readonly deps: DirectoryObjectStoreDeps,
    private readonly options: DirectoryObjectStoreOptions,
  ) {
    this.root = resolve(options.directory);
    this.unfinished = join(this.root, UNFINISHED);
    this.description = `file:${this.root}`;
    this.fsync = options.fsync ?? true;
  }

  static async start(
    deps: DirectoryObjectStoreDeps,
    options: DirectoryObjectStoreOptions,
  ): Promise<DirectoryObjectStore> {
    if (options.directory === '') throw new InvalidArgumentError('object store: the directory is empty');
    const store = new DirectoryObjectStore(deps, options);
    await store.failing('start', '', () => mkdir(store.unfinished, { recursive: true, mode: 0o700 }));
    await store.sweep();
    return store;
  }

  async put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.enter(key, signal);
    const temporary = this.temporaryPath();
    await this.failing('put', key, async () => {
      const file = await open(temporary, 'wx', 0o600);
      try {
        await file.writeFile(bytes);
        if (this.fsync) await file.sync();
      } catch (error) {
        await file.close();
        await rm(temporary, { force: true });
        throw error;
      }
      await file.close();
      await this.publish(temporary, key);
    });
  }

  async get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    this.enter(key, signal);
    const bytes = await this.failing('get', key, () => readFile(this.pathOf(key), { signal }));
    // Plain bytes, as the other stores give: callers compare and transfer them.
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    this.enter(key, signal);
    checkRange(offset, length);
    return this.failing('getRange', key, async () => {
      const file = await open(this.pathOf(key), 'r');
      try {
        const { size } = await file.stat();
        const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
        for (let done = 0; done < bytes.length; ) {
          const { bytesRead } = await file.read(bytes, done, bytes.length - done, offset + done);
          if (bytesRead === 0) return bytes.subarray(0, done);
          done += bytesRead;
        }
        return bytes;
      } finally {
        await file.close();
      }
    });
  }

  async size(key: string): Promise<number | undefined> {
    this.enter(key);
    return this.failing('size', key, async () => {
      try {
        return (await stat(this.pathOf(key))).size;
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.enter(key);
    for (const key of keys) {
      await this.failing('delete', key, () => rm(this.pathOf(key), { force: true }));
      await this.removeEmptyFolders(dirname(this.pathOf(key)));
    }
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    checkObjectPrefix(prefix);
    this.requireOpen();
    // The deepest folder that the prefix names whole; below it every key is compared.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for await (const key of this.keysUnder(folder, prefix)) {
      const info = await this.failing('list', key, () => stat(this.pathOf(key)).catch(undefinedIfMissing));
      if (info !== undefined) yield { key, bytes: info.size, modifiedMs: info.mtimeMs };
    }
  }

  async upload(key: string): Promise<ObjectUpload> {
    this.enter(key);
    const temporary = this.temporaryPath();
    const file = await this.failing('upload', key, () => open(temporary, 'wx', 0o600));
    return new DirectoryUpload(file, temporary, {
      fsync: this.fsync,
      publish: () => this.publish(temporary, key),
      failing: (call, work) => this.failing(call, key, work),
    });
  }

  /** Removes what dead processes left unfinished. Runs at start; returns how many files went. */
  async sweep(): Promise<number> {
    const maxAgeMs = this.options.unfinishedMaxAgeMs ?? 3_600_000;
    let removed = 0;
    await this.failing('sweep', '', async () => {
      for await (const { name } of await opendir(this.unfinished)) {
        const path = join(this.unfinished, name);
        const info = await stat(path).catch(undefinedIfMissing);
        if (info === undefined || this.deps.clock.wallMs() - info.mtimeMs < maxAgeMs) continue;
        await rm(path, { force: true });
        removed++;
      }
    });
    if (removed > 0) this.deps.log.info({ store: this.description, removed }, 'swept unfinished objects');
    return removed;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private enter(key: string, signal?: AbortSignal): void {
    checkObjectKey(key);
    this.requireOpen();
    signal?.throwIfAborted();
  }

  private requireOpen(): void {
    if (this.closed) throw new MillraceError('CLOSED', `${this.description} is closed`);
  }

  private pathOf(key: string): string {
    return join(this.root, key) + SUFFIX;
  }

  private temporaryPath(): string {
    return join(this.unfinished, this.deps.random.hex(16));
  }

  /** D1: the content is durable already; the name is when this resolves. */
  private async publish(temporary: string, key: string): Promise<void> {
    const path = this.pathOf(key);
    for (let attempt = 0; ; attempt++) {
      try {
        if (attempt > 0) await this.makeFolders(dirname(path));
        await rename(temporary, path);
        break;
      } catch (error) {
        // The folder is new, or somebody who deleted its last object has removed it in between.
        if (!isMissing(error) || attempt >= 100) throw error;
      }
    }
    if (this.fsync) await syncFolder(dirname(path)).catch(undefinedIfMissing);
  }

  /** Like `mkdir -p`; with fsync, a new folder's name is durable in its parent too. */
  private async makeFolders(folder: string): Promise<void> {
    const made = await mkdir(folder, { recursive: true, mode: 0o700 });
    if (made === undefined || !this.fsync) return;
    for (let parent = dirname(folder); parent.length >= dirname(made).length; parent = dirname(parent)) {
      await syncFolder(parent).catch(undefinedIfMissing);
      if (parent === dirname(parent)) return;
    }
  }

  private async removeEmptyFolders(folder: string): Promise<void> {
    for (let at = folder; at !== this.root && at.startsWith(this.root); at = dirname(at)) {
      try {
        await rmdir(at);
      } catch {
        return; // Not empty, or gone already: neither is this call's concern.
      }
    }
  }

  /** Depth first with names in order gives keys in order, once a folder counts as its name and a slash. */
  private async *keysUnder(folder: string, prefix: string): AsyncIterable<string> {
    const path = join(this.root, folder);
    const found = await this.failing('list', folder, () => readdir(path, { withFileTypes: true }).catch(noneIfMissing));
    const names: string[] = [];
    for (const entry of found) {
      const name = keyPartOf(entry);
      if (name === undefined) continue;
      const key = folder + name;
      if (key.startsWith(prefix) || (name.endsWith('/') && prefix.startsWith(key))) names.push(key);
    }
    for (const key of names.sort()) {
      if (key.endsWith('/')) yield* this.keysUnder(key, prefix);
      else yield key;
    }
  }

  private async failing<T>(call: string, key: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      throw this.translated(call, key, asError(thrown));
    }
  }

  private translated(call: string, key: string, error: Error): Error {
    if (error instanceof MillraceError || error.name === 'AbortError') return error;
    if (isMissing(error) && (call === 'get' || call === 'getRange'))
      return new NotFoundError(`${this.description} has no object ${key}`, { cause: error });
    return new UnavailableError(`${this.description}: ${call} ${key} failed: ${error.message}`, {
      hint: 'The directory must exist, be writable and have room left.',
      cause: error,
    });
  }
}

interface UploadDeps {
  readonly fsync: boolean;
  readonly publish: () => Promise<void>;
  readonly failing: <T>(call: string, work: () => Promise<T>) => Promise<T>;
}

class DirectoryUpload implements ObjectUpload {
  /** Writes one after the other, in the order of the calls, also when the caller does not wait. */
  private last: Promise<void> = Promise.resolve();
  private phase: 'open' | 'completed' | 'aborted' = 'open';

  constructor(
    private readonly file: FileHandle,
    private readonly path: string,
    private readonly deps: UploadDeps,
  ) {}

  write(bytes: Uint8Array): Promise<void> {
    return this.inTurn('write', () => this.file.writeFile(bytes));
  }

  complete(): Promise<void> {
    return this.inTurn('complete', async () => {
      if (this.deps.fsync) await this.file.sync();
      this.phase = 'completed';
      await this.file.close();
      await this.deps.publish();
    });
  }

  async abort(): Promise<void> {
    if (this.phase !== 'open') return;
    this.phase = 'aborted';
    await this.last.catch(() => undefined); // The writer of that part was told.
    await this.file.close();
    await this.deps.failing('abort', () => rm(this.path, { force: true }));
  }

  private inTurn(call: string, work: () => Promise<void>): Promise<void> {
    this.last = this.last.then(async () => {
      if (this.phase !== 'open') throw new MillraceError('CONFLICT', `the upload was ${this.phase}`);
      await this.deps.failing(call, work);
    });
    // A failed part fails all that follow: an object with a hole must never be completed.
    this.last.catch(() => undefined);
    return this.last;
  }
}

/** What an entry of a folder adds to the keys in it: `name/` for a folder, `name` for an object. */
function keyPartOf(entry: Dirent): string | undefined {
  if (entry.name === UNFINISHED) return undefined;
  if (entry.isDirectory()) return `${entry.name}/`;
  return entry.isFile() && entry.name.endsWith(SUFFIX) ? entry.name.slice(0, -SUFFIX.length) : undefined;
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function undefinedIfMissing(error: unknown): undefined {
  if (!isMissing(error)) throw error;
}

function noneIfMissing(error: unknown): Dirent[] {
  if (!isMissing(error)) throw error;
  return [];
}
