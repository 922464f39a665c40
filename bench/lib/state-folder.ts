import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DirectoryObjectStore } from '../../ha/objects/directory-object-store.ts';
import type { KeyedStateHandle } from '../../src/contracts/state-handles.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { asFencingToken, asOperatorId, deploymentId, newAttemptId, newJobId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import type { KeyedStateBackend, ValueState } from '../../src/state/ports.ts';
import { createStateBackends, type StateBackends, type StateBackendsOptions } from '../../src/state/state-backends.ts';

export const MAX_PARALLELISM = 128;
const random = new SystemRandom();

/** State as one subtask gets it, with snapshots and files in a folder of its own. */
export class StateFolder {
  private readonly jobId = newJobId(random);
  private readonly made: StateBackends[] = [];

  private constructor(
    private readonly path: string,
    private readonly objects: DirectoryObjectStore,
  ) {}

  static async open(): Promise<StateFolder> {
    const path = await mkdtemp(join(tmpdir(), 'millrace-bench-'));
    const deps = { clock: new SystemClock(), random, log: silentLogger };
    const directory = join(path, 'objects');
    return new StateFolder(path, await DirectoryObjectStore.start(deps, { directory, fsync: false }));
  }

  create(
    options: StateBackendsOptions = {},
    restore: readonly KeyedStateHandle[] = [],
    restoredCheckpointId = 0,
  ): Promise<KeyedStateBackend> {
    const backends = createStateBackends(
      { objects: this.objects },
      { lmdb: { directory: join(this.path, 'lmdb') }, ...options },
    );
    this.made.push(backends);
    return backends.createKeyedStateBackend({
      scope: {
        jobId: this.jobId,
        deployment: deploymentId(asFencingToken(1n), 1),
        operatorId: asOperatorId(random.hex(16)),
        attemptId: newAttemptId(random),
        subtaskIndex: 0,
      },
      range: { first: 0, last: MAX_PARALLELISM - 1 },
      maxParallelism: MAX_PARALLELISM,
      restore,
      restoredCheckpointId,
      signal: new AbortController().signal,
    });
  }

  /** But for what others refer to as well. */
  async remove(handles: readonly KeyedStateHandle[], others: readonly KeyedStateHandle[] = []): Promise<void> {
    const kept = new Set(objectsOf(others));
    await this.objects.delete(objectsOf(handles).filter((key) => !kept.has(key)));
  }

  async close(): Promise<void> {
    for (const backends of this.made) await backends.close();
    await this.objects.close();
    await rm(this.path, { recursive: true, force: true });
  }
}

function objectsOf(handles: readonly KeyedStateHandle[]): readonly string[] {
  return handles.flatMap(({ handle }) => (handle.kind === 'object' ? [handle.key] : []));
}

export function increment(backend: KeyedStateBackend, state: ValueState<number>, key: string): void {
  backend.setCurrentKey(key);
  state.update((state.value() ?? 0) + 1);
}

/** Long work in one turn would be a pause that the benchmark makes itself. */
export async function fill(backend: KeyedStateBackend, keys: number): Promise<ValueState<number>> {
  const state = backend.valueState<number>('count');
  for (let i = 0; i < keys; i++) increment(backend, state, `key-${i}`);
  return state;
}
