import type { GatewayConnection } from '../contracts/gateway.ts';
import type { jobManagerGatewaySpec, WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { LeaderInfo, LeaderRetrieval } from '../contracts/leadership.ts';
import { type Clock, every, sleep, type Timer } from '../kernel/clock.ts';
import { asError, FencedError, isMillraceError } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, backoffMs } from '../kernel/retry.ts';
import { type ContactEvent, type LeaderContact, noContact, stepLeaderContact } from './leader-contact.ts';

export type JobManagerConnection = GatewayConnection<typeof jobManagerGatewaySpec>;

export interface LeaderLinkDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly leaderRetrieval: LeaderRetrieval;
  readonly connectJobManager: (leader: LeaderInfo) => JobManagerConnection;
}

export interface LeaderLinkEvents {
  /** Taken afresh for every try, so that it is never older than the call. */
  registration(): WorkerRegistration;
  /** The leader knows this worker: what waits may be sent to it. */
  registered(connection: JobManagerConnection, token: FencingToken): void;
  /** Send nothing for now. `replaced`: by another leader, or this link is closing. */
  disconnected(replaced: boolean): void;
  /** The leader that the store names cannot be reached: end the tasks. */
  cutOff(silentMs: number): void;
}

interface Session {
  readonly token: FencingToken;
  readonly connection: JobManagerConnection;
  readonly stopped: AbortController;
  registering: boolean;
}

const GOODBYE_MS = 2_000;
/** The store may tell a worker of a new leader some milliseconds before it tells the leader itself. */
const REGISTRATION_BACKOFF: Backoff = { initialMs: 4, maxMs: 1_000, multiplier: 2 };

/** Follows the leader: connects, registers, notices silence. Decisions are in {@link stepLeaderContact}. */
export class LeaderLink {
  private contact: LeaderContact;
  private session: Session | undefined;
  private timeoutMs: number;
  private readonly background: BackgroundTasks;
  private readonly ticking: Timer;
  private unsubscribe: (() => void) | undefined;
  private closed = false;

  constructor(
    private readonly deps: LeaderLinkDeps,
    private readonly events: LeaderLinkEvents,
    /** Used until a leader says what it uses itself. */
    heartbeatTimeoutMs: number,
  ) {
    this.timeoutMs = heartbeatTimeoutMs;
    this.contact = noContact(deps.clock.nowMs());
    this.background = new BackgroundTasks(deps.log);
    const tickMs = Math.max(10, heartbeatTimeoutMs / 20);
    this.ticking = every(deps.clock, tickMs, () => this.tick(tickMs));
  }

  /** Begins to follow. Listeners are called from here on. */
  start(): void {
    this.unsubscribe = this.deps.leaderRetrieval.subscribe((leader) => {
      if (this.closed) return;
      const action = this.step({ kind: 'leader', token: leader?.token });
      if (action === 'follow' && leader !== undefined) this.follow(leader);
    });
  }

  /** The leader with which this worker is registered. */
  get registeredWith(): FencingToken | undefined {
    return this.contact.registered ? this.session?.token : undefined;
  }

  /** Throws `FENCED` when the call is of an older leader than one already seen (W1). */
  admit(token: FencingToken): void {
    const before = this.contact.highestToken;
    switch (this.step({ kind: 'called', token })) {
      case 'refuse':
        throw new FencedError(`token ${token} no longer leads: this worker has seen ${before}`, {
          hint: 'Stop commanding workers; another replica leads.',
        });
      case 'let-go':
        this.deps.log.info({ from: before, to: token }, 'called by a newer leader');
        this.endSession();
        return;
      default:
        return;
    }
  }

  /** The leader answered a call of the present session. */
  answered(): void {
    if (this.session !== undefined) this.step({ kind: 'answered', token: this.session.token });
  }

  /** Says goodbye to the leader, if it can be reached, and ends. */
  async close(reason: string): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.unsubscribe?.();
    this.ticking.cancel();
    const { session } = this;
    const registered = this.contact.registered;
    session?.stopped.abort();
    if (session !== undefined && registered) await this.sayGoodbye(session, reason);
    this.endSession();
    await this.background.drain();
  }

  private step(event: ContactEvent): ReturnType<typeof stepLeaderContact>['action'] {
    const { contact, action } = stepLeaderContact(this.contact, event, this.deps.clock.nowMs());
    this.contact = contact;
    return action;
  }

  private tick(tickMs: number): void {
    const storeConnected = this.deps.leaderRetrieval.connected?.() ?? true;
    const { silentSinceMs } = this.contact;
    const action = this.step({ kind: 'tick', storeConnected, timeoutMs: this.timeoutMs, tickMs });
    if (action !== 'register-again' && action !== 'end-tasks') return;
    const silentMs = Math.round(this.deps.clock.nowMs() - silentSinceMs);
    this.deps.log.warn({ silentMs, timeoutMs: this.timeoutMs, action }, 'leader is silent');
    this.events.disconnected(false);
    if (action === 'end-tasks') this.events.cutOff(silentMs);
    if (this.session !== undefined) this.register(this.session);
  }

  private follow(leader: LeaderInfo): void {
    this.endSession();
    const { token, replicaId, rpcAddress } = leader;
    this.deps.log.info({ token, replicaId, rpcAddress }, 'following a leader');
    let connection: JobManagerConnection;
    try {
      connection = this.deps.connectJobManager(leader);
    } catch (error) {
      // An address that is none: only a leader with another one can help.
      this.deps.log.error({ err: asError(error), rpcAddress }, 'the leader published an unusable address');
      return;
    }
    this.session = { token, connection, stopped: new AbortController(), registering: false };
    this.register(this.session);
  }

  private endSession(): void {
    const { session } = this;
    if (session === undefined) return;
    this.session = undefined;
    session.stopped.abort();
    this.events.disconnected(true);
    this.background.run('close connection to former leader', () => session.connection.close());
  }

  private register(session: Session): void {
    if (session.registering) return;
    session.registering = true;
    this.background.run('register with the leader', async () => {
      try {
        await this.registerUntilTaken(session);
      } finally {
        session.registering = false;
      }
    });
  }

  private async registerUntilTaken(session: Session): Promise<void> {
    const { clock, random, log } = this.deps;
    const { token, connection, stopped } = session;
    for (let attempt = 0; !stopped.signal.aborted; attempt++) {
      try {
        const { heartbeatTimeoutMs } = await connection.registerTaskManager(this.events.registration());
        if (stopped.signal.aborted) return;
        this.timeoutMs = heartbeatTimeoutMs;
        this.step({ kind: 'registered', token });
        log.info({ token, tries: attempt + 1 }, 'registered with the leader');
        this.events.registered(connection, token);
        return;
      } catch (error) {
        if (stopped.signal.aborted) return;
        if (wasAnswered(error)) this.step({ kind: 'answered', token });
        if (attempt % 20 === 0) log.warn({ token, attempt, err: asError(error) }, 'registration not taken yet');
        await sleep(clock, backoffMs(REGISTRATION_BACKOFF, Math.min(attempt, 10), random), stopped.signal);
      }
    }
  }

  private async sayGoodbye(session: Session, reason: string): Promise<void> {
    const { taskManagerId } = this.events.registration();
    const said = session.connection.disconnectTaskManager({ taskManagerId, reason }).then(
      () => true,
      (error: unknown) => {
        this.deps.log.warn({ err: asError(error) }, 'could not say goodbye to the leader');
        return false;
      },
    );
    await Promise.race([said, sleep(this.deps.clock, GOODBYE_MS)]);
  }
}

/** Whether the error is the leader's own answer, and not the network's. */
function wasAnswered(error: unknown): boolean {
  return isMillraceError(error) && !['UNAVAILABLE', 'UNKNOWN_OUTCOME', 'TIMEOUT', 'CLOSED'].includes(error.code);
}
