import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TwoPhaseCommitSink } from '../api/sink.ts';
import {
  type CommitReason,
  type PreCommitted,
  TwoPhaseCommitSinkFunction,
  twoPhaseCommitSink,
} from '../api/two-phase-commit.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { type Random, SystemRandom } from '../kernel/random.ts';
import { Backlog, PartFile } from './part-file.ts';
import {
  commitPart,
  type FileCommittable,
  type PartOwner,
  partNames,
  sweepLeftovers,
  syncFolder,
  syncFoldersOf,
} from './part-files.ts';
import { checkNaming, encodeRow, type PartNaming, type RowEncoder } from './rows.ts';
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
 * checkpoint of the new deployment completes (X4). Then each subtask removes what older deployments left
 * under its own index; newer deployments' files it never touches: it may be the zombie.
 *
 * A commit whose file is gone, hidden and final, is refused as `FENCED` when the folder shows a newer
 * deployment of the subtask; else output was lost, which is said as what it is.
 */
export interface FileSinkOptions<T> extends PartNaming {
  readonly name?: string;
  /** One row without its newline. Default: strings as they are, everything else as JSON. */
  readonly encoder?: RowEncoder<T>;
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
): TwoPhaseCommitSink<T, PreCommitted<FileCommittable>> {
  const folder = absolutePath(folderOrUrl);
  const { maxPartBytes = Number.POSITIVE_INFINITY } = options;
  const naming = checkNaming(options);
  if (!(maxPartBytes > 0)) throw new InvalidArgumentError(`maxPartBytes is ${maxPartBytes}; it must be positive`);
  const random = options.random ?? new SystemRandom();
  return twoPhaseCommitSink(
    options.name ?? `File Sink: ${shown(folderOrUrl)}`,
    (context) =>
      new FileSinkFunction<T>(
        folder,
        { prefix: naming.partPrefix, suffix: naming.partSuffix, writerId: random.hex(6), context },
        { encoder: options.encoder ?? encodeRow, maxPartBytes, whenMissing: options.whenMissing ?? 'fail' },
      ),
  );
}

/** The same as {@link fileSink} in the words of Flink: `FileSink.forRowFormat(folder).withPartSuffix('.txt').build()`. */
export class FileSink<T> {
  private constructor(
    private readonly folder: string,
    private readonly options: FileSinkOptions<T>,
  ) {}

  static forRowFormat<T>(folder: string, encoder?: RowEncoder<T>): FileSink<T> {
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

  build(): TwoPhaseCommitSink<T, PreCommitted<FileCommittable>> {
    return fileSink(this.folder, this.options);
  }
}

interface FunctionOptions<T> {
  readonly encoder: RowEncoder<T>;
  readonly maxPartBytes: number;
  readonly whenMissing: 'fail' | 'assume-consumed';
}

/** Of one transaction: the last part still takes rows unless it is full. */
type Parts = Part[];

class FileSinkFunction<T> extends TwoPhaseCommitSinkFunction<T, Parts, FileCommittable> {
  private readonly backlog = new Backlog();
  private parts = 0;

  constructor(
    private readonly folder: string,
    private readonly owner: PartOwner,
    private readonly options: FunctionOptions<T>,
  ) {
    super();
  }

  override async open(): Promise<void> {
    try {
      await mkdir(this.folder, { recursive: true });
    } catch (error) {
      throw new InvalidArgumentError(`the folder ${this.folder} cannot be made: ${String(error)}`, { cause: error });
    }
  }

  begin(): Parts {
    return [];
  }

  write(parts: Parts, value: T): void {
    if (this.backlog.failure !== undefined) throw this.failed();
    const row = this.options.encoder(value);
    let part = parts.at(-1);
    if (part === undefined || part.file.size >= this.options.maxPartBytes) {
      // Not only at the checkpoint, or many small parts would hold as many open files.
      part?.file.seal();
      part = this.newPart();
      parts.push(part);
    }
    part.file.append(row);
  }

  override ready(): Promise<void> | undefined {
    return this.backlog.ready();
  }

  async preCommit(parts: Parts): Promise<readonly FileCommittable[]> {
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

  async commit(preCommitted: readonly PreCommitted<FileCommittable>[], reason: CommitReason): Promise<void> {
    const { whenMissing } = this.options;
    for (const { committable } of preCommitted) await commitPart(committable, this.owner, { whenMissing, reason });
    // Also when nothing was left to rename: a crash may have come between rename and sync.
    await syncFoldersOf(preCommitted.map(({ committable }) => committable));
  }

  async abort(parts: Parts): Promise<void> {
    for (const { file } of parts) await file.discard();
  }

  override async abortLeftovers(): Promise<void> {
    await sweepLeftovers(this.folder, this.owner);
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
