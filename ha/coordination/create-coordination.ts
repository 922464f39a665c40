import { readFile } from 'node:fs/promises';
import type { Clock } from '../../src/kernel/clock.ts';
import { asError, MillraceError } from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination } from './coordination.ts';
import { EtcdCoordination, type EtcdCoordinationOptions } from './etcd-coordination.ts';
import { EtcdModel } from './etcd-model.ts';
import { LmdbCoordination, type LmdbCoordinationOptions } from './lmdb-coordination.ts';

export interface CoordinationDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export type CoordinationOptions =
  /** A cluster of etcd; it may be away when this is made. */
  | ({ readonly type: 'etcd'; readonly tlsFiles?: TlsFiles | undefined } & Omit<EtcdCoordinationOptions, 'tls'>)
  /** One file shared by the processes of one machine. */
  | ({ readonly type: 'embedded' } & LmdbCoordinationOptions)
  /** One process. Clients see one another when they are given one model. */
  | { readonly type: 'memory'; readonly model?: EtcdModel; readonly name?: string };

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** @throws MillraceError `CONFIGURATION` with every problem of the options. */
export async function createCoordination(deps: CoordinationDeps, options: CoordinationOptions): Promise<Coordination> {
  switch (options.type) {
    case 'etcd': {
      const { type: _type, tlsFiles, ...rest } = options;
      const tls = tlsFiles === undefined ? undefined : await readAll(tlsFiles);
      return new EtcdCoordination(deps, { ...rest, tls });
    }
    case 'embedded':
      return LmdbCoordination.start(deps, options);
    case 'memory': {
      const model = options.model ?? new EtcdModel({ clock: deps.clock });
      return model.client(options.name === undefined ? {} : { name: options.name });
    }
  }
}

async function readAll(files: TlsFiles): Promise<NonNullable<EtcdCoordinationOptions['tls']>> {
  const problems: string[] = [];
  const read = async (what: string, path: string | undefined) => {
    if (path === undefined) return {};
    try {
      return { [what]: await readFile(path) };
    } catch (error) {
      problems.push(asError(error).message);
      return {};
    }
  };
  const [ca, cert, key] = [await read('ca', files.ca), await read('cert', files.cert), await read('key', files.key)];
  if (problems.length > 0) throw new MillraceError('CONFIGURATION', `TLS files of etcd: ${problems.join('; ')}`);
  return { ...ca, ...cert, ...key };
}
