import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { RuntimeContext } from '../api/functions.ts';
import type { CommitContext } from '../api/sink.ts';
import { type CommitReason, isLeftover } from '../api/two-phase-commit.ts';
import { CorruptError, FencedError } from '../kernel/errors.ts';
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
  /** Random, one for each attempt. */
  readonly writerId: string;
  readonly context: RuntimeContext & CommitContext;
}

export function partNames(owner: PartOwner, n: number): { readonly tmp: string; readonly final: string } {
  const { prefix, suffix, writerId } = owner;
  const { subtaskIndex, deployment, jobId } = owner.context;
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
  owner: PartOwner,
  options: { readonly whenMissing: 'fail' | 'assume-consumed'; readonly reason: CommitReason },
): Promise<void> {
  const prepared = await sizeOf(tmp);
  if (prepared !== undefined) {
    if (prepared !== bytes) throw torn(tmp, prepared, bytes);
    if (await renamed(tmp, final)) return;
  }
  const committed = await sizeOf(final);
  if (committed === bytes || (committed === undefined && options.whenMissing === 'assume-consumed')) return;
  if (committed !== undefined) throw torn(final, committed, bytes);
  if (options.reason === 'announced') await refuseIfReplaced(dirname(tmp), owner);
  throw new CorruptError(
    `output is lost: neither ${tmp} nor ${final} exists, but a completed checkpoint holds ${bytes} bytes of it`,
    {
      hint:
        'all workers must write to one shared folder under the same path; when a consumer removes committed files, ' +
        "build the sink with whenMissing: 'assume-consumed'",
    },
  );
}

/** The folder can tell a replaced attempt by the hidden files of its successor. */
async function refuseIfReplaced(folder: string, owner: PartOwner): Promise<void> {
  const own = owner.context.deployment as DeploymentId;
  for (const { deployment, subtaskIndex } of await hiddenParts(folder, owner)) {
    if (subtaskIndex !== owner.context.subtaskIndex || compareDeployments(deployment, own) <= 0) continue;
    throw new FencedError(`deployment ${own} may commit no more: ${deployment} has taken over`);
  }
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

/** Removes hidden files that the attempts before `owner` left. Gives how many. */
export async function sweepLeftovers(folder: string, owner: PartOwner): Promise<number> {
  const leftovers = (await hiddenParts(folder, owner)).filter((found) => isLeftover(found, owner.context));
  for (const { name } of leftovers) await rm(join(folder, name), { force: true });
  return leftovers.length;
}

interface HiddenPart {
  readonly name: string;
  readonly subtaskIndex: number;
  readonly deployment: DeploymentId;
}

/** Those of the same job and prefix. */
async function hiddenParts(folder: string, { prefix, context }: PartOwner): Promise<readonly HiddenPart[]> {
  const pattern = new RegExp(`^\\.${escaped(prefix)}-(\\d+)-(\\d+-\\d+)-${context.jobId}-[0-9a-f]+-\\d+\\.inprogress$`);
  return (await readdir(folder)).flatMap((name) => {
    const [, index, deployment] = pattern.exec(name) ?? [];
    if (index === undefined || deployment === undefined) return [];
    return [{ name, subtaskIndex: Number(index), deployment: deployment as DeploymentId }];
  });
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
