import { inject } from 'vitest';
import type { SharedEtcd, SharedS3 } from './shared-infra.ts';

/**
 * The etcd of the whole test run (three members, fast timers), started when first asked for.
 * Do not stop its members, and keep to keys under a prefix of your own.
 */
export async function sharedEtcd(): Promise<SharedEtcd> {
  return (await ask('/etcd')) as SharedEtcd;
}

/** The S3 server of the whole test run, with a new bucket for each call. The first call takes about 2 s. */
export async function sharedS3(): Promise<SharedS3> {
  return (await ask('/s3')) as SharedS3;
}

async function ask(path: string): Promise<unknown> {
  const url = inject('sharedInfraUrl');
  if (url === undefined) throw new Error('shared servers exist only for *.it.test.ts and chaos-tests');
  const response = await fetch(`${url}${path}`);
  if (!response.ok) throw new Error(`the shared server ${path} did not start: ${await response.text()}`);
  return response.json();
}
