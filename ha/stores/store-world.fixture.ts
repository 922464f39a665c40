import { expect } from 'vitest';
import type { CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import type { ObjectInfo, ObjectStore } from '../../src/contracts/object-store.ts';
import type { JobDetailsView } from '../../src/contracts/views.ts';
import { detailsOf, graphOf } from '../../src/dispatcher/testing/model-peers.ts';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { sharedObjectName, stateObjectName } from '../../src/contracts/state-objects.ts';
import { digestOf } from '../../src/kernel/digest.ts';
import { UnavailableError, UnknownOutcomeError } from '../../src/kernel/errors.ts';
import { asFencingToken, type FencingToken, isJobId, type JobId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import type { Coordination, Transaction } from '../coordination/coordination.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { stateKeysOf } from './checkpoint-pointers.ts';
import { type HaStores, openHaStores } from './ha-stores.ts';

export interface StoreBackend {
  readonly coordination: Coordination;
  readonly objects: ObjectStore;
}

/**
 * What goes wrong at one step, a step being one write to either store:
 * - `crash before`, `crash after`: the process ends there.
 * - `lost before`, `lost after`: the answer is lost; the write did not happen, or did.
 */
export const INTERRUPTIONS = ['crash before', 'crash after', 'lost before', 'lost after'] as const;
/** `race`: nothing goes wrong, but something else happens right before the write. */
export type InterruptionKind = (typeof INTERRUPTIONS)[number] | 'race';

export class Interruption {
  private steps = 0;
  fired = false;
  dead = false;
  /** Which store was being written when it fired. */
  during: 'coordination' | 'objects' | undefined;

  constructor(
    readonly kind: InterruptionKind,
    readonly atStep: number,
    /** What happens elsewhere while the answer is awaited. */
    private readonly meanwhile: () => Promise<void> = async () => {},
  ) {}

  async read<T>(work: () => Promise<T>): Promise<T> {
    this.alive();
    return await work();
  }

  async write<T>(store: 'coordination' | 'objects', work: () => Promise<T>): Promise<T> {
    this.alive();
    if (this.steps++ !== this.atStep) return await work();
    this.fired = true;
    this.during = store;
    if (this.kind === 'race') {
      await this.meanwhile();
      return await work();
    }
    if (this.kind === 'crash before') this.die();
    if (this.kind !== 'lost before') await work();
    if (this.kind === 'crash after') this.die();
    await this.meanwhile();
    throw store === 'coordination'
      ? new UnknownOutcomeError('the answer was lost')
      : new UnavailableError('the object store did not answer');
  }

  alive(): void {
    if (this.dead) throw new Error('this process is dead');
  }

  private die(): never {
    this.dead = true;
    throw new Error('the process died');
  }
}

function interruptedCoordination(inner: Coordination, interruption: Interruption): Coordination {
  const writes = ({ then }: Transaction) => then.some((op) => op.kind !== 'get');
  return {
    description: inner.description,
    get: (key) => interruption.read(() => inner.get(key)),
    list: (prefix) => interruption.read(() => inner.list(prefix)),
    txn: (transaction) =>
      writes(transaction)
        ? interruption.write('coordination', () => inner.txn(transaction))
        : interruption.read(() => inner.txn(transaction)),
    grantLease: (ttlMs) => inner.grantLease(ttlMs),
    keepAlive: (lease) => inner.keepAlive(lease),
    revokeLease: (lease) => inner.revokeLease(lease),
    watch: (prefix, after, listener) => inner.watch(prefix, after, listener),
    close: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

function interruptedObjects(inner: ObjectStore, interruption: Interruption): ObjectStore {
  return {
    description: inner.description,
    put: (key, bytes) => interruption.write('objects', () => inner.put(key, bytes)),
    get: (key) => interruption.read(() => inner.get(key)),
    getRange: (key, offset, length) => interruption.read(() => inner.getRange(key, offset, length)),
    size: (key) => interruption.read(() => inner.size(key)),
    delete: (keys) => interruption.write('objects', () => inner.delete(keys)),
    async *list(prefix) {
      interruption.alive();
      yield* inner.list(prefix);
    },
    upload: (key) => inner.upload(key),
    close: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

/** Shows what existed at one moment as two hours older than it is. */
function agedObjects(inner: ObjectStore, aged: ReadonlySet<string>): ObjectStore {
  const older = (object: ObjectInfo) => ({ ...object, modifiedMs: object.modifiedMs - 2 * 3_600_000 });
  return {
    ...interruptedObjects(inner, new Interruption('lost before', -1)),
    async *list(prefix) {
      for await (const object of inner.list(prefix)) yield aged.has(object.key) ? older(object) : object;
    },
  };
}

/** Timers fire at once: back-off is tested elsewhere. */
class HastyClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  schedule(_delayMs: number, fn: () => void): Timer {
    const handle = setImmediate(fn);
    return { cancel: () => clearImmediate(handle) };
  }
}

const clock = new HastyClock();
const random = new SystemRandom();

export interface Leader extends HaStores {
  readonly token: FencingToken;
  readonly interruption: Interruption;
}

/** One cluster of its own in shared stores. Leaders come and go as the test says. */
export class World {
  readonly keys: ClusterKeys;
  private readonly clusterId = `t${random.hex(6)}`;

  constructor(
    readonly backend: StoreBackend,
    /** Looks only once after each test. */
    private readonly quick = false,
  ) {
    this.keys = new ClusterKeys(this.clusterId);
  }

  /** A new leader; whoever led before is fenced from now on. */
  async leader(interruption = new Interruption('lost before', -1)): Promise<Leader> {
    const { coordination, objects } = this.backend;
    const { revision } = await coordination.txn({
      guards: [],
      then: [{ kind: 'put', key: this.keys.leader, value: 'leader' }],
    });
    const stores = openHaStores(
      {
        coordination: interruptedCoordination(coordination, interruption),
        objects: interruptedObjects(objects, interruption),
        clock,
        random,
        log: silentLogger,
      },
      this.clusterId,
    );
    return { ...stores, token: asFencingToken(revision), interruption };
  }

  /** Stores over undisturbed adapters, for looking. */
  look(): HaStores {
    return openHaStores({ ...this.backend, clock, random, log: silentLogger }, this.clusterId);
  }

  async objectKeys(): Promise<readonly string[]> {
    const keys: string[] = [];
    for await (const { key } of this.backend.objects.list(`${this.clusterId}/`)) keys.push(key);
    return keys;
  }

  async entryKeys(): Promise<readonly string[]> {
    const { entries } = await this.backend.coordination.list(`${this.clusterId}/`);
    return entries
      .map((entry) => entry.key.slice(this.clusterId.length + 1))
      .filter((key) => key !== 'leader' && key !== 'doubt');
  }

  /** Values and all, to see whether anything was changed. */
  async everything(): Promise<unknown> {
    const { entries } = await this.backend.coordination.list(`${this.clusterId}/`);
    return entries
      .filter(({ key }) => key !== this.keys.leader && key !== this.keys.doubt)
      .map(({ key, value }) => ({ key, value }));
  }

  /** One pass of a leader, two hours later; or with only these objects that old. */
  async sweep(leader: Leader, old?: readonly string[]): Promise<number> {
    const aged = new Set(old ?? (await this.objectKeys()));
    const stores = openHaStores(
      {
        coordination: this.backend.coordination,
        objects: agedObjects(this.backend.objects, aged),
        clock,
        random,
        log: silentLogger,
      },
      this.clusterId,
    );
    const sweeper = stores.sweeper({ graceMs: 3_600_000, intervalMs: 600_000 });
    const { removed } = await sweeper.sweep(leader.token);
    return removed;
  }

  /** What a new leader does first, as far as the stores go: ends what was begun. Returns the jobs that it runs. */
  async recover(leader: Leader): Promise<readonly JobId[]> {
    for (const { jobId, dirty } of await leader.jobResults.list())
      if (dirty) await leader.jobResults.cleanUp(jobId, leader.token);
    return (await leader.jobGraphs.list()).map(({ jobId }) => jobId);
  }

  /** The protocol's invariants, as far as they can be seen in the stores. */
  async check(leader: Leader): Promise<void> {
    const before = await this.checkPointers();
    await this.sweep(leader);
    const left = await this.objectKeys();
    // Orphans are objects only, and one sweep removes them all and nothing else.
    expect(left.filter((key) => !before.has(key))).toEqual([]);
    expect([...before].filter((key) => !left.includes(key))).toEqual([]);
    if (this.quick) return;
    await this.checkPointers();
    expect(await this.sweep(leader)).toBe(0);
  }

  /** Every pointer leads to a readable object with its digest. Returns all objects pointed to. */
  private async checkPointers(): Promise<ReadonlySet<string>> {
    const stores = this.look();
    const referenced = new Set<string>();
    const jobs = new Set<string>();
    const { entries } = await this.backend.coordination.list(`${this.clusterId}/`);
    const under = (kind: string) => entries.filter((entry) => entry.key.startsWith(`${this.clusterId}/${kind}/`));
    for (const entry of entries) {
      const pointers = entry.value.matchAll(/"objectKey":"([^"]+)"/g);
      for (const [, key = ''] of pointers) referenced.add(key);
    }
    for (const { jobId } of await stores.jobGraphs.list()) {
      jobs.add(jobId);
      await stores.jobGraphs.load(jobId);
      expect(await stores.jobResults.get(jobId), 'a job has a result and still runs').toBeUndefined();
      for (const { checkpointId } of await stores.checkpoints.completed(jobId).listIds()) {
        const { metadata } = await stores.checkpoints.completed(jobId).read(checkpointId);
        await this.checkState(metadata, referenced);
      }
    }
    for (const { jobId } of await stores.jobResults.list())
      expect(await stores.jobResults.details(jobId), `details of ${jobId}`).toBeDefined();
    for (const entry of under('retained')) {
      const key = /"objectKey":"([^"]+)"/.exec(entry.value)?.[1] ?? '';
      await this.checkState((await stores.checkpoints.readExternal(key)).metadata, referenced);
    }
    for (const { id } of await stores.jars.list()) {
      const jar = await stores.jars.get(id);
      expect(digestOf(await this.backend.objects.get(jar.objectKey))).toBe(jar.digest);
    }
    const owners = [...under('checkpoints'), ...under('counters'), ...under('cancels')].map(
      ({ key }) => key.split('/')[2] ?? '',
    );
    const dirty = (await stores.jobResults.list()).filter((one) => one.dirty).map((one) => one.jobId as string);
    expect(
      owners.filter((id) => !jobs.has(id) && !dirty.includes(id)),
      'keys of jobs that are over',
    ).toEqual([]);
    for (const key of referenced) {
      const found = (await this.backend.objects.size(key)) !== undefined;
      // Bundles are referenced by jobs whose jar may be gone; everything else is a pointer proper.
      expect(found, `${key} is pointed to and missing`).toBe(true);
    }
    await this.addBundles(stores, jobs, referenced);
    return referenced;
  }

  private async addBundles(stores: HaStores, jobs: ReadonlySet<string>, referenced: Set<string>): Promise<void> {
    for (const jobId of jobs) {
      if (!isJobId(jobId)) continue;
      const { bundle } = await stores.jobGraphs.load(jobId);
      if (bundle.kind !== 'object') continue;
      expect(digestOf(await this.backend.objects.get(bundle.objectKey)), 'a bundle of a running job').toBe(
        bundle.digest,
      );
      referenced.add(bundle.objectKey);
    }
  }

  private async checkState(metadata: CheckpointMetadata, referenced: Set<string>): Promise<void> {
    for (const key of stateKeysOf(metadata)) {
      expect(await this.backend.objects.size(key), `state ${key} of checkpoint ${metadata.checkpointId}`).toBeDefined();
      referenced.add(key);
    }
  }

  /** As a worker does: state objects first, then the metadata that names them. */
  async snapshot(
    graph: JobGraph,
    checkpointId: number,
    options: {
      readonly kind?: CheckpointMetadata['kind'];
      /** Objects that others wrote and it refers to. */
      readonly shared?: readonly string[];
      /** What it writes may be referred to by others. */
      readonly shares?: boolean;
      /** Of which life of the job; default the first. */
      readonly deployment?: string;
    } = {},
  ): Promise<CheckpointMetadata> {
    const deployment = (options.deployment ?? '1-1') as CheckpointMetadata['deployment'];
    const nameOf = options.shares === true ? sharedObjectName : stateObjectName;
    const key = this.keys.stateObjectPrefix(graph.jobId) + nameOf({ checkpointId, deployment }, random.hex(4));
    await this.backend.objects.put(key, new TextEncoder().encode(`state of ${checkpointId}`));
    const [vertex] = graph.vertices;
    const [operator] = vertex?.operators ?? [];
    if (vertex === undefined || operator === undefined) throw new Error('a graph has vertices and operators');
    return {
      formatVersion: 1,
      jobId: graph.jobId,
      checkpointId,
      kind: options.kind ?? 'CHECKPOINT',
      deployment,
      triggerWallMs: 1,
      completedWallMs: 2,
      stateBytes: 10,
      graphFingerprint: graph.fingerprint,
      operators: [
        {
          operatorId: operator.id,
          parallelism: 1,
          maxParallelism: 128,
          subtasks: [
            {
              operatorId: operator.id,
              keyed: [key, ...(options.shared ?? [])].map((one) => ({
                firstKeyGroup: 0,
                lastKeyGroup: 0,
                offsets: [0, 10],
                handle: { kind: 'object', key: one, size: 10, digest: digestOf('x') },
              })),
              operator: [{ states: [], handle: { kind: 'inline', bytes: new Uint8Array([0, 1, 255]) } }],
            },
          ],
        },
      ],
    };
  }
}

export const endOf = (graph: JobGraph, status: 'FINISHED' | 'CANCELED' | 'FAILED') => ({
  result: {
    jobId: graph.jobId,
    name: graph.name,
    status,
    error: status === 'FAILED' ? ({ code: 'USER_CODE', message: 'it threw' } as const) : undefined,
    endedWallMs: 1_700_000_000_000,
  },
  details: detailsOf(graph, status) as JobDetailsView,
});

export { graphOf };
