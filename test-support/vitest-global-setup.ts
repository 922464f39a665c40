import type { TestProject } from 'vitest/node';
import { ensureInfra } from './ensure-infra.ts';
import { SharedInfra } from './shared-infra.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    sharedInfraUrl: string;
  }
}

/** Once per test run, in vitest's own process; starts no server until a test asks. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await ensureInfra(['etcd', 's3']);
  const infra = await SharedInfra.start();
  project.provide('sharedInfraUrl', infra.url);
  return () => infra.close();
}
