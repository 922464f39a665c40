import { SystemClock } from '../../src/kernel/clock.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { storeRules } from './store-rules.contract.ts';

const clock = new SystemClock();

storeRules(() => ({ coordination: new EtcdModel({ clock }).client(), objects: new MemoryObjectStore(clock) }));
