import { ModelCheckpointStores, token as tokenOf, twoVertexGraph } from '../checkpoint/checkpoint.fixture.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { JobOutcome } from '../contracts/job-master.ts';
import type { JobStatus } from '../contracts/job-status.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { JobMaster } from './job-master.ts';
import type { JobMasterOptions } from './job-master-options.ts';
import { ModelCluster, type ModelWorker } from './model-cluster.fixture.ts';

/** One job on a manual clock, with model workers and stores that outlive its masters. */
export class JobBench {
  readonly clock = new ManualClock();
  readonly stores = new ModelCheckpointStores();
  readonly cluster: ModelCluster;
  readonly fenced: string[] = [];
  readonly notAdopted: string[] = [];
  readonly graph: JobGraph;
  outcome: JobOutcome | undefined;
  private current: JobMaster | undefined;

  constructor(graph: Parameters<typeof twoVertexGraph>[0] = {}, workers = 1, slots = 1) {
    this.graph = twoVertexGraph(graph);
    this.cluster = new ModelCluster(this.clock, tokenOf(1));
    for (let i = 0; i < workers; i++) this.cluster.worker(slots);
  }

  get master(): JobMaster {
    if (this.current === undefined) throw new Error('not started');
    return this.current;
  }

  start(options: Partial<JobMasterOptions> = {}, term = 1): JobMaster {
    const token = tokenOf(term);
    this.stores.leader = token;
    this.cluster.token = token;
    const { clock, cluster, stores } = this;
    const master = JobMaster.start(
      {
        clock,
        random: new SeededRandom(term),
        log: silentLogger,
        slots: cluster.provider(token),
        checkpoints: stores,
        onFenced: (reason) => this.fenced.push(reason),
        onNotAdopted: (_jobId, reason) => this.notAdopted.push(reason),
      },
      this.graph,
      token,
      { cancelRequested: false, slotRequestTimeoutMs: 10_000, cancelTimeoutMs: 3_000, ...options },
    );
    this.cluster.master = master;
    this.current = master;
    // As the ResourceManager does: whoever subscribes learns of the workers that are there.
    for (const worker of cluster.workers) if (worker.alive) cluster.register(worker);
    void master.terminated.then((outcome) => {
      this.outcome = outcome;
    });
    return master;
  }

  async started(options: Partial<JobMasterOptions> = {}): Promise<this> {
    this.start(options);
    await this.pass(0);
    return this;
  }

  /** The leader dies without a word; another one takes over. */
  async takeOver(term: number, options: Partial<JobMasterOptions> = {}): Promise<this> {
    void this.current?.close();
    this.start({ adopt: true, ...options }, term);
    await this.pass(0);
    return this;
  }

  /** What the workers were told since the last time, without heartbeats. */
  calls(): string[] {
    return this.cluster.workers.flatMap((worker) => worker.calls.splice(0).map((call) => `${worker.id} ${call}`));
  }

  pass(ms: number): Promise<void> {
    return this.clock.advance(ms);
  }

  get status(): JobStatus {
    return this.master.details().status;
  }

  worker(n: number): ModelWorker {
    const worker = this.cluster.workers[n];
    if (worker === undefined) throw new Error(`no worker ${n}`);
    return worker;
  }

  /** Deployments by their slots' workers, in the order they were sent. */
  deployments(): string[] {
    const all = this.cluster.workers.flatMap((worker) => worker.deployments.map((message) => message.deployment));
    return [...new Set(all)].sort();
  }

  failTask(worker: ModelWorker, message = 'boom'): void {
    const [first] = worker.live();
    if (first === undefined) throw new Error('nothing runs there');
    worker.set(first, 'FAILED', { code: 'USER_CODE', message });
  }
}
