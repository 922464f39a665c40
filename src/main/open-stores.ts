import { resolve } from 'node:path';
import type { Coordination } from '../../ha/coordination/coordination.ts';
import { type CoordinationOptions, createCoordination } from '../../ha/coordination/create-coordination.ts';
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
