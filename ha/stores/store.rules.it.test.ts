import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { sharedEtcd, sharedS3 } from '../../test-support/vitest-shared.ts';
import { createCoordination } from '../coordination/create-coordination.ts';
import { createObjectStore } from '../objects/create-object-store.ts';
import { storeRules } from './store-rules.contract.ts';
import type { StoreBackend } from './store-world.fixture.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };

describe('on etcd and S3', () => {
  let backend: StoreBackend;
  beforeAll(async () => {
    const [etcd, s3] = await Promise.all([sharedEtcd(), sharedS3()]);
    const namespace = `/rules-${deps.random.hex(4)}/`;
    backend = {
      coordination: await createCoordination(deps, { type: 'etcd', endpoints: [...etcd.endpoints], namespace }),
      objects: await createObjectStore(deps, `s3://${s3.bucket}/rules`, {
        s3: {
          endpoint: s3.endpoint,
          region: s3.region,
          forcePathStyle: true,
          credentials: s3.credentials,
        },
      }),
    };
  });
  afterAll(async () => {
    await backend.coordination.close();
    await backend.objects.close();
  });
  storeRules(() => backend, { quick: true });
});

describe('on the embedded stores', () => {
  let folder: string;
  let backend: StoreBackend;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'millrace-rules-'));
    backend = {
      coordination: await createCoordination(deps, { type: 'embedded', directory: join(folder, 'coordination') }),
      objects: await createObjectStore(deps, `file:${join(folder, 'objects')}`),
    };
  });
  afterAll(async () => {
    await backend.coordination.close();
    await backend.objects.close();
    await rm(folder, { recursive: true, force: true });
  });
  storeRules(() => backend, { quick: true });
});
