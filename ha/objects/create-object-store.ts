import { fileURLToPath } from 'node:url';
import type { ObjectStore } from '../../src/contracts/object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { asError, MillraceError } from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { DirectoryObjectStore, type DirectoryObjectStoreOptions } from './directory-object-store.ts';
import { MemoryObjectStore } from './memory-object-store.ts';
import type { S3ObjectStoreOptions } from './s3-object-store.ts';

export interface ObjectStoreDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface CreateObjectStoreOptions {
  readonly s3?: Omit<S3ObjectStoreOptions, 'bucket' | 'prefix'>;
  readonly directory?: Omit<DirectoryObjectStoreOptions, 'directory'>;
}

/**
 * Opens what `uri` names: `s3://bucket/prefix`, `file:/directory` (also `file:///directory`), or
 * `memory:`, which is new and empty each time.
 *
 * @throws MillraceError `CONFIGURATION` when the URI or the options cannot be right.
 */
export async function createObjectStore(
  deps: ObjectStoreDeps,
  uri: string,
  options: CreateObjectStoreOptions = {},
): Promise<ObjectStore> {
  const [scheme = ''] = uri.split(':', 1);
  switch (uri.includes(':') ? scheme.toLowerCase() : '') {
    case 's3': {
      // Loaded only here: the SDK takes a second or more, which slots of an embedded cluster need not wait for.
      const { S3ObjectStore } = await import('./s3-object-store.ts');
      return S3ObjectStore.start(deps, { ...options.s3, ...parseS3(uri) });
    }
    case 'file':
      return DirectoryObjectStore.start(deps, { ...options.directory, directory: parseFile(uri) });
    case 'memory':
      return new MemoryObjectStore(deps.clock);
    default:
      throw new MillraceError('CONFIGURATION', `object store ${shown(uri)} is not one that is known`, {
        hint: 'Use s3://bucket/prefix, file:/directory or memory:.',
      });
  }
}

function parseS3(uri: string): { bucket: string; prefix: string } {
  const match = /^s3:\/\/([^/?#@]+)(?:\/([^?#]*))?$/i.exec(uri);
  if (match === null)
    throw new MillraceError('CONFIGURATION', `object store ${shown(uri)} is not s3://bucket/prefix`, {
      hint: 'Keys, region and endpoint are set by s3.* options, not in the URI.',
    });
  return { bucket: match[1] ?? '', prefix: (match[2] ?? '').replace(/^\/+|\/+$/g, '') };
}

function parseFile(uri: string): string {
  try {
    const path = fileURLToPath(uri);
    if (path !== '/') return path;
  } catch (error) {
    throw new MillraceError('CONFIGURATION', `object store ${shown(uri)}: ${asError(error).message}`);
  }
  throw new MillraceError('CONFIGURATION', `object store ${shown(uri)} names no directory`);
}

/** Somebody may have put a password in. */
function shown(uri: string): string {
  return JSON.stringify(uri.replace(/\/\/[^/]*@/, '//***@'));
}
