import { expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { put } from './coordination.contract.ts';
import { createCoordination } from './create-coordination.ts';
import { EtcdModel } from './etcd-model.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };

test('clients of one model see each other; without a model each is alone', async () => {
  const model = new EtcdModel(deps);
  const one = await createCoordination(deps, { type: 'memory', model, name: 'one' });
  const two = await createCoordination(deps, { type: 'memory', model, name: 'two' });
  const alone = await createCoordination(deps, { type: 'memory' });
  await one.txn({ guards: [], then: [put('k', 'v')] });
  expect((await two.get('k'))?.value).toBe('v');
  expect(await alone.get('k')).toBeUndefined();
  expect(one.description).toBe('memory:one');
});

test('the embedded store is the file in its directory', async () => {
  const directory = makeTempFolder('embedded');
  const store = await createCoordination(deps, { type: 'embedded', directory });
  await store.txn({ guards: [], then: [put('k', 'v')] });
  expect(store.description).toBe(`embedded:${directory}`);
  await store.close();
  removeTempFolder(directory);
});

test('etcd is made without being there, and wrong options or files are named', async () => {
  const base = { type: 'etcd', endpoints: ['https://127.0.0.1:1'], namespace: '/m/c/' } as const;
  const store = await createCoordination(deps, base);
  expect(store.description).toBe('etcd:127.0.0.1:1/m/c/');
  await store.close();
  await expect(createCoordination(deps, { ...base, endpoints: [] })).rejects.toMatchObject({ code: 'CONFIGURATION' });
  const tlsFiles = { ca: '/nowhere/ca.pem', key: '/nowhere/key.pem' };
  await expect(createCoordination(deps, { ...base, tlsFiles })).rejects.toThrow(/ca\.pem.*key\.pem/);
});
