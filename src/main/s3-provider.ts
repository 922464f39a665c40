import type { S3Access, S3Provider } from '../connectors/s3-provider.ts';
import type { MultipartStore } from '../contracts/multipart-store.ts';
import { SystemClock } from '../kernel/clock.ts';
import { type Logger, silentLogger } from '../kernel/log.ts';
import type { ObjectStoreSettings } from './open-objects.ts';

/** What the `s3.*` keys say; nothing in a plain script, where AWS' own chain of environment and profile decides. */
export type ClusterS3 = Omit<ObjectStoreSettings, 'uri'>;

let cluster: { readonly s3: ClusterS3; readonly log: Logger } | undefined;

/**
 * Says which server and credentials the sinks of this thread use. They go from the configuration to the slot,
 * and are never part of a program, its graph, or what is logged.
 */
export function useClusterS3(s3: ClusterS3, log: Logger): void {
  cluster = { s3, log };
}

export const S3_PROVIDER: S3Provider = {
  get log() {
    return cluster?.log ?? silentLogger;
  },
  async open(bucket: string, access: S3Access): Promise<MultipartStore> {
    // Loaded only here: the SDK takes a second or more, which jobs without S3 sinks need not wait for.
    const { S3MultipartStore } = await import('../../ha/objects/s3-multipart-store.ts');
    const deps = { clock: new SystemClock(), log: S3_PROVIDER.log };
    return S3MultipartStore.open(deps, { bucket, ...connectionFor(access, cluster?.s3) });
  },
};

/** A program that names another server must not be sent the cluster's keys for it. */
export function connectionFor(access: S3Access, s3: ClusterS3 | undefined) {
  const elsewhere = access.endpoint !== undefined && access.endpoint !== s3?.endpoint;
  return {
    endpoint: access.endpoint ?? s3?.endpoint,
    region: access.region ?? s3?.region,
    forcePathStyle: access.pathStyle ?? s3?.pathStyle,
    credentials: access.credentials ?? (elsewhere ? undefined : s3?.credentials),
  };
}
