import { LeaderElection } from '../../ha/election/leader-election.ts';
import { WatchedLeaderRetrieval } from '../../ha/election/leader-retrieval.ts';
import { ReplicaRegistration } from '../../ha/election/replica-registration.ts';
import { openHaStores } from '../../ha/stores/ha-stores.ts';
import type { Sweeper } from '../../ha/stores/sweeper.ts';
import { jobManagerGatewaySpec } from '../../src/contracts/job-manager-gateway.ts';
import { taskManagerGatewaySpec } from '../../src/contracts/task-manager-gateway.ts';
import { Dispatcher } from '../../src/dispatcher/dispatcher.ts';
import { MillraceError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import { LeaderRole } from '../../src/main/leader-role.ts';
import type { TaskManagerConnection } from '../../src/resourcemanager/registered-worker.ts';
import { clientHandler } from './sim-client.ts';
import { SimCoordination } from './sim-coordination.ts';
import { SimLeaderProbe } from './sim-leader-probe.ts';
import { SimObjects } from './sim-objects.ts';
import type { SimProcess } from './sim-process.ts';
import { CLUSTER_ID, type SimWorld } from './sim-world.ts';

/** A master process, wired as `src/main/run-jobmanager.ts` wires one. */
export class SimMaster {
  /** The present term's token, while it leads. */
  token: FencingToken | undefined;

  private constructor(
    readonly process: SimProcess,
    readonly dispatcher: Dispatcher,
    readonly role: LeaderRole,
    readonly sweeper: Sweeper,
    private readonly election: LeaderElection,
    private readonly closers: (() => Promise<void>)[],
  ) {}

  static start(world: SimWorld, host: string): SimMaster {
    const { config, network } = world;
    const process = world.spawn(host);
    const { clock, random, log } = process;
    const deps = { clock, random, log };
    const coordination = new SimCoordination(process, world.etcd, config.etcdDeadlineMs);
    const objects = new SimObjects(process, world.objects, (one, call) => world.objectFate(one, call));
    const stores = openHaStores({ ...deps, coordination, objects }, CLUSTER_ID);
    const watching = { ...deps, coordination, keys: stores.keys };
    const none = () => Promise.reject(new MillraceError('INVALID_ARGUMENT', 'no jars here'));
    const dispatcher = new Dispatcher(
      {
        ...{ ...deps, graphs: stores.jobGraphs, results: stores.jobResults, jars: stores.jars },
        ...{ operations: stores.operations, savepoints: stores.savepoints },
        planner: { inspect: none, plan: none },
      },
      { historyMax: 100 },
    );
    const retrieval = WatchedLeaderRetrieval.start(watching);
    retrieval.subscribe((leader) => world.tell('leaderSeen', process.name, leader?.token));
    const sweeper = stores.sweeper({ graceMs: 3_600_000, intervalMs: 3_600_000 });
    const role = new LeaderRole(
      {
        ...{ ...deps, dispatcher, checkpoints: stores.checkpoints, sweeper },
        connectWorker: (rpcAddress, token) => connectWorker(world, process, rpcAddress, token),
        onChange: (kind, token, reason) => {
          world.trace.notable(process.name, `leadership ${kind} ${token} ${reason}`);
          if (kind === 'granted') master.token = token;
          if (kind === 'revoked') master.token = undefined;
        },
      },
      {
        heartbeatIntervalMs: config.heartbeatIntervalMs,
        heartbeatTimeoutMs: config.heartbeatTimeoutMs,
        spreadOut: config.spreadOut,
        slotRequestTimeoutMs: config.slotRequestTimeoutMs,
        cancelTimeoutMs: config.cancelTimeoutMs,
        failover: config.failover,
        adoptionTimeoutMs: config.adoptionTimeoutMs,
      },
    );
    const address = {
      ...{ replicaId: host, incarnation: `incarnation-${process.name}` },
      ...{ rpcAddress: `${host}:6123`, restUrl: `http://${host}:8081` },
    };
    network.listen(address.rpcAddress, process, 'jobmanager', role.handler());
    network.listen(
      address.rpcAddress,
      process,
      'client',
      clientHandler(dispatcher, {
        submission: (jobId) => world.tell('submissionReceived', jobId),
        operation: (triggerId) => world.tell('operationReceived', triggerId),
      }),
    );
    const fastTakeover = {
      ...{ probe: new SimLeaderProbe(world, process), rank: () => Number(host.slice(1)), stealsPerMinuteMax: 4 },
      alert: (kind: string, detail: string) => world.trace.notable(process.name, `${kind}: ${detail}`),
    };
    const election = LeaderElection.start(
      { ...watching, ...(config.fastTakeover ? { fastTakeover } : {}) },
      {
        ...{ address, leaseTtlMs: config.leaseTtlMs, leaseMarginMs: config.leaseTtlMs / 4 },
        lastWrites: () => role.stopped(),
      },
      role,
    );
    const registration = ReplicaRegistration.start(watching, { address, ttlMs: 2_500 });
    const master: SimMaster = new SimMaster(process, dispatcher, role, sweeper, election, [
      () => registration.close(),
      () => election.close(),
      () => sweeper.close(),
      () => retrieval.close(),
      () => coordination.close(),
    ]);
    return master;
  }

  /** As on SIGTERM: hands over and ends. */
  async stop(): Promise<void> {
    for (const close of this.closers) await close();
    this.process.crash('it has stopped');
  }

  get isLeading(): boolean {
    return !this.process.dead && this.role.isLeading;
  }

  get phase(): string {
    return this.election.phase;
  }
}

function connectWorker(
  world: SimWorld,
  process: SimProcess,
  rpcAddress: string,
  token: FencingToken,
): TaskManagerConnection {
  const connection = world.network.connect(taskManagerGatewaySpec, 'taskmanager', process, rpcAddress, token);
  return {
    ...connection,
    submitTasks: (deployment) => {
      if (!process.dead) world.tell('deploying', process.name, token, deployment);
      return connection.submitTasks(deployment);
    },
    triggerCheckpoint: (request) => {
      const { jobId, deployment, checkpointId } = request;
      if (!process.dead) world.tell('triggering', process.name, token, jobId, deployment, checkpointId);
      return connection.triggerCheckpoint(request);
    },
  };
}

export { jobManagerGatewaySpec };
