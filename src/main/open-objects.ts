import { resolve } from 'node:path';
import { createObjectStore } from '../../ha/objects/create-object-store.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { Configuration } from './config/options.ts';
import type { ProcessDeps } from './open-stores.ts';

/**
 * Apart from the coordination stores, of which a slot's thread needs nothing: their clients (etcd, gRPC, LMDB) would be
 * half of the time that such a thread takes to load, and a job waits for that after the loss of a worker.
 */

/** Plain data, so that a slot's thread opens the same store as its process. */
export interface ObjectStoreSettings {
  readonly uri: string;
  readonly endpoint: string | undefined;
  readonly region: string;
  readonly pathStyle: boolean;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
}

export function objectStoreSettings(c: Configuration): ObjectStoreSettings {
  return {
    uri: c.storageDir ?? `file:${resolve(c.embeddedDir, 'objects')}`,
    endpoint: c.s3Endpoint,
    region: c.s3Region,
    pathStyle: c.s3PathStyle,
    credentials:
      c.s3AccessKey === undefined || c.s3SecretKey === undefined
        ? undefined
        : { accessKeyId: c.s3AccessKey, secretAccessKey: c.s3SecretKey },
  };
}

export function openObjects(deps: ProcessDeps, settings: ObjectStoreSettings): Promise<ObjectStore> {
  const { uri, endpoint, region, pathStyle, credentials } = settings;
  return createObjectStore(deps, uri, { s3: { endpoint, region, forcePathStyle: pathStyle, credentials } });
}
