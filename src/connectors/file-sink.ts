import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { RuntimeContext } from '../api/functions.ts';
import type { CommitContext, TwoPhaseCommitSink, TwoPhaseCommitWriter } from '../api/sink.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { type Random, SystemRandom } from '../kernel/random.ts';
import { Backlog, PartFile } from './part-file.ts';
import {
  commitPart,
  type FileCommittable,
  type PartOwner,
  partNames,
  sweepOlderDeployments,
  syncFolder,
  syncFoldersOf,
} from './part-files.ts';
import { absolutePath, shown } from './text-file-splits.ts';

/**
 * Rows in files, exactly once.
 *
 * A part is written under a hidden name, `.part-<subtask>-<deployment>-<job>-<writer>-<n>.inprogress`. At a
 * checkpoint it is cut, synced and closed; once the checkpoint has completed it is renamed to
 * `part-<subtask>-<deployment>-<writer>-<n>`. **A reader takes every file whose name begins with neither
 * `.` nor `_`**; what it sees is complete, and never changes.
 *
 * Why a zombie, a writer of an older deployment that does not know that it was replaced, cannot make
 * output visible twice:
 *
 *   F1. A name belongs to one writer for ever (job, deployment, random writer id, number), so no two
 *       writers ever write one file, and a rename never replaces one.
 *   F2. Output becomes visible by the rename in `commit` or in `open(restored)` only, and both get
 *       only files that are in a completed checkpoint (or, in a job that takes none, all at its end:
 *       such a job promises nothing across restarts).
 *   F3. If the zombie's checkpoint completed, then the new deployment restored it or a later one (recovery
 *       takes the newest), which holds the same file, or was taken after it was renamed. Zombie and new
 *       writer then rename the same file to the same name: it happens once, whoever is first. The file was
 *       closed before the checkpoint was acknowledged, so the zombie has no way left to change it.
 *   F4. If its checkpoint did not complete, it never will: its deployment is fenced, nobody sends a notice,
 *       and the subtask refuses one of another deployment. The file stays hidden. The new deployment
 *       replays those records into files of its own.
 *
 * What is left over is removed late rather than early. When a deployment starts, a hidden file of an
 * older one may belong to the checkpoint restored, and be on its way to *another* subtask that has not
 * opened yet. But every subtask has opened, and so has committed all that was restored, before the first
 * checkpoint of the new deployment completes. Subtask 0 knows of one by a commit that was followed by
 * another cut (the commit at the end of a job that takes no checkpoints is followed by none, and proves
 * nothing); with its next commit it removes what older deployments left. Newer deployments' files it
 * never touches: it may be the zombie.
 */
export interface FileSinkOptions<T> {
  readonly name?: string;
  /** One row without its newline. Default: strings as they are, everything else as JSON. */
  readonly encoder?: (value: T) => string | Uint8Array;
  /** Files' names begin with it. Default `part`. */
  readonly partPrefix?: string;
  /** Files' names end with it, for example `.jsonl`. */
  readonly partSuffix?: string;
  /** A part that has reached this size is followed by another one. Default: one part for each checkpoint. */
  readonly maxPartBytes?: number;
  /**
   * What to think when a restored checkpoint names a file that is gone, hidden and final. `fail`: output
   * was lost. `assume-consumed`: it was committed, and its consumer has removed it.
   */
  readonly whenMissing?: 'fail' | 'assume-consumed';
  readonly random?: Random;
}

/**
 * Writes rows to a folder, which all workers must see under the same path. A relative path starts at each
 * worker's working folder.
 */
export function fileSink<T>(
  folderOrUrl: string,
  options: FileSinkOptions<T> = {},
): TwoPhaseCommitSink<T, FileCommittable> {
  const folder = absolutePath(folderOrUrl);
  const { partPrefix = 'part', partSuffix = '', maxPartBytes = Number.POSITIVE_INFINITY } = options;
  checkNamePart('partPrefix', partPrefix, /^[A-Za-z0-9][A-Za-z0-9._-]*$/);
  checkNamePart('partSuffix', partSuffix, /^[A-Za-z0-9._-]*$/);
  if (!(maxPartBytes > 0)) throw new InvalidArgumentError(`maxPartBytes is ${maxPartBytes}; it must be positive`);
  const random = options.random ?? new SystemRandom();
  return {
    name: options.name ?? `File Sink: ${shown(folderOrUrl)}`,
    twoPhaseCommit: true,
    createWriter: (context) =>
      new FileSinkWriter<T>(folder, ownerOf(context, { partPrefix, partSuffix, random }), {
        encoder: options.encoder ?? encodeRow,
        maxPartBytes,
        whenMissing: options.whenMissing ?? 'fail',
      }),
  };
}

/** The same as {@link fileSink} in the words of Flink: `FileSink.forRowFormat(folder).withPartSuffix('.txt').build()`. */
export class FileSink<T> {
  private constructor(
    private readonly folder: string,
    private readonly options: FileSinkOptions<T>,
  ) {}

  static forRowFormat<T>(folder: string, encoder?: (value: T) => string | Uint8Array): FileSink<T> {
    return new FileSink<T>(folder, encoder === undefined ? {} : { encoder });
  }

  withName(name: string): FileSink<T> {
    return new FileSink(this.folder, { ...this.options, name });
  }

  withPartPrefix(partPrefix: string): FileSink<T> {
    return new FileSink(this.folder, { ...this.options, partPrefix });
  }

  withPartSuffix(partSuffix: string): FileSink<T> {
    return new FileSink(this.folder, { ...this.options, partSuffix });
  }

  withMaxPartBytes(maxPartBytes: number): FileSink<T> {
    return new FileSink(this.folder, { ...this.options, maxPartBytes });
  }

  build(): TwoPhaseCommitSink<T, FileCommittable> {
    return fileSink(this.folder, this.options);
  }
}

interface WriterOptions<T> {
  readonly encoder: (value: T) => string | Uint8Array;
  readonly maxPartBytes: number;
  readonly whenMissing: 'fail' | 'assume-consumed';
}

class FileSinkWriter<T> implements TwoPhaseCommitWriter<T, FileCommittable> {
  private readonly backlog = new Backlog();
  private parts = 0;
  /** Of the present transaction: the last one still takes rows unless it is full. */
  private transaction: Part[] = [];
  /** What is known of the other subtasks: nothing; a commit came; and it came from a completed checkpoint. */
  private proof: 'none' | 'committed' | 'all opened' = 'none';
  private swept = false;

  constructor(
    private readonly folder: string,
    private readonly owner: PartOwner,
    private readonly options: WriterOptions<T>,
  ) {}

  async open(restored: readonly FileCommittable[]): Promise<void> {
    try {
      await mkdir(this.folder, { recursive: true });
    } catch (error) {
      throw new InvalidArgumentError(`the folder ${this.folder} cannot be made: ${String(error)}`, { cause: error });
    }
    await this.commitAll(restored);
  }

  write(value: T): void {
    if (this.backlog.failure !== undefined) throw this.failed();
    const row = this.options.encoder(value);
    let part = this.transaction.at(-1);
    if (part === undefined || part.file.size >= this.options.maxPartBytes) {
      // Not only at the checkpoint, or many small parts would hold as many open files.
      part?.file.seal();
      part = this.newPart();
      this.transaction.push(part);
    }
    part.file.append(row);
  }

  ready(): Promise<void> | undefined {
    return this.backlog.ready();
  }

  prepareCommit(_checkpointId: number): Promise<readonly FileCommittable[]> {
    // The cut: rows from here on go to new parts. Nothing is awaited before it.
    const cut = this.transaction;
    this.transaction = [];
    // Nothing is cut after the end of a job, so the commit before was not that one.
    if (this.proof === 'committed') this.proof = 'all opened';
    return this.prepare(cut);
  }

  async commit(committables: readonly FileCommittable[], _context: { readonly checkpointId: number }): Promise<void> {
    await this.commitAll(committables);
    if (this.proof === 'none') this.proof = 'committed';
    if (this.proof !== 'all opened' || this.swept || this.owner.subtaskIndex !== 0) return;
    this.swept = true;
    await sweepOlderDeployments(this.folder, this.owner);
  }

  /** Files that were prepared stay: their checkpoint may have completed without our knowing. */
  async close(): Promise<void> {
    const unprepared = this.transaction;
    this.transaction = [];
    for (const { file } of unprepared) await file.discard();
  }

  private async prepare(parts: readonly Part[]): Promise<readonly FileCommittable[]> {
    if (parts.length === 0) return [];
    try {
      const prepared = await Promise.all(
        parts.map(async ({ file, final }) => ({ tmp: file.path, final, bytes: await file.finish() })),
      );
      await syncFolder(this.folder);
      return prepared;
    } catch (error) {
      throw this.failed(error);
    }
  }

  private async commitAll(committables: readonly FileCommittable[]): Promise<void> {
    for (const committable of committables) await commitPart(committable, this.options);
    // Also when nothing was left to rename: a crash may have come between rename and sync.
    await syncFoldersOf(committables);
  }

  private newPart(): Part {
    const { tmp, final } = partNames(this.owner, this.parts++);
    return { file: new PartFile(join(this.folder, tmp), this.backlog), final: join(this.folder, final) };
  }

  private failed(cause: unknown = this.backlog.failure): MillraceError {
    return new MillraceError('UNAVAILABLE', `writing to ${this.folder} failed: ${String(cause)}`, { cause });
  }
}

interface Part {
  readonly file: PartFile;
  readonly final: string;
}

function ownerOf(
  context: RuntimeContext & CommitContext,
  {
    partPrefix,
    partSuffix,
    random,
  }: { readonly partPrefix: string; readonly partSuffix: string; readonly random: Random },
): PartOwner {
  const { jobId, subtaskIndex, deployment } = context;
  return { prefix: partPrefix, suffix: partSuffix, jobId, subtaskIndex, deployment, writerId: random.hex(6) };
}

function encodeRow(value: unknown): string {
  if (typeof value === 'string') return value;
  let row: string | undefined;
  try {
    row = JSON.stringify(value);
  } catch (error) {
    throw notJson(value, error);
  }
  if (row === undefined) throw notJson(value, undefined);
  return row;
}

function notJson(value: unknown, cause: unknown): InvalidArgumentError {
  return new InvalidArgumentError(`a record of type ${typeof value} cannot be written as JSON`, {
    hint: 'give the file sink an encoder',
    cause,
  });
}

function checkNamePart(option: string, value: string, pattern: RegExp): void {
  if (pattern.test(value)) return;
  throw new InvalidArgumentError(`${option} '${value}' cannot be part of a file name that readers take`, {
    hint: "use letters, digits, '.', '_' and '-'; a prefix begins with a letter or digit",
  });
}
