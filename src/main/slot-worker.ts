import { join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import type { StateConfig } from '../contracts/job-graph.ts';
import { SystemClock } from '../kernel/clock.ts';
import { SystemRandom } from '../kernel/random.ts';
import { BundleProgramLoader } from '../program/program-loader.ts';
import { type CodecName, recordCodec } from '../exchange/record-codecs.ts';
import { createStateBackends } from '../state/state-backends.ts';
import { chainFactory } from '../subtask/compile/compiled-chain.ts';
import { SlotRuntime } from '../subtask/slot-runtime.ts';
import { runSlotWorker } from '../taskmanager/slot-worker.ts';
import type { Configuration } from './config/options.ts';
import type { InternalTls } from './internal-tls.ts';
import { createLogger } from './logger.ts';
import { type ObjectStoreSettings, openObjects } from './open-objects.ts';
import { useClusterS3 } from './s3-provider.ts';
import { localCopiesDirectory, scratchDirectory } from './worker-directory.ts';

/** Plain data that a slot's thread starts from. */
export interface SlotWorkerData {
  readonly taskManagerId: string;
  readonly clusterId: string;
  readonly objects: ObjectStoreSettings;
  readonly bundleDir: string;
  readonly programTimeoutMs: number;
  readonly memoryThresholdBytes: number;
  /** This process's own; see `WorkerDirectory`. */
  readonly directory: string;
  readonly state: StateConfig;
  readonly lmdbCacheBytes: number;
  readonly stateBytesMax: number;
  readonly compiledChains: boolean;
  readonly networkCodec: CodecName;
  readonly tls: InternalTls | undefined;
  readonly logLevel: Configuration['logLevel'];
}

/** The entry of a slot's thread. */
await runSlotWorker<SlotWorkerData>(async (data, neighbours) => {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const log = createLogger(data.logLevel, { role: 'slot', taskManagerId: data.taskManagerId });
  const objects = await openObjects({ clock, random, log }, data.objects);
  useClusterS3(data.objects, log);
  const keys = new ClusterKeys(data.clusterId);
  const stateBackends = createStateBackends(
    { objects, log },
    {
      ...data.state,
      memoryThresholdBytes: data.memoryThresholdBytes,
      lmdb: { directory: join(scratchDirectory(data.directory), String(threadId)), cacheBytes: data.lmdbCacheBytes },
      memoryLimitBytes: data.stateBytesMax,
      localDirectory: localCopiesDirectory(data.directory),
      objectPrefix: (jobId) => keys.stateObjectPrefix(jobId),
    },
  );
  const programs = new BundleProgramLoader(
    { fetchBundle: (ref) => objects.get(ref.objectKey), clock, random },
    { dir: join(data.bundleDir, 'bundles'), timeoutMs: data.programTimeoutMs },
  );
  const chains = chainFactory({ compiled: data.compiledChains });
  const codec = recordCodec(data.networkCodec);
  return (options, events) =>
    SlotRuntime.start(
      { clock, random, log, programs, stateBackends, chains, codec, neighbours, tls: data.tls, events },
      options,
    );
});
