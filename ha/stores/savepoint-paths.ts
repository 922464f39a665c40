import { InvalidArgumentError } from '../../src/kernel/errors.ts';
import type { ClusterKeys } from './cluster-keys.ts';

/** The object that a savepoint is restored from, in its folder. As in Flink. */
export const METADATA_NAME = '_metadata';
const SEGMENT = /^[A-Za-z0-9._-]{1,100}$/;
/** Leaves room for the folder of the savepoint and its objects' names under the object store's 512. */
const TARGET_MAX = 120;

/**
 * How people name places in the object store: URLs under the store's own (`s3://bucket/prefix/…`, `file:/…`), or
 * paths relative to it. Savepoints lie under one folder of their cluster, which the sweeper knows.
 */
export class SavepointPaths {
  private readonly storeUrl: string;

  constructor(
    private readonly keys: ClusterKeys,
    /** Of the object store, without credentials. */
    storeDescription: string,
  ) {
    this.storeUrl = normalized(storeDescription).replace(/\/+$/, '');
  }

  urlOf(objectKeyOrPrefix: string): string {
    const path = objectKeyOrPrefix.replace(/\/+$/, '');
    return this.storeUrl.endsWith(':') ? `${this.storeUrl}${path}` : `${this.storeUrl}/${path}`;
  }

  /** Where the savepoint `name` goes: a prefix ending in `/`. */
  locate(targetDirectory: string | undefined, name: string): string {
    const root = this.keys.allSavepoints;
    if (targetDirectory === undefined) return `${root}${name}/`;
    const path = this.pathOf(targetDirectory, 'target directory');
    const under = path.startsWith(root) ? path.slice(root.length) : `${path}/` === root ? '' : undefined;
    // A path that names no cluster is meant inside the savepoints' folder.
    const relative = under ?? (isUrl(targetDirectory) ? undefined : path);
    if (relative === undefined || relative.length > TARGET_MAX)
      throw new InvalidArgumentError(
        `savepoints cannot be written to ${targetDirectory}: this cluster keeps them under ${this.urlOf(root)}`,
        {
          hint: `Name a folder there, e.g. ${this.urlOf(`${root}weekly`)} or just weekly, of up to ${TARGET_MAX} characters, or none.`,
        },
      );
    return relative === '' ? `${root}${name}/` : `${root}${relative}/${name}/`;
  }

  /** The key of the metadata object at a path or URL. */
  resolve(path: string): string {
    const key = this.pathOf(path, 'savepoint path');
    const name = key.slice(key.lastIndexOf('/') + 1);
    if (name === METADATA_NAME || name.startsWith('metadata-')) return key;
    return `${key}/${METADATA_NAME}`;
  }

  private pathOf(text: string, what: string): string {
    const given = normalized(text.trim()).replace(/\/+$/, '');
    let path = given;
    if (isUrl(given)) {
      const root = this.storeUrl.endsWith(':') ? this.storeUrl : `${this.storeUrl}/`;
      if (!given.startsWith(root))
        throw new InvalidArgumentError(`the ${what} ${text} is not in this cluster's object store, ${this.storeUrl}`, {
          hint: 'Give a URL in that store, or a path relative to it.',
        });
      path = given.slice(root.length);
    }
    path = path.replace(/^\/+/, '');
    const segments = path.split('/');
    if (path.length > 500 || segments.some((segment) => !SEGMENT.test(segment) || /^\.+$/.test(segment)))
      throw new InvalidArgumentError(
        `"${text}" is not a ${what}: folders of A-Z a-z 0-9 . _ - separated by slashes are expected`,
      );
    return path;
  }
}

function isUrl(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:/i.test(text);
}

/** `file:///a` and `file:/a` are the same; a bare `/a` is a file. */
function normalized(text: string): string {
  if (text.startsWith('/')) return `file:/${text.replace(/^\/+/, '')}`;
  return text.replace(/^file:\/+/i, 'file:/');
}
