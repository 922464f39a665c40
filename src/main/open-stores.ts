import { resolve } from 'node:path';
import type { Coordination } from '../../ha/coordination/coordination.ts';
import { type CoordinationOptions, createCoordination } from '../../ha/coordination/create-coordination.ts';
import { createObjectStore } from '../../ha/objects/create-object-store.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { Configuration } from './config/options.ts';

export interface ProcessDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** The coordination store of the configuration, as plain data: a thread may open it a second time. */
export function coordinationOptions(c: Configuration): CoordinationOptions {
  if (c.haType === 'embedded') return { type: 'embedded', directory: resolve(c.embeddedDir, 'coordination') };
  return {
    type: 'etcd',
    endpoints: (c.etcdEndpoints ?? '').split(',').map((endpoint) => endpoint.trim()),
    namespace: '/millrace/',
    ...(c.etcdUsername === undefined ? {} : { auth: { username: c.etcdUsername, password: c.etcdPassword ?? '' } }),
    ...(c.etcdCaFile === undefined ? {} : { tlsFiles: { ca: c.etcdCaFile, cert: c.etcdCertFile, key: c.etcdKeyFile } }),
  };
}

/** It may be away: calls then say so, and work when it is back. */
export function openCoordination(deps: ProcessDeps, c: Configuration): Promise<Coordination> {
  return createCoordination(deps, coordinationOptions(c));
}

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
