import { EtcdModel } from '../../../ha/coordination/etcd-model.ts';
import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import { type HaStores, openHaStores } from '../../../ha/stores/ha-stores.ts';
import { until } from '../../../test-support/until.ts';
import { StreamExecutionEnvironment } from '../../api/environment.ts';
import type { OperationView } from '../../contracts/dispatcher-gateway.ts';
import { jobManagerGatewaySpec } from '../../contracts/job-manager-gateway.ts';
import type { JobGraph } from '../../contracts/job-graph.ts';
import { isTerminalJobStatus, type JobStatus } from '../../contracts/job-status.ts';
import type { LeaderInfo } from '../../contracts/leadership.ts';
import type { TriggerId } from '../../contracts/operations.ts';
import { taskManagerGatewaySpec } from '../../contracts/task-manager-gateway.ts';
import { Dispatcher } from '../../dispatcher/dispatcher.ts';
import { SystemClock } from '../../kernel/clock.ts';
import { isMillraceError, UnavailableError } from '../../kernel/errors.ts';
import { asFencingToken, asTaskManagerId, type FencingToken, type JobId, newJobId } from '../../kernel/ids.ts';
import { silentLogger } from '../../kernel/log.ts';
import { SystemRandom } from '../../kernel/random.ts';
import { InlinePrograms } from '../../program/inline-programs.ts';
import { enumerateSplits, toUserProgram } from '../../program/program-graph.ts';
import { localGateway } from '../../rpc/local-gateway.ts';
import { createStateBackends } from '../../state/state-backends.ts';
import { SlotRuntime } from '../../subtask/slot-runtime.ts';
import { InlineSlotHost } from '../../taskmanager/inline-slot-host.ts';
import { TaskManager } from '../../taskmanager/task-manager.ts';
import { LeaderRole } from '../leader-role.ts';
import { hardware } from '../run-taskmanager.ts';

type Main = (env: StreamExecutionEnvironment) => void;
type WorkerCall = 'notifyCheckpointComplete' | 'notifyCheckpointAborted' | 'triggerCheckpoint' | 'submitTasks';

interface Master {
  readonly role: LeaderRole;
  readonly dispatcher: Dispatcher;
  readonly stores: HaStores;
  readonly token: FencingToken;
  alive: boolean;
}

/**
 * All roles of a cluster in this process, over models of the stores: masters that can be replaced at any moment,
 * one worker that outlives them. The engine, the control plane and the stores' logic are the real ones.
 */
export class InProcessCluster {
  readonly clock = new SystemClock();
  readonly random = new SystemRandom();
  readonly programs = new InlinePrograms();
  readonly etcd = new EtcdModel({ clock: this.clock });
  readonly objects = new MemoryObjectStore(this.clock);
  /** Calls to the worker that fail, as if the network had lost them. */
  readonly lost = new Set<WorkerCall>();
  private readonly listeners = new Set<(leader: LeaderInfo | undefined) => void>();
  private readonly masters: Master[] = [];
  private worker: TaskManager | undefined;
  private leader: LeaderInfo | undefined;

  static async start(slots: number): Promise<InProcessCluster> {
    const cluster = new InProcessCluster();
    cluster.replaceLeader();
    await cluster.startWorker(slots);
    return cluster;
  }

  get dispatcher(): Dispatcher {
    return this.present.dispatcher;
  }

  get stores(): HaStores {
    return this.present.stores;
  }

  get token(): FencingToken {
    return this.present.token;
  }

  /** The present leader is heard of no more, and another leads. Nothing is handed over. */
  replaceLeader(): void {
    const former = this.masters.at(-1);
    if (former !== undefined) former.alive = false;
    const stores = this.openStores();
    const key = stores.keys.leader;
    const { revision } = this.etcd.txn({ guards: [], then: [{ kind: 'put', key, value: 'leader' }] });
    const token = asFencingToken(revision);
    former?.role.revoked(former.token, 'killed');
    const master = this.createMaster(stores, token);
    this.masters.push(master);
    master.role.granted({ token, isValid: () => master.alive, abdicate: () => undefined });
    this.leader = {
      replicaId: `master-${this.masters.length}`,
      incarnation: '12345678',
      rpcAddress: 'local:1',
      restUrl: 'http://local',
      electedWallMs: 0,
      token,
    };
    for (const listener of this.listeners) listener(this.leader);
  }

  async run(main: Main, restoreFrom?: JobGraph['restoreFrom']): Promise<JobId> {
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    main(env);
    const stream = env.getStreamGraph('test job');
    const program = toUserProgram(stream, await enumerateSplits(stream));
    const jobId = newJobId(this.random);
    this.programs.add(jobId, program);
    const graph: JobGraph = {
      ...program.plan,
      jobId,
      bundle: { kind: 'inline', programId: jobId },
      submittedWallMs: this.clock.wallMs(),
      ...(restoreFrom === undefined ? {} : { restoreFrom }),
    };
    await this.leading(() => this.dispatcher.submitJob(graph, {}));
    return jobId;
  }

  status(jobId: JobId): Promise<JobStatus> {
    return this.leading(async () => (await this.dispatcher.requestJob(jobId)).status);
  }

  /** All tasks run. */
  async running(jobId: JobId): Promise<void> {
    await until(`job ${jobId} to run`, async () => {
      const job = await this.leading(() => this.dispatcher.requestJob(jobId));
      if (isTerminalJobStatus(job.status)) throw new Error(`${job.status}: ${job.exceptions.root?.message}`);
      return job.vertices.every(({ subtasks }) => subtasks.every(({ state }) => state === 'RUNNING'));
    });
  }

  async ended(jobId: JobId): Promise<JobStatus> {
    return await until(`job ${jobId} to end`, async () => {
      const status = await this.status(jobId);
      return isTerminalJobStatus(status) ? status : undefined;
    });
  }

  /** The result of an operation of a job. */
  async result(
    jobId: JobId,
    triggerId: TriggerId,
    kind: 'SAVEPOINT' | 'CHECKPOINT' = 'SAVEPOINT',
  ): Promise<OperationView & { readonly status: 'COMPLETED' }> {
    return await until(`the result of operation ${triggerId}`, async () => {
      const view = await this.leading(() => this.dispatcher.requestOperation(jobId, kind, triggerId));
      return view.status === 'COMPLETED' ? view : undefined;
    });
  }

  /** What runs in the leader and in the worker, for those who look inside. */
  inner(): {
    readonly role: unknown;
    readonly dispatcher: unknown;
    readonly stores: unknown;
    readonly worker: unknown;
  } {
    const { role, dispatcher, stores } = this.present;
    return { role, dispatcher, stores, worker: this.worker };
  }

  /** Waits until the leader has read which jobs there are. */
  async leading<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!isMillraceError(error, 'NOT_LEADER')) throw error;
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  }

  async close(): Promise<void> {
    const last = this.masters.at(-1);
    last?.role.revoked(last.token, 'the test is over');
    for (const { role } of this.masters) await role.stopped();
    await this.worker?.close();
  }

  private get present(): Master {
    return this.masters.at(-1) as Master;
  }

  private openStores(): HaStores {
    const { clock, random, objects } = this;
    const coordination = this.etcd.client({ name: `master-${this.masters.length}` });
    return openHaStores({ clock, random, objects, coordination, log: silentLogger }, 'test');
  }

  private createMaster(stores: HaStores, token: FencingToken): Master {
    const deps = { clock: this.clock, random: this.random, log: silentLogger };
    const refuse = () => Promise.reject(new UnavailableError('this cluster takes no jars'));
    const dispatcher = new Dispatcher(
      {
        ...deps,
        graphs: stores.jobGraphs,
        results: stores.jobResults,
        jars: stores.jars,
        operations: stores.operations,
        savepoints: stores.savepoints,
        planner: { inspect: refuse, plan: refuse },
      },
      { historyMax: 10 },
    );
    const role = new LeaderRole(
      {
        ...deps,
        dispatcher,
        checkpoints: stores.checkpoints,
        sweeper: stores.sweeper({ graceMs: 3_600_000, intervalMs: 600_000 }),
        connectWorker: (_address, by) => {
          const gateway = localGateway(taskManagerGatewaySpec, this.worker as TaskManager, { token: by });
          return new Proxy(gateway, {
            get: (target, name) =>
              this.lost.has(name as WorkerCall)
                ? () => Promise.reject(new UnavailableError(`${String(name)} was lost`))
                : Reflect.get(target, name),
          });
        },
        onChange: () => undefined,
      },
      {
        heartbeatIntervalMs: 200,
        heartbeatTimeoutMs: 60_000,
        spreadOut: true,
        slotRequestTimeoutMs: 30_000,
        cancelTimeoutMs: 10_000,
      },
    );
    return { role, dispatcher, stores, token, alive: true };
  }

  private async startWorker(slots: number): Promise<void> {
    const deps = { clock: this.clock, random: this.random, log: silentLogger };
    const { programs, objects } = this;
    const { keys } = this.stores;
    const stateBackends = createStateBackends(
      { objects },
      { objectPrefix: (jobId) => keys.stateObjectPrefix(jobId), memoryThresholdBytes: 64 },
    );
    this.worker = await TaskManager.start(
      {
        ...deps,
        leaderRetrieval: {
          current: () => this.leader,
          subscribe: (listener) => {
            this.listeners.add(listener);
            listener(this.leader);
            return () => this.listeners.delete(listener);
          },
        },
        connectJobManager: (leader) => {
          const master = this.masters.find(({ token }) => token === leader.token) as Master;
          const handler = new Proxy(master.role.handler(), {
            get: (target, name) =>
              master.alive
                ? Reflect.get(target, name)
                : () => Promise.reject(new UnavailableError('the master is dead')),
          });
          return localGateway(jobManagerGatewaySpec, handler, { token: leader.token });
        },
        slotHost: new InlineSlotHost((options, events) =>
          SlotRuntime.start({ ...deps, programs, stateBackends, events }, options),
        ),
        hardware,
      },
      {
        taskManagerId: asTaskManagerId('worker'),
        rpcAddress: 'local:2',
        dataHost: '127.0.0.1',
        slots,
        pid: process.pid,
        cancellationTimeoutMs: 10_000,
        heartbeatTimeoutMs: 60_000,
      },
    );
  }
}
