import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { StateHandle } from '../contracts/state-handles.ts';
import { asError } from '../kernel/errors.ts';
import type { JobId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { SnapshotOptions } from './ports.ts';

/**
 * Copies of the state that tasks of this worker wrote for the newest checkpoint, on its own disk.
 *
 *   C1. A copy is never needed: whatever is wrong with it, the object store has the same.
 *   C2. A copy is read only when its size and digest are those of the handle.
 *   C3. A checkpoint's folder holds all that its tasks here refer to: what an earlier one wrote as a hard link. So
 *       older folders go as wholes when a checkpoint completes, and the file system counts who still needs what.
 *
 * Layout: `<directory>/<jobId>/chk-<id>/<last part of the object's key>`, which is unique. Slots of one
 * process share it.
 */
export class LocalCopies {
  /** By job, up to which checkpoint folders have been removed from here. */
  private readonly prunedTo = new Map<JobId, number>();
  private readonly removals = new Set<Promise<void>>();

  constructor(
    private readonly directory: string,
    private readonly log: Logger,
  ) {}

  /** The copy of an object that is about to be written. */
  begin(jobId: JobId, checkpointId: number, objectKey: string): LocalCopy {
    return new LocalCopy(this.pathOf(jobId, checkpointId, objectKey), this.log);
  }

  /** Keeps the copies that the checkpoint `from` had of objects that a new one refers to. */
  async keep(
    jobId: JobId,
    checkpoints: { readonly from: number; readonly to: number },
    objectKeys: Iterable<string>,
  ): Promise<void> {
    for (const key of objectKeys) {
      const target = this.pathOf(jobId, checkpoints.to, key);
      try {
        await mkdir(join(target, '..'), { recursive: true });
        await link(this.pathOf(jobId, checkpoints.from, key), target);
      } catch (error) {
        // C1: another worker wrote it, or the older folder has just gone.
        this.log.debug({ err: asError(error), objectKey: key }, 'no local copy to keep');
      }
    }
  }

  /** Objects as a restore reads them: from here where there is an intact copy, else from the store. */
  reader(jobId: JobId, checkpointId: number, handles: Iterable<StateHandle>, objects: ObjectStore): LocalReader {
    const known = new Map<string, Extract<StateHandle, { kind: 'object' }>>();
    for (const handle of handles) if (handle.kind === 'object') known.set(handle.key, handle);
    return new LocalReader(known, (key) => this.pathOf(jobId, checkpointId, key), objects, this.log);
  }

  /** Older checkpoints are not restored from any more. C3 */
  completed(jobId: JobId, checkpointId: number): void {
    if ((this.prunedTo.get(jobId) ?? 0) >= checkpointId) return;
    this.remove(async () => {
      const folders = await foldersOf(join(this.directory, jobId));
      // Of a savepoint there are no copies: those of the checkpoint before it may yet be of use.
      if (!folders.some((folder) => folder.checkpointId === checkpointId)) return;
      this.prunedTo.set(jobId, checkpointId);
      for (const folder of folders) if (folder.checkpointId < checkpointId) await removeFolder(folder.path);
    });
  }

  aborted(jobId: JobId, checkpointId: number): void {
    this.remove(() => removeFolder(join(this.directory, jobId, `chk-${checkpointId}`)));
  }

  /** Resolves when what was to be removed is gone. */
  async settled(): Promise<void> {
    while (this.removals.size > 0) await Promise.all(this.removals);
  }

  private remove(work: () => Promise<void>): void {
    const removal: Promise<void> = work()
      .catch((error: unknown) => this.log.warn({ err: asError(error) }, 'old local copies of state not removed'))
      .finally(() => void this.removals.delete(removal));
    this.removals.add(removal);
  }

  private pathOf(jobId: JobId, checkpointId: number, objectKey: string): string {
    return join(this.directory, jobId, `chk-${checkpointId}`, basename(objectKey));
  }
}

/** The copies of one job. */
export class JobCopies {
  constructor(
    private readonly copies: LocalCopies,
    private readonly jobId: JobId,
  ) {}

  /** Undefined for what no failure is recovered from. */
  begin(checkpointId: number | undefined, objectKey: string, { kind }: SnapshotOptions): LocalCopy | undefined {
    if (checkpointId === undefined || kind === 'SAVEPOINT') return undefined;
    return this.copies.begin(this.jobId, checkpointId, objectKey);
  }

  keep(checkpoints: { readonly from: number; readonly to: number }, objectKeys: Iterable<string>): Promise<void> {
    return this.copies.keep(this.jobId, checkpoints, objectKeys);
  }

  reader(checkpointId: number, handles: Iterable<StateHandle>, objects: ObjectStore): LocalReader {
    return this.copies.reader(this.jobId, checkpointId, handles, objects);
  }

  completed(checkpointId: number): void {
    this.copies.completed(this.jobId, checkpointId);
  }

  aborted(checkpointId: number): void {
    this.copies.aborted(this.jobId, checkpointId);
  }
}

/** All copies of a job in this process's directory: the job is over. */
export async function removeLocalCopies(directory: string, jobId: JobId): Promise<void> {
  await removeFolder(join(directory, jobId));
}

async function foldersOf(path: string): Promise<readonly { readonly path: string; readonly checkpointId: number }[]> {
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.flatMap((name) => {
    const found = /^chk-(\d+)$/.exec(name);
    return found === null ? [] : [{ path: join(path, name), checkpointId: Number(found[1]) }];
  });
}

/** Several slots may do so at once. */
function removeFolder(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true, maxRetries: 3 });
}

/** One copy while it is written, beside the object. A failure ends the copy, never the checkpoint (C1). */
export class LocalCopy {
  private file: FileHandle | undefined;
  private failed = false;

  constructor(
    private readonly path: string,
    private readonly log: Logger,
  ) {}

  async write(bytes: Uint8Array): Promise<void> {
    await this.attempt(async () => {
      if (this.file === undefined) {
        await mkdir(join(this.path, '..'), { recursive: true, mode: 0o700 });
        this.file = await open(this.path, 'w', 0o600);
      }
      await this.file.write(bytes);
    });
  }

  async finish(): Promise<void> {
    await this.attempt(async () => {
      await this.file?.close();
      this.file = undefined;
    });
  }

  /** The object has not come about, or travels inside the handle. */
  async abandon(): Promise<void> {
    this.failed = true;
    try {
      await this.file?.close();
      this.file = undefined;
      await rm(this.path, { force: true });
    } catch (error) {
      this.log.debug({ err: asError(error), path: this.path }, 'local copy not removed');
    }
  }

  private async attempt(work: () => Promise<void>): Promise<void> {
    if (this.failed) return;
    try {
      await work();
    } catch (error) {
      this.log.warn({ err: asError(error), path: this.path }, 'state could not be copied to the local disk');
      await this.abandon();
    }
  }
}

/** What a restore reads with. */
export class LocalReader implements Pick<ObjectStore, 'getRange'> {
  private readonly checked = new Map<string, Promise<FileHandle | undefined>>();

  constructor(
    private readonly handles: ReadonlyMap<string, Extract<StateHandle, { kind: 'object' }>>,
    private readonly pathOf: (objectKey: string) => string,
    private readonly objects: ObjectStore,
    private readonly log: Logger,
  ) {}

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    let file = this.checked.get(key);
    if (file === undefined) {
      file = this.openChecked(key);
      this.checked.set(key, file);
    }
    const local = await file;
    if (local !== undefined) {
      const bytes = Buffer.allocUnsafe(length);
      const { bytesRead } = await local.read(bytes, 0, length, offset);
      if (bytesRead === length) return bytes;
    }
    return this.objects.getRange(key, offset, length, signal);
  }

  /** Tells how many objects were read from here, of those asked for. */
  async close(owner: string): Promise<void> {
    const files = await Promise.all(this.checked.values());
    const local = files.filter((file) => file !== undefined);
    await Promise.all(local.map((file) => file.close()));
    this.checked.clear();
    if (files.length > 0) this.log.info({ owner, local: local.length, objects: files.length }, 'state restored');
  }

  private async openChecked(key: string): Promise<FileHandle | undefined> {
    const handle = this.handles.get(key);
    if (handle === undefined) return undefined;
    const path = this.pathOf(key);
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'r');
      const { size } = await file.stat();
      if (size === handle.size && (await digestOfFile(path)) === handle.digest) return file; // C2
      this.log.warn({ objectKey: key, size }, 'the local copy of a state object is damaged, the store is read');
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      if (!missing) this.log.warn({ err: asError(error), objectKey: key }, 'no local copy, the store is read');
    }
    await file?.close();
    return undefined;
  }
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
