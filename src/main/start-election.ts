import type { Coordination } from '../../ha/coordination/coordination.ts';
import { electionTimes, type ReplicaAddress } from '../../ha/election/election-options.ts';
import { LeaderElection } from '../../ha/election/leader-election.ts';
import type { FastTakeoverOptions } from '../../ha/election/leader-suspicion.ts';
import type { LeaseKeeper } from '../../ha/election/lease-keeper.ts';
import type { ReplicaDirectory, ReplicaInfo } from '../../ha/election/replica-directory.ts';
import { ThreadLeaseKeeper } from '../../ha/election/thread-lease-keeper.ts';
import type { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import type { LeaderContender, LeaderRetrieval } from '../contracts/leadership.ts';
import { RpcLeaderProbe } from '../rpc/leader-probe.ts';
import type { Configuration } from './config/options.ts';
import type { HaEvents } from './ha-events.ts';
import { internalTls, rpcTls } from './internal-tls.ts';
import { coordinationOptions, type ProcessDeps } from './open-stores.ts';

export interface StartElectionDeps extends ProcessDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly retrieval: LeaderRetrieval;
  readonly directory: ReplicaDirectory;
  readonly events: HaEvents;
  readonly keeper: LeaseKeeper | undefined;
}

/** A master's part in the election, as the configuration says. */
export function startElection(
  deps: StartElectionDeps,
  c: Configuration,
  own: { readonly address: ReplicaAddress; readonly lastWrites: () => Promise<void> },
  contender: LeaderContender,
): LeaderElection {
  const { keeper, events, directory, retrieval } = deps;
  const { replicaId } = own.address;
  const fastTakeover: FastTakeoverOptions = {
    probe: new RpcLeaderProbe({ clock: deps.clock, ...rpcTls(internalTls(c)) }),
    rank: () => placeAmongStandbys(directory.list(), replicaId, retrieval.current()?.replicaId),
    stealsPerMinuteMax: c.fastTakeoversPerMinute,
    alert: (kind, detail) => events.add(kind, replicaId, undefined, detail),
  };
  return LeaderElection.start(
    {
      clock: deps.clock,
      random: deps.random,
      log: deps.log,
      coordination: deps.coordination,
      keys: deps.keys,
      ...(keeper === undefined ? {} : { keeper }),
      ...(c.fastTakeover ? { fastTakeover } : {}),
    },
    { ...own, leaseTtlMs: c.leaseTtlMs, leaseMarginMs: c.leaseMarginMs },
    contender,
  );
}

/**
 * The thread that renews the lease; undefined where the event loop does. The embedded store is one of
 * one machine's processes, and its file is opened once in each of them.
 */
export async function startLeaseKeeper(
  deps: ProcessDeps & { readonly coordination: Coordination },
  c: Configuration,
  address: Pick<ReplicaAddress, 'replicaId'>,
): Promise<LeaseKeeper | undefined> {
  if (c.haType !== 'etcd') return undefined;
  const { renewIntervalMs, retryMs } = electionTimes({
    address: { ...address, incarnation: '', rpcAddress: '', restUrl: '' },
    leaseTtlMs: c.leaseTtlMs,
    leaseMarginMs: c.leaseMarginMs,
  });
  return await ThreadLeaseKeeper.start(deps, {
    workerUrl: new URL('../../ha/election/lease-thread.js', import.meta.url),
    coordination: coordinationOptions(c),
    times: { renewIntervalMs, retryMs },
    patienceMs: leasePatienceMs(c),
  });
}

const ROOM_TO_REGISTER_MS = 500;

/** A leader that hangs must be followed by another before its workers take its silence for their own isolation. */
export function leasePatienceMs(
  c: Pick<Configuration, 'leasePatienceMs' | 'heartbeatTimeoutMs' | 'leaseTtlMs'>,
): number {
  return c.leasePatienceMs ?? Math.max(c.leaseTtlMs, c.heartbeatTimeoutMs - c.leaseTtlMs - ROOM_TO_REGISTER_MS);
}

/** By id: every standby knows the same order. */
function placeAmongStandbys(replicas: readonly ReplicaInfo[], own: string, leader: string | undefined): number {
  const standbys = replicas.map((one) => one.replicaId).filter((id) => id !== leader);
  return Math.max(0, standbys.indexOf(own));
}
