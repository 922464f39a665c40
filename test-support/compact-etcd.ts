import type { EtcdCluster } from './etcd-cluster.ts';
import { until } from './until.ts';

/** Forgets everything before `revision`, and returns when every member has. */
export async function compactEtcd(cluster: EtcdCluster, revision: bigint): Promise<void> {
  const post = async (endpoint: string, path: string, body: object) =>
    (await fetch(`${endpoint}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body) })).json() as Promise<{
      error?: string;
    }>;
  await post(cluster.member(0).endpoint, 'compaction', { revision: String(revision) });
  const old = { key: 'YQ==', revision: String(revision - 1n), serializable: true };
  for (const { endpoint } of cluster.members)
    await until(`${endpoint} to have compacted`, async () =>
      (await post(endpoint, 'range', old)).error?.includes('compacted'),
    );
}
