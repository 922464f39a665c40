import { expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { UnavailableError } from '../../src/kernel/errors.ts';
import { MemoryObjectStore } from './memory-object-store.ts';
import { bytesOf, objectStoreContract } from './object-store.contract.ts';

objectStoreContract(async () => {
  const store = new MemoryObjectStore(new SystemClock());
  return { store, other: store, close: async () => undefined };
});

test('an interceptor makes a call fail, and the object is not there', async () => {
  const store = new MemoryObjectStore(new SystemClock());
  store.intercept = ({ kind, key }) => {
    if (kind === 'put' && key === 'bad') throw new UnavailableError('the store is away');
  };
  await expect(store.put('bad', bytesOf(1))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await store.put('good', bytesOf(1));
  expect([await store.size('bad'), await store.size('good')]).toEqual([undefined, 1]);
});
