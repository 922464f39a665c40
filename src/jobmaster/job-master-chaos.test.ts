import { expect, test } from 'vitest';
import { compareDeployments, type DeploymentId } from '../kernel/ids.ts';
import { type MillraceError, UnavailableError } from '../kernel/errors.ts';
import { SeededRandom } from '../kernel/random.ts';
import type { AddFate } from '../checkpoint/checkpoint.fixture.ts';
import { JobBench } from './job-bench.fixture.ts';

const FATES: readonly AddFate[] = ['lost', 'lost-undone', { refuse: new UnavailableError('S3 is away') }];

/** A job through whatever can happen to it, by seed; at the end everything heals and it must finish. */
class Chaos {
  readonly bench: JobBench;
  private readonly random: SeededRandom;
  private term = 1;

  constructor(
    readonly seed: number,
    private readonly mode: { readonly adopt: boolean; readonly partitioner: 'REBALANCE' | 'FORWARD' },
  ) {
    this.random = new SeededRandom(seed);
    this.bench = new JobBench(
      {
        parallelism: 2,
        partitioner: mode.partitioner,
        checkpointing: { intervalMs: 200, timeoutMs: 700, tolerableFailedCheckpoints: 2, numRetained: 2 },
        restartStrategy: { type: 'fixed-delay', attempts: 1_000_000, delayMs: 50 },
      },
      3,
    );
  }

  async run(): Promise<void> {
    const { bench } = this;
    bench.start();
    let completed = 0;
    for (let i = 0; i < 60; i++) {
      await this.disturb();
      await bench.pass(this.random.int(400));
      this.check();
      const newest = Math.max(0, ...bench.stores.pointers.keys());
      expect(newest, `seed ${this.seed}: completed checkpoints only rise`).toBeGreaterThanOrEqual(completed);
      completed = newest;
    }
    await this.heal();
  }

  private async disturb(): Promise<void> {
    const { bench, random } = this;
    const workers = bench.cluster.workers.filter((worker) => worker.alive);
    const worker = workers[random.int(workers.length)];
    if (worker === undefined) return;
    switch (random.int(12)) {
      case 0:
        if (worker.live().length > 0) bench.failTask(worker);
        return;
      case 1:
        // Others may notice it first, tasks of the next deployment included.
        for (const other of workers)
          if (other !== worker && random.int(2) === 0) for (const id of other.live()) other.losePeer(id);
        if (random.int(2) === 0) await bench.pass(random.int(100));
        bench.cluster.kill(worker);
        bench.cluster.worker(1);
        return;
      case 2:
        worker.acks = !worker.acks;
        return;
      case 3:
        worker.answersCancel = !worker.answersCancel;
        return;
      case 4:
        worker.loseNotices = 2;
        return;
      case 5:
        bench.stores.fates.push(FATES[random.int(FATES.length)] ?? 'ok');
        return;
      case 6:
        worker.refuseDeploy = new UnavailableError('no answer') as MillraceError;
        return;
      case 7:
        bench.master.suspend();
        await bench.pass(random.int(1_000));
        bench.master.resume();
        return;
      case 8:
        this.newTerm();
        return;
      case 9:
        bench.cluster.heartbeat(worker);
        return;
      case 10: {
        // Updates are lost for a while; heartbeats make up for it.
        const { master } = bench.cluster;
        bench.cluster.master = undefined;
        await bench.pass(100);
        bench.cluster.master = master;
        for (const one of workers) bench.cluster.heartbeat(one);
        return;
      }
      default:
        bench.stores.counterAway =
          bench.stores.counterAway === undefined ? new UnavailableError('etcd is away') : undefined;
    }
  }

  /** The old master is not even told. */
  private newTerm(): void {
    const old = this.bench.master;
    this.bench.start({ adopt: this.mode.adopt }, ++this.term);
    if (this.random.int(2) === 0) this.bench.cluster.emit({ kind: 'settled' });
    if (this.random.int(2) === 0) void old.close();
  }

  private check(): void {
    const { bench, seed } = this;
    const newest = new Map<string, DeploymentId>();
    for (const worker of bench.cluster.workers) {
      for (const message of worker.deployments) {
        for (const task of message.tasks) {
          const key = `${worker.id} ${task.vertexId} ${task.subtaskIndex}`;
          const before = newest.get(key);
          const order = before === undefined ? 1 : compareDeployments(message.deployment, before);
          expect(order, `seed ${seed}: deployments rise`).toBeGreaterThan(0);
          newest.set(key, message.deployment);
        }
      }
    }
    const discarded = new Set(bench.stores.discarded);
    for (const metadata of bench.stores.pointers.values()) {
      for (const { handle } of metadata.operators.flatMap((op) => op.subtasks.flatMap((s) => s.keyed))) {
        if (handle.kind === 'object')
          expect(discarded.has(handle.key), `seed ${seed}: ${handle.key} is needed`).toBe(false);
      }
    }
  }

  private async heal(): Promise<void> {
    const { bench, seed } = this;
    bench.stores.counterAway = undefined;
    bench.stores.fates = [];
    for (const worker of bench.cluster.workers) {
      worker.acks = true;
      worker.answersCancel = true;
      worker.refuseDeploy = undefined;
      worker.loseNotices = 0;
    }
    for (let i = 0; i < 20; i++) {
      await bench.pass(1_000);
      for (const worker of bench.cluster.workers) if (worker.alive) bench.cluster.heartbeat(worker);
    }
    const details = bench.master.details();
    expect(details.status, `seed ${seed}: ${details.waitingFor}`).toBe('RUNNING');
    const live = bench.cluster.workers.flatMap((worker) => (worker.alive ? worker.live() : []));
    expect(live.length, `seed ${seed}: each task lives once`).toBe(4);
    if (this.mode.partitioner === 'REBALANCE')
      expect(bench.cluster.liveDeployments().size, `seed ${seed}: one deployment lives`).toBe(1);
    for (const worker of bench.cluster.workers) worker.endOfData();
    await bench.pass(3_000);
    expect(bench.outcome?.status, `seed ${seed}: ${bench.master.details().waitingFor}`).toBe('FINISHED');
    await bench.pass(0);
    for (const worker of bench.cluster.workers) expect(worker.allocations.size, `seed ${seed}: no slot leaks`).toBe(0);
    expect(bench.fenced.length, `seed ${seed}`).toBeLessThanOrEqual(this.term);
  }
}

const SEEDS = Array.from({ length: 25 }, (_, i) => i + 1);

test.each(SEEDS)('a job survives whatever happens to it (seed %i)', (seed) =>
  new Chaos(seed, { adopt: false, partitioner: 'REBALANCE' }).run(),
);

test.each(SEEDS)('a job of one region whose new leaders adopt it survives whatever happens (seed %i)', (seed) =>
  new Chaos(seed, { adopt: true, partitioner: 'REBALANCE' }).run(),
);

test.each(SEEDS)('a job of several regions whose new leaders adopt them survives whatever happens (seed %i)', (seed) =>
  new Chaos(seed, { adopt: true, partitioner: 'FORWARD' }).run(),
);
