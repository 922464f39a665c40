import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { SharedEtcd, SharedS3 } from '../test-support/shared-infra.ts';

/** Where a cluster of a test keeps what must outlive its masters. */
export interface BackingStores {
  readonly kind: 'embedded' | 'etcd';
  /** `key=value` for every process, and for checkers that look into the stores. */
  readonly config: readonly string[];
}

/** Inside `dir`, which the cluster must be given as its own. */
export function embeddedStores(dir: string): BackingStores {
  return { kind: 'embedded', config: [`high-availability.embedded.dir=${join(dir, 'stores')}`] };
}

/** A corner of its own in servers that others may use at the same time. */
export function sharedStores(etcd: SharedEtcd, s3: SharedS3): BackingStores {
  const corner = `chaos-${randomUUID().slice(0, 8)}`;
  return {
    kind: 'etcd',
    config: [
      `high-availability.cluster-id=${corner}`,
      'high-availability.type=etcd',
      `high-availability.etcd.endpoints=${etcd.endpoints.join(',')}`,
      `high-availability.storageDir=s3://${s3.bucket}/${corner}`,
      `s3.endpoint=${s3.endpoint}`,
      `s3.region=${s3.region}`,
      `s3.access-key=${s3.credentials.accessKeyId}`,
      `s3.secret-key=${s3.credentials.secretAccessKey}`,
    ],
  };
}
