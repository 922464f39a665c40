import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EtcdModel } from '../../ha/coordination/etcd-model.ts';
import { LeaderElection } from '../../ha/election/leader-election.ts';
import { WatchedLeaderRetrieval } from '../../ha/election/leader-retrieval.ts';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { openHaStores } from '../../ha/stores/ha-stores.ts';
import type { JobClient, JobExecutionResult } from '../api/job-client.ts';
import type { OperatorDefinition } from '../api/operator-definition.ts';
import { jobManagerGatewaySpec } from '../contracts/job-manager-gateway.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { isTerminalJobStatus } from '../contracts/job-status.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import type { JobDetailsView } from '../contracts/views.ts';
import { Dispatcher } from '../dispatcher/dispatcher.ts';
import { expandJobGraph } from '../graph/execution-graph.ts';
import type { StreamGraph } from '../graph/stream-graph.ts';
import { sleep, SystemClock } from '../kernel/clock.ts';
import { isMillraceError, MillraceError } from '../kernel/errors.ts';
import { asTaskManagerId, newJobId } from '../kernel/ids.ts';
import { CloseStack } from '../kernel/lifecycle.ts';
import { type Logger, silentLogger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { InlinePrograms } from '../program/inline-programs.ts';
import { enumerateSplits, toUserProgram } from '../program/program-graph.ts';
import { localGateway } from '../rpc/local-gateway.ts';
import { ThreadNeighbours } from '../exchange/port-transport.ts';
import { createStateBackends } from '../state/state-backends.ts';
import { SlotRuntime } from '../subtask/slot-runtime.ts';
import { InlineSlotHost } from '../taskmanager/inline-slot-host.ts';
import { TaskManager } from '../taskmanager/task-manager.ts';
import { LeaderRole } from './leader-role.ts';
import type { ProcessDeps } from './open-stores.ts';
import { hardware } from './run-taskmanager.ts';

const ADDRESS = {
  replicaId: 'mini-cluster',
  incarnation: 'mini-cluster',
  rpcAddress: 'local:1',
  restUrl: 'http://local',
};
const TIMES = { heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 60_000 };
/** How often the end of the job is looked for; the end itself is not delayed by it for long. */
const POLL_MS = 20;

/**
 * A whole cluster in this process, for one job: one master, one worker with as many slots as the job
 * needs, stores in memory. The same control plane and engine as in production; only messages are
 * handed over instead of sent, and functions stay the closures they are.
 */
export class MiniCluster implements JobClient {
  private readonly ended: Promise<JobExecutionResult>;

  private constructor(
    private readonly deps: ProcessDeps,
    private readonly dispatcher: Dispatcher,
    readonly jobId: JobGraph['jobId'],
    stack: CloseStack,
  ) {
    this.ended = this.untilEnded(stack);
    // Whoever asks for the result hears of a failure; nobody has to ask.
    this.ended.catch(() => undefined);
  }

  static async run(graph: StreamGraph<OperatorDefinition>, log: Logger = silentLogger): Promise<MiniCluster> {
    const deps: ProcessDeps = { clock: new SystemClock(), random: new SystemRandom(), log };
    const program = toUserProgram(graph, await enumerateSplits(graph));
    const jobId = newJobId(deps.random);
    const job: JobGraph = {
      ...program.plan,
      jobId,
      bundle: { kind: 'inline', programId: jobId },
      submittedWallMs: deps.clock.wallMs(),
    };
    const programs = new InlinePrograms();
    programs.add(jobId, program);
    const stack = new CloseStack();
    try {
      const dispatcher = await startRoles(deps, stack, programs, expandJobGraph(job).slotsNeeded);
      await whileElecting(deps, () => dispatcher.submitJob(job, {}));
      return new MiniCluster(deps, dispatcher, jobId, stack);
    } catch (error) {
      await stack.close();
      throw error;
    }
  }

  getJobExecutionResult(): Promise<JobExecutionResult> {
    return this.ended;
  }

  cancel(): Promise<void> {
    return whileElecting(this.deps, () => this.dispatcher.cancelJob(this.jobId));
  }

  private async untilEnded(stack: CloseStack): Promise<JobExecutionResult> {
    try {
      for (;;) {
        const details = await whileElecting(this.deps, () => this.dispatcher.requestJob(this.jobId));
        if (isTerminalJobStatus(details.status)) return resultOf(details);
        await sleep(this.deps.clock, POLL_MS);
      }
    } finally {
      await stack.close();
    }
  }
}

function resultOf(details: JobDetailsView): JobExecutionResult {
  if (details.status !== 'FINISHED') {
    const { root } = details.exceptions;
    const why = root === undefined ? '' : `: ${root.message}`;
    const cause = root === undefined ? undefined : Object.assign(new Error(root.message), { stack: root.stack });
    throw new MillraceError(
      root === undefined ? 'INTERNAL' : 'USER_CODE',
      `the job "${details.name}" ended ${details.status}${why}`,
      { cause },
    );
  }
  return { jobId: details.jobId, jobName: details.name, netRuntimeMs: details.durationMs };
}

async function startRoles(
  deps: ProcessDeps,
  stack: CloseStack,
  programs: InlinePrograms,
  slots: number,
): Promise<Dispatcher> {
  const coordination = new EtcdModel({ clock: deps.clock }).client({});
  stack.add('coordination', () => coordination.close());
  const objects = new MemoryObjectStore(deps.clock);
  const stores = openHaStores({ ...deps, coordination, objects }, 'mini');
  const watching = { ...deps, coordination, keys: stores.keys };
  const planner = {
    inspect: () => Promise.reject(new MillraceError('INVALID_ARGUMENT', 'a mini cluster takes no jars')),
    plan: () => Promise.reject(new MillraceError('INVALID_ARGUMENT', 'a mini cluster takes no jars')),
  };
  const dispatcher = new Dispatcher(
    {
      ...deps,
      graphs: stores.jobGraphs,
      results: stores.jobResults,
      jars: stores.jars,
      operations: stores.operations,
      savepoints: stores.savepoints,
      planner,
    },
    { historyMax: 10 },
  );
  const sweeper = stores.sweeper({ graceMs: 3_600_000, intervalMs: 600_000 });
  stack.add('sweeper', () => sweeper.close());
  let taskManager: TaskManager | undefined;
  const role = new LeaderRole(
    {
      ...deps,
      dispatcher,
      checkpoints: stores.checkpoints,
      sweeper,
      connectWorker: (_address, token) =>
        localGateway(taskManagerGatewaySpec, started(taskManager), { token, validate: false }),
      onChange: () => undefined,
    },
    { ...TIMES, spreadOut: true, slotRequestTimeoutMs: 60_000, cancelTimeoutMs: 10_000 },
  );
  const retrieval = WatchedLeaderRetrieval.start(watching);
  stack.add('leader retrieval', () => retrieval.close());
  const directory = join(tmpdir(), `millrace-${process.pid}-${deps.random.hex(4)}`);
  const stateBackends = createStateBackends(
    { objects },
    {
      objectPrefix: (jobId) => stores.keys.stateObjectPrefix(jobId),
      // Made when the job wants its state on disk, and gone with it.
      lmdb: { directory },
    },
  );
  stack.add('state on disk', async () => {
    await stateBackends.close();
    await rm(directory, { recursive: true, force: true });
  });
  const neighbours = new ThreadNeighbours();
  taskManager = await TaskManager.start(
    {
      ...deps,
      leaderRetrieval: retrieval,
      connectJobManager: (leader) =>
        localGateway(jobManagerGatewaySpec, role.handler(), { token: leader.token, validate: false }),
      slotHost: new InlineSlotHost((options, events) =>
        SlotRuntime.start({ ...deps, programs, stateBackends, neighbours, events }, options),
      ),
      hardware,
    },
    {
      taskManagerId: asTaskManagerId('mini-worker'),
      rpcAddress: 'local:2',
      dataHost: '127.0.0.1',
      slots,
      pid: process.pid,
      cancellationTimeoutMs: 10_000,
      heartbeatTimeoutMs: TIMES.heartbeatTimeoutMs,
    },
  );
  const election = LeaderElection.start(
    watching,
    { address: ADDRESS, leaseTtlMs: 60_000, leaseMarginMs: 10_000, lastWrites: () => role.stopped() },
    role,
  );
  stack.add('election', () => election.close());
  const worker = taskManager;
  stack.add('taskmanager', () => worker.close());
  return dispatcher;
}

function started(taskManager: TaskManager | undefined): TaskManager {
  if (taskManager === undefined) throw new MillraceError('INTERNAL', 'the worker has not started');
  return taskManager;
}

/** The only election of this cluster takes a moment. */
async function whileElecting<T>(deps: ProcessDeps, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isMillraceError(error, 'NOT_LEADER')) throw error;
      await sleep(deps.clock, 5);
    }
  }
}
