import { afterEach, expect, test } from 'vitest';
import { ModelCheckpointStores, token as tokenOf, twoVertexGraph } from '../checkpoint/checkpoint.fixture.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import type { FencingToken } from '../kernel/ids.ts';
import { ResourceManager } from '../resourcemanager/resource-manager.ts';
import { JobMaster } from './job-master.ts';
import { ModelCluster, type ModelWorker } from './model-cluster.fixture.ts';

/** The JobMaster with the real ResourceManager between it and model workers. */
class Term {
  readonly resources: ResourceManager;
  master: JobMaster | undefined;
  readonly fenced: string[] = [];

  constructor(
    private readonly world: World,
    readonly token: FencingToken,
  ) {
    const { clock, cluster } = world;
    world.stores.leader = token;
    this.resources = new ResourceManager(
      {
        clock,
        random: new SeededRandom(Number(token)),
        log: silentLogger,
        connectTaskManager: (address) => {
          const worker = cluster.workers.find((candidate) => `${candidate.id}:1` === address);
          if (worker === undefined) throw new Error(`no worker at ${address}`);
          return { ...worker.gateway(token), close: async () => {}, onConnectionLost: () => () => {} };
        },
      },
      { token, heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000, spreadOut: true },
    );
  }

  async register(worker: ModelWorker): Promise<void> {
    const registration = {
      taskManagerId: worker.id,
      rpcAddress: `${worker.id}:1`,
      dataHost: 'h',
      slots: worker.slots,
      hardware: { cpuCores: 1, physicalMemoryBytes: 1, freeMemoryBytes: 1 },
      pid: 1,
      report: worker.report(),
    };
    await this.resources.registerTaskManager(registration, this.token);
  }

  start(cancelRequested = false, adopt = false): JobMaster {
    const { clock, stores, cluster, graph } = this.world;
    const deps = {
      clock,
      random: new SeededRandom(Number(this.token)),
      log: silentLogger,
      slots: this.resources,
      checkpoints: stores,
      onFenced: (reason: string) => this.fenced.push(reason),
    };
    const options = { cancelRequested, adopt, slotRequestTimeoutMs: 60_000, cancelTimeoutMs: 3_000 };
    this.master = JobMaster.start(deps, graph, this.token, options);
    cluster.master = this.master;
    return this.master;
  }

  async end(): Promise<void> {
    await this.master?.close();
    await this.resources.close();
  }
}

class World {
  readonly clock = new ManualClock();
  readonly stores = new ModelCheckpointStores();
  readonly cluster = new ModelCluster(this.clock, tokenOf(1));
  readonly graph = twoVertexGraph({ parallelism: 4 });
  readonly terms: Term[] = [];

  constructor(...slots: number[]) {
    for (const count of slots) this.cluster.worker(count, false);
  }

  term(n: number): Term {
    const term = new Term(this, tokenOf(n));
    this.terms.push(term);
    return term;
  }

  /** A first term in which the job runs and has completed a checkpoint. */
  async running(): Promise<Term> {
    const term = this.term(1);
    for (const worker of this.cluster.workers) await term.register(worker);
    term.start();
    await this.clock.advance(1_100);
    expect(term.master?.details().status).toBe('RUNNING');
    return term;
  }

  live(): string[] {
    return [...this.cluster.liveDeployments()];
  }
}

const worlds: World[] = [];
const world = (...slots: number[]) => {
  const made = new World(...slots);
  worlds.push(made);
  return made;
};
afterEach(async () => {
  for (const one of worlds.splice(0)) for (const term of one.terms) await term.end();
});

test('a new term whose workers register before the job is started runs it in the slots that it had', async () => {
  const w = world(2, 2);
  await (await w.running()).end();
  const term = w.term(2);
  for (const worker of w.cluster.workers) await term.register(worker);
  await w.clock.advance(10);
  term.start();
  await w.clock.advance(50);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
  expect(w.live()).toEqual(['2-1']);
  expect(w.cluster.workers[0]?.deployments.at(-1)?.tasks[0]?.restore?.checkpointId).toBe(1);
  await w.clock.advance(20_000);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
});

test('a new term whose workers register after the job was started ends their leftovers first', async () => {
  const w = world(2, 2);
  await (await w.running()).end();
  const term = w.term(2);
  term.start();
  await w.clock.advance(10);
  for (const worker of w.cluster.workers) await term.register(worker);
  await w.clock.advance(50);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
  expect(w.live()).toEqual(['2-1']);
  await w.clock.advance(20_000);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
});

test('a worker that registers when the job runs elsewhere again gives up what it still ran', async () => {
  const w = world(2, 2);
  await (await w.running()).end();
  const spare = w.cluster.worker(4, false);
  const term = w.term(2);
  term.start();
  await term.register(spare);
  await w.clock.advance(100);
  expect(term.master?.details().status).toBe('RUNNING');
  for (const worker of w.cluster.workers.slice(0, 2)) await term.register(worker);
  await w.clock.advance(100);
  expect(w.live()).toEqual(['2-1']);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
  for (const worker of w.cluster.workers.slice(0, 2)) expect(worker.allocations.size).toBe(0);
});

test('a new term takes over tasks and slots whichever comes first, its master or its workers; no slot is freed or leaks', async () => {
  for (const registerFirst of [true, false]) {
    const w = world(2, 2);
    await (await w.running()).end();
    const before = w.cluster.workers.map((worker) => [...worker.allocations.keys()]);
    const term = w.term(2);
    if (registerFirst) for (const worker of w.cluster.workers) await term.register(worker);
    term.start(false, true);
    await w.clock.advance(10);
    if (!registerFirst) for (const worker of w.cluster.workers) await term.register(worker);
    await w.clock.advance(50);
    expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 0 });
    expect(w.live()).toEqual(['1-1']);
    // Longer than slots that nobody claims are kept.
    await w.clock.advance(30_000);
    expect(w.cluster.workers.map((worker) => [...worker.allocations.keys()])).toEqual(before);
    expect(term.resources.totals()).toMatchObject({ slotsTotal: 4, slotsFree: 0 });
    term.master?.cancel();
    await w.clock.advance(100);
    await expect(term.master?.terminated).resolves.toMatchObject({ status: 'CANCELED' });
    await term.master?.close();
    await w.clock.advance(100);
    expect(term.resources.totals()).toMatchObject({ slotsTotal: 4, slotsFree: 4 });
    expect(w.live()).toEqual([]);
  }
});

test('a term that has lost a worker of the job ends what is left of it, and takes and returns whole slots only', async () => {
  const w = world(2, 2, 2);
  await (await w.running()).end();
  const victim = w.cluster.workers.find((worker) => worker.allocations.size > 0);
  if (victim === undefined) throw new Error('no worker in use');
  victim.alive = false;
  const term = w.term(2);
  for (const worker of w.cluster.workers) if (worker.alive) await term.register(worker);
  term.start(false, true);
  await w.clock.advance(5_000);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING' });
  expect(w.live()).toEqual(['2-1']);
  expect(term.resources.totals()).toMatchObject({ slotsTotal: 4, slotsFree: 0 });
  const held = w.cluster.workers.filter((worker) => worker.alive).flatMap((worker) => [...worker.allocations.keys()]);
  expect(held).toHaveLength(4);
});

test('a worker dies: its tasks move to spare slots, the others stay where they are', async () => {
  const w = world(2, 2, 2);
  const term = await w.running();
  const used = w.cluster.workers.filter((worker) => worker.allocations.size > 0);
  const victim = used[0];
  if (victim === undefined) throw new Error('no worker in use');
  victim.alive = false;
  await w.clock.advance(10_000);
  expect(term.master?.details()).toMatchObject({ status: 'RUNNING', restarts: 1 });
  expect(w.live()).toEqual(['1-2']);
});

test('a cancelled job leaves no slot taken and no task running', async () => {
  const w = world(2, 2);
  const term = await w.running();
  term.master?.cancel();
  await w.clock.advance(100);
  await expect(term.master?.terminated).resolves.toMatchObject({ status: 'CANCELED' });
  await term.master?.close();
  await w.clock.advance(100);
  expect(term.resources.totals()).toMatchObject({ slotsTotal: 4, slotsFree: 4 });
  expect(w.live()).toEqual([]);
});

test('a wish to cancel found by a new term ends what the workers still run, whenever they register', async () => {
  for (const registerFirst of [true, false]) {
    const w = world(2, 2);
    await (await w.running()).end();
    const term = w.term(2);
    if (registerFirst) for (const worker of w.cluster.workers) await term.register(worker);
    term.start(true);
    await w.clock.advance(10);
    if (!registerFirst) for (const worker of w.cluster.workers) await term.register(worker);
    await w.clock.advance(5_000);
    await expect(term.master?.terminated).resolves.toMatchObject({ status: 'CANCELED' });
    expect(w.live()).toEqual([]);
  }
});
