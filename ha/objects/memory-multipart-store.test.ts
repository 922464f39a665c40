import { MemoryMultipartStore } from './memory-multipart-store.ts';
import { multipartStoreContract } from './multipart-store.contract.ts';

multipartStoreContract(async () => {
  const store = new MemoryMultipartStore();
  const other = new MemoryMultipartStore(store);
  return { store, other, prefix: 'test/', read: async (key) => store.objects.get(key) };
});
