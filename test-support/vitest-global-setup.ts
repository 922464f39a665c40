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
  // The SDK announces its own future once per process; this one is not covered by vitest's `env`.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true';
  await ensureInfra(['etcd', 's3']);
  const infra = await SharedInfra.start();
  project.provide('sharedInfraUrl', infra.url);
  return () => infra.close();
}
