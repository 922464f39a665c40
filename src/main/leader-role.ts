import type { Sweeper } from '../../ha/stores/sweeper.ts';
import type { CheckpointStores } from '../checkpoint/ports.ts';

import type { JobManagerHandler } from '../contracts/job-manager-gateway.ts';
import type { LeaderContender, Leadership } from '../contracts/leadership.ts';
import type { Dispatcher } from '../dispatcher/dispatcher.ts';
import { JobMaster } from '../jobmaster/job-master.ts';
import { NotLeaderError } from '../kernel/errors.ts';
import type { FencingToken, TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { KnownWorker } from '../resourcemanager/known-workers.ts';
import { ResourceManager } from '../resourcemanager/resource-manager.ts';
import type { TaskManagerConnection } from '../resourcemanager/registered-worker.ts';
import type { ProcessDeps } from './open-stores.ts';

export interface LeaderRoleDeps extends ProcessDeps {
  readonly dispatcher: Dispatcher;
  readonly checkpoints: CheckpointStores;
  readonly sweeper: Sweeper;
  /** Opens a worker's gateway under a token. */
  readonly connectWorker: (rpcAddress: string, token: FencingToken) => TaskManagerConnection;
  /** What this replica holds ready for its next term: told before anything of a term reads, and when it is over. */
  readonly warmUp?: { granted(): void; revoked(): void };
  /** Told of every change, for people. */
  readonly onChange: (
    kind: 'granted' | 'suspended' | 'resumed' | 'revoked' | 'not-adopted',
    token: FencingToken,
    reason: string,
  ) => void;
  /** Workers known from before the term; absent where there is no directory of them. */
  readonly knownWorkers?: () => readonly KnownWorker[] | undefined;
  readonly onWorkerGone?: (taskManagerId: TaskManagerId) => void;
}

export interface LeaderRoleOptions {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly spreadOut: boolean;
  readonly slotRequestTimeoutMs: number;
  readonly cancelTimeoutMs: number;
  /** `jobmaster.failover` */
  readonly failover?: 'adopt' | 'restart';
  /** `jobmaster.adoption-timeout` */
  readonly adoptionTimeoutMs?: number;
}

/** Events of one kind that a term tells people of; a hundred jobs must not push everything else out of the list. */
const NOT_ADOPTED_EVENTS_MAX = 10;

interface Term {
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
}

/**
 * What a master does while it leads: a ResourceManager and the Dispatcher's term, made together when
 * leadership is granted and ended together when it is over.
 */
export class LeaderRole implements LeaderContender {
  private term: Term | undefined;
  private ending: Promise<void> = Promise.resolve();
  private readonly background: BackgroundTasks;

  constructor(
    private readonly deps: LeaderRoleDeps,
    private readonly options: LeaderRoleOptions,
  ) {
    this.background = new BackgroundTasks(deps.log);
  }

  /** True while this replica leads and its lease is certainly alive. */
  get isLeading(): boolean {
    return this.term?.leadership.isValid() ?? false;
  }

  /** The token under which this replica leads, while it certainly does. */
  get leadingToken(): FencingToken | undefined {
    return this.isLeading ? this.term?.leadership.token : undefined;
  }

  granted(leadership: Leadership): void {
    const { token } = leadership;
    this.deps.log.info({ token: token.toString() }, 'leadership granted');
    this.deps.onChange('granted', token, 'won the election');
    this.deps.warmUp?.granted();
    const { adoptionTimeoutMs, failover = 'adopt' } = this.options;
    const waits = adoptionTimeoutMs === undefined ? {} : { adoptionTimeoutMs, knownWorkersGraceMs: adoptionTimeoutMs };
    const abdicate = (reason: string) => leadership.abdicate(reason);
    const resources = new ResourceManager(
      {
        ...this.deps,
        connectTaskManager: (rpcAddress) => this.deps.connectWorker(rpcAddress, token),
        onFenced: (error) => abdicate(error.message),
        awaitsMaster: (jobId) => this.deps.dispatcher.awaitsMaster(jobId),
      },
      {
        token,
        heartbeatIntervalMs: this.options.heartbeatIntervalMs,
        heartbeatTimeoutMs: this.options.heartbeatTimeoutMs,
        spreadOut: this.options.spreadOut,
        ...waits,
      },
    );
    let notAdopted = 0;
    this.term = { leadership, resources };
    this.deps.dispatcher.beginTerm(leadership, {
      listTaskManagers: () => resources.listTaskManagers(),
      releaseJob: (jobId) => resources.releaseJob(jobId),
      jobMasters: {
        start: (graph, jobToken, { cancelRequested, recovered }) =>
          JobMaster.start(
            {
              clock: this.deps.clock,
              random: this.deps.random,
              log: this.deps.log,
              slots: resources,
              checkpoints: this.deps.checkpoints,
              onFenced: abdicate,
              onNotAdopted: (jobId, reason) => {
                if (++notAdopted <= NOT_ADOPTED_EVENTS_MAX)
                  this.deps.onChange('not-adopted', token, `job ${jobId}: ${reason}`);
              },
            },
            graph,
            jobToken,
            {
              cancelRequested,
              adopt: recovered && failover === 'adopt',
              ...waits,
              slotRequestTimeoutMs: this.options.slotRequestTimeoutMs,
              cancelTimeoutMs: this.options.cancelTimeoutMs,
            },
          ),
      },
    });
    this.deps.sweeper.granted(leadership);
  }

  suspended(token: FencingToken, reason: string): void {
    this.deps.log.warn({ token: token.toString(), reason }, 'leadership suspended');
    this.deps.onChange('suspended', token, reason);
    this.term?.resources.suspend();
    this.deps.dispatcher.suspend();
    this.deps.sweeper.suspended();
  }

  resumed(token: FencingToken): void {
    this.deps.log.info({ token: token.toString() }, 'leadership resumed');
    this.deps.onChange('resumed', token, 'the lease is alive');
    this.term?.resources.resume();
    this.deps.dispatcher.resume();
    this.deps.sweeper.resumed();
  }

  revoked(token: FencingToken, reason: string): void {
    this.deps.log.warn({ token: token.toString(), reason }, 'leadership revoked');
    this.deps.onChange('revoked', token, reason);
    this.deps.warmUp?.revoked();
    this.deps.sweeper.revoked();
    const { term } = this;
    this.term = undefined;
    // The dispatcher forgets the term synchronously; what remains is waiting for its parts to stop.
    const ended = this.deps.dispatcher.endTerm();
    this.ending = Promise.all([this.ending, ended, term?.resources.close()]).then(() => undefined);
    this.background.run('end a term', () => this.ending);
  }

  /** Resolves when nothing of any term is left. */
  async stopped(): Promise<void> {
    await this.background.drain();
  }

  /** What workers say to this master. */
  handler(): JobManagerHandler {
    const { dispatcher } = this.deps;
    return {
      registerTaskManager: async (registration, token) =>
        this.present(token).resources.registerTaskManager(registration, token),
      disconnectTaskManager: async (goodbye, token) =>
        this.present(token).resources.disconnectTaskManager(goodbye, token),
      updateTaskState: (report, token) => dispatcher.updateTaskState(report, token),
      acknowledgeCheckpoint: (ack, token) => dispatcher.acknowledgeCheckpoint(ack, token),
      declineCheckpoint: (decline, token) => dispatcher.declineCheckpoint(decline, token),
    };
  }

  private present(token: FencingToken): Term {
    if (this.term === undefined || this.term.leadership.token !== token) {
      throw new NotLeaderError(`This master does not lead under token ${token}.`);
    }
    return this.term;
  }
}
