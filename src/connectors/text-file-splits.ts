import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError, type MillraceError, NotFoundError, UnavailableError } from '../kernel/errors.ts';

/**
 * The lines that begin in the bytes `[from, to)` of a file. Splits of one file share out its bytes
 * without knowing its lines; every line begins in exactly one of them.
 */
export interface TextFileSplit {
  /** Absolute. */
  readonly path: string;
  /** Size of the file when the job was submitted; a reader refuses a file that has changed since. */
  readonly fileBytes: number;
  readonly from: number;
  readonly to: number;
  /** Where the next line begins, once reading has begun. */
  readonly position?: number;
}

/** Splits are part of the job graph: a huge input gets larger ones rather than more. */
const SPLITS_MAX = 4_096;
/** A small input is shared out among the subtasks, but not in crumbs. */
const SPLIT_BYTES_MIN = 64 * 1024;

export interface TextFileListing {
  readonly path: string;
  readonly recursive: boolean;
  readonly splitBytes: number;
}

export async function listTextFileSplits(
  { path, recursive, splitBytes }: TextFileListing,
  parallelism: number,
): Promise<readonly TextFileSplit[]> {
  const files = await listFiles(path, recursive);
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const share = Math.max(SPLIT_BYTES_MIN, Math.ceil(total / parallelism));
  const size = Math.max(Math.min(splitBytes, share), Math.ceil(total / SPLITS_MAX));
  const splits: TextFileSplit[] = [];
  for (const file of files) {
    for (let from = 0; from < file.bytes; from += size) {
      splits.push({ path: file.path, fileBytes: file.bytes, from, to: Math.min(file.bytes, from + size) });
    }
  }
  return splits;
}

/** A plain path or a `file:` URL, as an absolute path. */
export function absolutePath(pathOrUrl: string): string {
  if (typeof pathOrUrl !== 'string' || pathOrUrl === '') {
    throw new InvalidArgumentError('a path is needed: the name of a file or folder, or a file: URL');
  }
  if (pathOrUrl.startsWith('file:')) {
    try {
      return fileURLToPath(pathOrUrl);
    } catch (error) {
      throw new InvalidArgumentError(`'${pathOrUrl}' is not a file: URL of this machine`, { cause: error });
    }
  }
  const [, scheme] = /^([a-z][a-z0-9+.-]+):\/\//i.exec(pathOrUrl) ?? [];
  if (scheme !== undefined) {
    throw new InvalidArgumentError(`'${pathOrUrl}': files of scheme '${scheme}' cannot be read`, {
      hint: 'give a path or a file: URL',
    });
  }
  return resolve(pathOrUrl);
}

/** A path as part of an operator's name, which has a limit: its end tells more than its beginning. */
export function shown(pathOrUrl: string): string {
  return pathOrUrl.length <= 200 ? pathOrUrl : `…${pathOrUrl.slice(-199)}`;
}

interface FoundFile {
  readonly path: string;
  readonly bytes: number;
}

/** In the order of their paths, so that the splits do not depend on the file system's order. */
async function listFiles(path: string, recursive: boolean): Promise<readonly FoundFile[]> {
  const found = await statOrThrow(path);
  if (found.isFile()) return [{ path, bytes: found.size }];
  if (!found.isDirectory()) {
    throw new InvalidArgumentError(`${path} is neither a file nor a folder`, {
      hint: 'a source of lines must be replayable; a pipe or device is not',
    });
  }
  const files: FoundFile[] = [];
  await walk(path, recursive, files);
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function walk(folder: string, recursive: boolean, files: FoundFile[]): Promise<void> {
  for (const name of await readdir(folder)) {
    // Hidden files and those that begin with `_` are by custom not data: work in progress, markers, indexes.
    if (name.startsWith('.') || name.startsWith('_')) continue;
    const path = join(folder, name);
    const found = await statOrThrow(path);
    if (found.isFile()) files.push({ path, bytes: found.size });
    else if (recursive && found.isDirectory()) await walk(path, recursive, files);
  }
}

async function statOrThrow(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

/** What went wrong with a file, with what to do about it. */
export function fileError(path: string, error: unknown): MillraceError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new NotFoundError(`there is no file or folder ${path}`, {
      hint: 'every worker and the master must see the input under the same path; relative paths start at their working folder',
      cause: error,
    });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new InvalidArgumentError(`${path} may not be read by this process`, { cause: error });
  }
  return new UnavailableError(`${path} cannot be read: ${String(error)}`, { cause: error });
}
