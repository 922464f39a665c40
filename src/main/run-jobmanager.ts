import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { WatchedLeaderRetrieval } from '../../ha/election/leader-retrieval.ts';
import { ReplicaDirectory } from '../../ha/election/replica-directory.ts';
import { ReplicaRegistration } from '../../ha/election/replica-registration.ts';
import { WorkerRegistrations } from '../../ha/election/worker-registrations.ts';
import { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import { openHaStores } from '../../ha/stores/ha-stores.ts';
import { TermReads } from '../../ha/stores/term-reads.ts';
import { WarmObjects } from '../../ha/stores/warm-objects.ts';
import { IDENTITY, identityGatewaySpec } from '../contracts/identity-gateway.ts';
import { jobManagerGatewaySpec } from '../contracts/job-manager-gateway.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import { Dispatcher } from '../dispatcher/dispatcher.ts';
import { SystemClock } from '../kernel/clock.ts';
import { CloseStack } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { findPackageRoot } from '../program/bundle-folder.ts';
import { IsolatedPlanner } from '../program/isolated-planner.ts';
import { RestServer } from '../rest/rest-server.ts';
import { connectGateway } from '../rpc/connect-gateway.ts';
import { RpcServer } from '../rpc/rpc-server.ts';
import { environmentDefaults } from './config/job-defaults.ts';
import { describeConfiguration } from './config/load-config.ts';
import type { Configuration } from './config/options.ts';
import { HaEvents } from './ha-events.ts';
import { HandOverDesk } from './hand-over-desk.ts';
import { LeaderRole } from './leader-role.ts';
import { internalTls, rpcTls } from './internal-tls.ts';
import { objectStoreSettings, openObjects } from './open-objects.ts';
import { openCoordination, type ProcessDeps } from './open-stores.ts';
import { rehearseTakeover } from './rehearse.ts';
import { startElection, startLeaseKeeper } from './start-election.ts';
import { temporaryDir } from './temporary-dir.ts';
import { untilTold } from './until-told.ts';

/** Runs a master until the process is told to stop; then it hands over leadership and closes. */
export async function runJobManager(c: Configuration, log: Logger, version: string): Promise<void> {
  const stack = new CloseStack();
  try {
    await startJobManager(c, log, version, stack);
    const signal = await untilTold();
    log.info({ signal }, 'jobmanager stopping');
  } finally {
    await stack.close();
  }
  log.info({}, 'jobmanager stopped');
}

async function startJobManager(c: Configuration, log: Logger, version: string, stack: CloseStack): Promise<void> {
  const deps: ProcessDeps = { clock: new SystemClock(), random: new SystemRandom(), log };
  const replicaId = c.replicaId ?? `${hostname()}-${process.pid}`;
  const incarnation = deps.random.hex(16);

  const tls = internalTls(c);
  const coordination = await openCoordination(deps, c);
  stack.add('coordination', () => coordination.close());
  // A thread takes a moment to start; meanwhile the rest does.
  const keeperStarting = startLeaseKeeper({ ...deps, coordination }, c, { replicaId });
  keeperStarting.catch(() => undefined); // Awaited below.
  stack.add('lease keeper', async () => (await keeperStarting)?.close());
  const objects = await openObjects(deps, objectStoreSettings(c));
  stack.add('objects', () => objects.close());
  const keys = new ClusterKeys(c.clusterId);
  const watching = { ...deps, coordination, keys };
  const warmObjects = WarmObjects.start({ ...watching, objects });
  stack.add('warm objects', () => warmObjects.close());
  const termReads = new TermReads(coordination, keys, deps.clock, log);
  stack.add('term reads', () => termReads.close());
  const stores = openHaStores({ ...deps, coordination: termReads, objects: warmObjects }, c.clusterId);

  const planner = new IsolatedPlanner(
    { ...deps, fetchBundle: (ref) => objects.get(ref.objectKey) },
    { dir: join(temporaryDir(c), 'plans'), timeoutMs: c.programTimeoutMs, defaults: environmentDefaults(c) },
  );
  stack.add('planner', () => planner.close());
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
    { historyMax: c.historyMax },
  );

  const retrieval = WatchedLeaderRetrieval.start(watching);
  stack.add('leader retrieval', () => retrieval.close());
  const directory = ReplicaDirectory.start(watching);
  stack.add('replica directory', () => directory.close());
  const workers = WorkerRegistrations.start(watching);
  stack.add('worker directory', () => workers.close());
  const events = new HaEvents({ ...deps, retrieval });
  const sweeper = stores.sweeper({ graceMs: c.gcGraceMs, intervalMs: c.gcIntervalMs });
  stack.add('sweeper', () => sweeper.close());

  const role = new LeaderRole(
    {
      ...deps,
      dispatcher,
      checkpoints: stores.checkpoints,
      sweeper,
      knownWorkers: () => workers.list(),
      onWorkerGone: (taskManagerId) => workers.forget(taskManagerId),
      connectWorker: (rpcAddress, token) =>
        connectGateway(taskManagerGatewaySpec, 'taskmanager', rpcAddress, { ...deps, token, ...rpcTls(tls) }),
      warmUp: {
        granted: () => {
          termReads.begin();
          warmObjects.pause();
        },
        revoked: () => {
          termReads.end();
          warmObjects.resume();
        },
      },
      onChange: (kind, token, reason) => events.add(kind, replicaId, token.toString(), reason),
    },
    {
      heartbeatIntervalMs: c.heartbeatIntervalMs,
      heartbeatTimeoutMs: c.heartbeatTimeoutMs,
      spreadOut: c.evenlySpread,
      slotRequestTimeoutMs: c.slotRequestTimeoutMs,
      cancelTimeoutMs: c.cancellationTimeoutMs,
      failover: c.failover,
      adoptionTimeoutMs: c.adoptionTimeoutMs,
    },
  );
  const rpc = await RpcServer.start({ host: c.jobmanagerBindHost, port: c.jobmanagerPort, log, ...rpcTls(tls) });
  stack.add('rpc', () => rpc.close());
  rpc.serve('jobmanager', jobManagerGatewaySpec, role.handler());
  rpc.serve(IDENTITY, identityGatewaySpec, { identify: async () => ({ replicaId, incarnation }) });

  const handing = new HandOverDesk({ log, replicaId, directory, events });
  let restUrl = '';
  const rest = await RestServer.start(
    {
      log,
      dispatcher,
      configuration: describeConfiguration(c),
      version,
      ha: {
        replicaId,
        restUrl: () => restUrl,
        isLeading: () => role.isLeading,
        leader: () => retrieval.current(),
        replicas: async () =>
          directory.list().map((replica) => ({
            id: replica.replicaId,
            restUrl: replica.restUrl,
            rpcAddress: replica.rpcAddress,
            startedMs: replica.startedWallMs,
          })),
        events: () => events.list(),
        handOver: (request) => handing.over(request),
      },
    },
    { host: c.restBindAddress, port: c.restPort, maxContentBytes: c.restMaxContentBytes, webRoot: webRoot() },
  );
  stack.add('rest', () => rest.close());
  restUrl = `http://${c.restAddress}:${rest.port}`;

  const address = { replicaId, incarnation, rpcAddress: `${c.jobmanagerAddress}:${rpc.port}`, restUrl };
  const registration = ReplicaRegistration.start(watching, { address });
  stack.add('registration', () => registration.close());
  const keeper = await keeperStarting;
  const election = startElection(
    { ...watching, retrieval, directory, events, keeper },
    c,
    { address, lastWrites: () => role.stopped() },
    role,
  );
  handing.opens({ election, token: () => role.leadingToken });
  // Added last, so closed first: nothing comes between the wish to stop and the hand-over.
  stack.add('election', () => election.close());
  log.info(
    {
      replicaId,
      restUrl,
      rpcAddress: address.rpcAddress,
      coordination: coordination.description,
      objects: objects.description,
    },
    'jobmanager started',
  );
  const rehearsal = deps.clock.schedule(REHEARSE_AFTER_MS, () => void rehearseTakeover());
  stack.add('rehearsal', async () => rehearsal.cancel());
}

/** Whoever leads from the start has other things to do in its first moments. */
const REHEARSE_AFTER_MS = 500;

function webRoot(): string | undefined {
  const built = join(findPackageRoot(), 'dist', 'web');
  return existsSync(built) ? built : undefined;
}
