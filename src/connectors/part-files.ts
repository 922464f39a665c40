import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CorruptError } from '../kernel/errors.ts';
import { compareDeployments, type DeploymentId } from '../kernel/ids.ts';

/** A file that is complete and durable under a hidden name, waiting to get its final one. Plain data. */
export interface FileCommittable {
  /** Absolute, as is `final`, in the same folder. */
  readonly tmp: string;
  readonly final: string;
  readonly bytes: number;
}

/** Whose files they are. */
export interface PartOwner {
  readonly prefix: string;
  readonly suffix: string;
  readonly subtaskIndex: number;
  readonly deployment: string;
  readonly jobId: string;
  /** Random, one for each writer. */
  readonly writerId: string;
}

export function partNames(owner: PartOwner, n: number): { readonly tmp: string; readonly final: string } {
  const { prefix, suffix, subtaskIndex, deployment, jobId, writerId } = owner;
  const stem = `${prefix}-${subtaskIndex}-${deployment}`;
  return {
    tmp: `.${stem}-${jobId}-${writerId}-${n}.inprogress`,
    final: `${stem}-${writerId}-${n}${suffix}`,
  };
}

/**
 * Gives the file its final name. Idempotent, and safe against another process that does the same at
 * the same time: a rename happens once, and whoever comes late finds the final file.
 */
export async function commitPart(
  { tmp, final, bytes }: FileCommittable,
  options: { readonly whenMissing: 'fail' | 'assume-consumed' },
): Promise<void> {
  const prepared = await sizeOf(tmp);
  if (prepared !== undefined) {
    if (prepared !== bytes) throw torn(tmp, prepared, bytes);
    if (await renamed(tmp, final)) return;
  }
  const committed = await sizeOf(final);
  if (committed === bytes || (committed === undefined && options.whenMissing === 'assume-consumed')) return;
  if (committed !== undefined) throw torn(final, committed, bytes);
  throw new CorruptError(
    `output is lost: neither ${tmp} nor ${final} exists, but a completed checkpoint holds ${bytes} bytes of it`,
    {
      hint:
        'all workers must write to one shared folder under the same path; when a consumer removes committed files, ' +
        "build the sink with whenMissing: 'assume-consumed'",
    },
  );
}

/** False when another process was faster. */
async function renamed(tmp: string, final: string): Promise<boolean> {
  try {
    await rename(tmp, final);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Makes new names in a folder survive a loss of power. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems cannot; there names are durable with the file or not at all.
    if (!hasCode(error, ['EINVAL', 'ENOTSUP', 'EPERM', 'EISDIR'])) throw error;
  } finally {
    await handle.close();
  }
}

export async function syncFoldersOf(committables: readonly FileCommittable[]): Promise<void> {
  for (const folder of new Set(committables.map(({ final }) => dirname(final)))) await syncFolder(folder);
}

/** Removes hidden files that deployments before `owner.deployment` left for the same job and prefix. Gives how many. */
export async function sweepOlderDeployments(folder: string, owner: PartOwner): Promise<number> {
  const pattern = new RegExp(
    `^\\.${escaped(owner.prefix)}-\\d+-(\\d+-\\d+)-${owner.jobId}-[0-9a-f]+-\\d+\\.inprogress$`,
  );
  let removed = 0;
  for (const name of await readdir(folder)) {
    const deployment = pattern.exec(name)?.[1];
    if (deployment === undefined) continue;
    if (compareDeployments(deployment as DeploymentId, owner.deployment as DeploymentId) >= 0) continue;
    await rm(join(folder, name), { force: true });
    removed++;
  }
  return removed;
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function torn(path: string, found: number, expected: number): CorruptError {
  return new CorruptError(`${path} has ${found} bytes, but ${expected} were written and checkpointed`, {
    hint: 'something else has changed the file; its rows cannot be made again from the checkpoint',
  });
}

function isMissing(error: unknown): boolean {
  return hasCode(error, ['ENOENT']);
}

function hasCode(error: unknown, codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code);
}

function escaped(text: string): string {
  return text.replace(/[^A-Za-z0-9]/g, '\\$&');
}
