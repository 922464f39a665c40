import { asError } from '../../src/kernel/errors.ts';
import type { LocalCluster } from '../../test-support/local-cluster.ts';
import { until } from '../../test-support/until.ts';
import { leftovers, type StoreInspector } from './check-stores.ts';

const QUIET_PATIENCE_MS = 40_000;

/** Repeats a check until it finds nothing; what it still finds at the deadline is the finding. */
export async function settled(
  check: () => Promise<readonly string[]>,
  timeoutMs = QUIET_PATIENCE_MS,
): Promise<readonly string[]> {
  let left: readonly string[] = [];
  try {
    const clean = async () => {
      left = await check();
      return left.length === 0;
    };
    await until('the cluster to be quiet', clean, { timeoutMs, everyMs: 200 });
    return [];
  } catch (error) {
    return left.length > 0 ? left : [asError(error).message];
  }
}

interface Overview {
  readonly taskmanagers: number;
  readonly 'slots-total': number;
  readonly 'slots-available': number;
}

/** Once the cluster is quiet no slot is held, no dead worker is counted, and nothing of the job is left. */
export async function judgeQuiet(
  cluster: LocalCluster,
  inspector: StoreInspector,
  jobId: string,
  slotsPerWorker = 2,
): Promise<string[]> {
  const slots = await settled(async () => {
    const overview = await cluster.get<Overview>('/overview');
    const workers = cluster.liveWorkers.length;
    if (overview.taskmanagers !== workers) return [`${overview.taskmanagers} workers are counted, ${workers} live`];
    if (overview['slots-available'] !== slotsPerWorker * workers)
      return [`slots are still held: ${JSON.stringify(overview)}`];
    return [];
  });
  const stores = await settled(async () => leftovers(await inspector.contents(), jobId, false));
  return [...slots, ...stores];
}
