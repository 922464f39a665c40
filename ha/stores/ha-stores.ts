import type { OperationStore, SavepointStore } from '../../src/contracts/operations.ts';
import type { ObjectStore } from '../../src/contracts/object-store.ts';
import type { CheckpointStores } from '../../src/checkpoint/ports.ts';
import type { JarStore, JobGraphStore, JobResultStore } from '../../src/dispatcher/ports.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { HaCheckpointStores } from './checkpoint-stores.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { FencedWriter } from './fenced-writer.ts';
import { HaJarStore } from './jar-store.ts';
import { HaJobGraphStore } from './job-graph-store.ts';
import { HaJobResultStore } from './job-result-store.ts';
import { HaSavepointStore } from './savepoint-store.ts';
import type { StoreDeps } from './store-deps.ts';
import { Sweeper, type SweeperOptions } from './sweeper.ts';

export interface HaStoresDeps {
  readonly coordination: Coordination;
  readonly objects: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** All stores of one cluster. They hold no state of their own: every replica may open them. */
export interface HaStores {
  readonly keys: ClusterKeys;
  readonly jobGraphs: JobGraphStore;
  readonly jobResults: JobResultStore;
  readonly jars: JarStore;
  readonly checkpoints: CheckpointStores;
  readonly operations: OperationStore;
  readonly savepoints: SavepointStore;
  /** A contender of the same election as the Dispatcher: it sweeps while this replica leads. */
  sweeper(options: SweeperOptions): Sweeper;
}

export function openHaStores(deps: HaStoresDeps, clusterId: string): HaStores {
  const keys = new ClusterKeys(clusterId);
  const log = deps.log.child({ component: 'ha-stores', clusterId });
  const writer = new FencedWriter({ ...deps, keys, log });
  const shared: StoreDeps = { ...deps, keys, writer, log };
  const checkpoints = new HaCheckpointStores(shared);
  return {
    keys,
    jobGraphs: new HaJobGraphStore(shared),
    jobResults: new HaJobResultStore(shared),
    jars: new HaJarStore(shared, deps.random),
    checkpoints,
    operations: checkpoints.operations,
    savepoints: new HaSavepointStore(shared),
    sweeper: (options) => new Sweeper(shared, options),
  };
}
