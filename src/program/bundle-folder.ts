import { lstat, mkdir, readFile, readlink, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { readFileSync } from 'node:fs';
import { CorruptError, MillraceError } from '../kernel/errors.ts';
import { digestOf, stableId } from '../kernel/digest.ts';
import type { Digest } from '../kernel/ids.ts';
import type { Random } from '../kernel/random.ts';

/** A bundle on disk, ready to be imported. */
export interface BundleOnDisk {
  readonly path: string;
  readonly moduleUrl: string;
  /** What `import … from 'millrace'` in the bundle resolves to. */
  readonly libraryUrl: string;
}

/**
 * A folder of bundles beside which `millrace` resolves to the package that runs them: a symbolic link to
 * this package, so that the bundle and its worker share one copy of the runtime.
 *
 * Several processes may use one folder: files come into being by rename, so nobody sees half a file, and
 * a bundle's name is its digest, so nobody sees another's content. It is only a cache.
 */
export class BundleFolder {
  private readonly root: string;

  constructor(
    dir: string,
    private readonly random: Random,
    private readonly packageRoot: string = findPackageRoot(),
  ) {
    // Another installation of the package must not take the link away from under running processes.
    this.root = join(dir, stableId(packageRoot).slice(0, 8));
  }

  /** The bundle of this digest, fetched unless an intact copy is there. */
  async materialise(digest: Digest, fetch: () => Promise<Uint8Array>): Promise<BundleOnDisk> {
    const path = join(this.root, digest, 'bundle.mjs');
    const cached = await readFile(path).catch(ignoreMissing);
    if (cached === undefined || digestOf(cached) !== digest) {
      const bytes = await fetch();
      const found = digestOf(bytes);
      if (found !== digest) throw new CorruptError(`the bundle should have digest ${digest} but has ${found}`);
      await mkdir(dirname(path), { recursive: true });
      await this.replace(path, (temporary) => writeFile(temporary, bytes));
    }
    await this.linkPackage();
    return { path, moduleUrl: pathToFileURL(path).href, libraryUrl: resolveLibrary(path) };
  }

  /** Forgets a bundle's file; what has been imported stays in memory. */
  async remove(digest: Digest): Promise<void> {
    await rm(join(this.root, digest), { recursive: true, force: true });
  }

  private async linkPackage(): Promise<void> {
    const link = join(this.root, 'node_modules', 'millrace');
    const target = await realpath(this.packageRoot);
    if ((await readlink(link).catch(ignoreMissing)) === target) return;
    await mkdir(dirname(link), { recursive: true });
    await this.replace(link, (temporary) => symlink(target, temporary, 'dir'));
  }

  private async replace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
    const temporary = `${path}.${this.random.hex(8)}.tmp`;
    try {
      await make(temporary);
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      // Another process may have been faster; its file is as good as ours.
      const there = await lstat(path).catch(ignoreMissing);
      if (there === undefined) throw error;
    }
  }
}

/** The folder of the package that this code is part of, whether built or not. */
export function findPackageRoot(from: string = fileURLToPath(import.meta.url)): string {
  for (let dir = dirname(from); ; dir = dirname(dir)) {
    try {
      const { name } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as { name?: unknown };
      if (name === 'millrace') return dir;
    } catch (error) {
      ignoreMissing(error);
    }
    if (dir === dirname(dir)) throw new MillraceError('INTERNAL', `no package "millrace" holds ${from}`);
  }
}

function resolveLibrary(bundlePath: string): string {
  try {
    return pathToFileURL(createRequire(bundlePath).resolve('millrace')).href;
  } catch (error) {
    throw new MillraceError('INTERNAL', "the package 'millrace' cannot be found from a bundle", {
      cause: error,
      hint: 'The package must be built (npm run build).',
    });
  }
}

function ignoreMissing(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOENT' && code !== 'ENOTDIR' && code !== 'EINVAL') throw error;
  return undefined;
}
