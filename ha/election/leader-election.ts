import type { LeaderContender, Leadership } from '../../src/contracts/leadership.ts';
import { InvariantError } from '../../src/kernel/assert.ts';
import { type Clock, sleep, type Timer } from '../../src/kernel/clock.ts';
import { asError, NotLeaderError } from '../../src/kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../../src/kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination, Entry } from '../coordination/coordination.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import { type Chance, campaign } from './campaign.ts';
import { ContenderCalls } from './contender-calls.ts';
import { type ElectionOptions, type ElectionTimes, electionTimes } from './election-options.ts';
import { Doorbell } from './doorbell.ts';
import { freeKeyFor, meansAnother, NAMED_FIRST_MS } from './hand-over.ts';
import { decodeLeader } from './leader-record.ts';
import { type FastTakeoverOptions, LeaderSuspicion } from './leader-suspicion.ts';
import { type LeadershipEvent, type LeadershipState, announcement, stepLeadership } from './leadership.ts';
import { type LeaseKeeper, LoopLeaseKeeper, RETRY_JITTER_MAX } from './lease-keeper.ts';
import { type HeldLease, OwnLease } from './own-lease.ts';
import { revokeLease } from './revoke-lease.ts';
import { WatchedKeys } from './watched-keys.ts';

export interface ElectionDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Keeps this replica's lease. Default: on this event loop; then whatever blocks the loop costs the lease. */
  readonly keeper?: LeaseKeeper;
  /** Given: a standby keeps a lease ready, watches the leader's process, and takes over when that is gone. */
  readonly fastTakeover?: FastTakeoverOptions;
}

/** Confirmations that wait for an answer at once: one hung call must not hold up the next. */
const CONFIRMATIONS_IN_FLIGHT_MAX = 3;

/** One term from this replica's side, until it is lost. */
interface Term {
  readonly token: FencingToken;
  readonly lease: HeldLease;
  readonly leadership: Leadership;
  /** Resolves `lost` (once; later calls do nothing). */
  readonly end: (end: TermEnd) => void;
  readonly lost: Promise<TermEnd>;
  confirmations: number;
  over: boolean;
}

interface TermEnd {
  readonly reason: string;
  readonly cause: 'lost' | 'abdicated' | 'closing' | HandOver;
}

interface HandOver {
  readonly to: string | undefined;
  readonly done: () => void;
}

/**
 * One replica's part in the election: campaigns, keeps the lease, and tells the contender.
 *
 * {@link stepLeadership} decides; this shell brings it what happens and does the I/O. It never stops
 * campaigning before it is closed, whatever fails.
 */
export class LeaderElection implements Closeable {
  private state: LeadershipState = { kind: 'waiting', lastToken: asFencingToken(0n) };
  private readonly times: ElectionTimes;
  private readonly tasks: BackgroundTasks;
  private readonly calls: ContenderCalls;
  private readonly watched: WatchedKeys;
  private readonly keeper: LeaseKeeper;
  private readonly lease: OwnLease;
  private readonly suspicion: LeaderSuspicion | undefined;
  private readonly stopping = new AbortController();
  private readonly log: Logger;
  private term: Term | undefined;
  private deadline: Timer | undefined;
  private readonly bell: Doorbell;
  /** The token whose leader is gone, once suspicion is sure of it. */
  private stealFrom: FencingToken | undefined;
  private unreadable: bigint | undefined;
  /** This replica campaigns, leads, or stands back: no moment to have another lease granted. */
  private busy = false;

  private constructor(
    private readonly deps: ElectionDeps,
    private readonly options: ElectionOptions,
    contender: LeaderContender,
  ) {
    this.times = electionTimes(options);
    this.log = deps.log.child({ component: 'election', replicaId: options.address.replicaId });
    this.tasks = new BackgroundTasks(this.log);
    this.bell = new Doorbell(deps.clock, this.stopping.signal);
    this.calls = new ContenderCalls(contender, this.log);
    const own = { ...deps, log: this.log };
    this.keeper = deps.keeper ?? new LoopLeaseKeeper(own, this.times);
    this.lease = new OwnLease(own, this.times, this.keeper);
    if (deps.fastTakeover !== undefined)
      this.suspicion = new LeaderSuspicion(own, deps.fastTakeover, (token) => {
        this.stealFrom = token;
        this.bell.ring();
      });
    this.watched = WatchedKeys.start(
      own,
      { prefix: deps.keys.leader, retryMs: this.times.retryMs, resyncMs: this.times.leaseTtlMs },
      () => this.keyChanged(),
    );
  }

  /** Returns at once and campaigns in the background. @throws `CONFIGURATION`. */
  static start(deps: ElectionDeps, options: ElectionOptions, contender: LeaderContender): LeaderElection {
    const election = new LeaderElection(deps, options, contender);
    election.tasks.run('campaign', () => election.run());
    if (deps.fastTakeover !== undefined) election.tasks.run('keep a lease ready', () => election.keepReady());
    return election;
  }

  /** The state as of now, for display. */
  get phase(): LeadershipState['kind'] {
    this.tick();
    return this.state.kind;
  }

  /**
   * Gives leadership up so that another replica takes it at once: `to`, if given. Resolves when the key is
   * free. @throws `NOT_LEADER` unless this replica leads under `token`.
   */
  async handOver(token: FencingToken, to: string | undefined): Promise<void> {
    const { term } = this;
    if (term === undefined || term.over || term.token !== token)
      throw new NotLeaderError(`This master does not lead under token ${token}.`);
    await new Promise<void>((resolve) => {
      const reason = to === undefined ? 'handing over' : `handing over to ${to}`;
      this.lose(term, { reason, cause: { to, done: resolve } });
    });
  }

  /**
   * Hands over: `revoked`, the contender's last writes, then the lease goes and a standby may win at once.
   */
  async close(): Promise<void> {
    this.stopping.abort();
    if (this.term !== undefined) this.lose(this.term, { reason: 'closing', cause: 'closing' });
    this.bell.ring();
    await this.suspicion?.close();
    await this.tasks.drain();
    await this.lease.drop();
    // One that was given in is its owner's to close.
    if (this.deps.keeper === undefined) await this.keeper.close();
    await this.watched.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    for (let failing = false; !signal.aborted; ) {
      try {
        await this.campaignOnce();
        failing = false;
      } catch (error) {
        if (error instanceof InvariantError) return crash(error);
        if (!failing) this.log.warn({ err: asError(error) }, 'campaign failed, trying again');
        failing = true;
      }
      // Never in a tight circle, whatever happened; but news of the key ends the wait.
      await this.bell.wait(this.jittered(this.times.retryMs));
    }
  }

  private async campaignOnce(): Promise<void> {
    const chance = await this.untilChance();
    if (chance === undefined) return;
    this.busy = true;
    try {
      await this.take(chance);
    } finally {
      this.busy = false;
    }
  }

  private async take(chance: Chance): Promise<void> {
    const won = await this.campaign(chance);
    if (won === undefined) return;
    let end: TermEnd | undefined;
    try {
      end = await this.lead(won.token, won.lease);
      if (typeof end.cause === 'object') await this.giveTo(won.token, won.lease, end.cause);
    } finally {
      await this.lease.drop();
      if (typeof end?.cause === 'object') end.cause.done();
    }
    if (end.cause !== 'lost') await sleep(this.deps.clock, this.times.abdicationDelayMs, this.stopping.signal);
  }

  private async campaign(chance: Chance): Promise<{ token: FencingToken; lease: HeldLease } | undefined> {
    const { signal } = this.stopping;
    try {
      const lease = await this.lease.get();
      const deadlineMs = lease.aliveUntilMs() - this.times.leaseMarginMs;
      const until = { id: lease.id, deadlineMs };
      const own = { ...this.deps, log: this.log };
      const token = await campaign(own, this.times, this.options.address, chance, until, signal);
      if (token !== undefined) return { token, lease };
      if (this.suspicion === undefined) await this.lease.drop();
      return undefined;
    } catch (error) {
      // It is unknown whether the key was written: without its lease it does not stay.
      await this.lease.drop();
      if (chance.kind === 'steal') this.suspicion?.failed(chance.from);
      throw error;
    }
  }

  /** Waits for a moment in which nobody seems to lead. Undefined when closing. */
  private async untilChance(): Promise<Chance | undefined> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const entry = this.watched.entries.get(this.deps.keys.leader);
      const { stealFrom } = this;
      this.stealFrom = undefined;
      if (stealFrom !== undefined && entry?.modRevision === stealFrom) return { kind: 'steal', from: stealFrom };
      if (this.watched.ready && entry === undefined) {
        const next = this.watched.entries.get(this.deps.keys.nextLeader);
        if (!meansAnother(next, this.options.address.replicaId, this.log)) return { kind: 'free' };
        await this.bell.wait(NAMED_FIRST_MS);
        if (this.watched.entries.has(this.deps.keys.leader)) continue;
        // The one that was named does not come: anybody is better than nobody.
        return signal.aborted ? undefined : { kind: 'free' };
      }
      // Our own, from a campaign that was given up or a term that ended: nobody renews it, it only delays.
      if (entry?.lease !== undefined && this.isOurs(entry)) {
        await revokeLease({ ...this.deps, log: this.log }, entry.lease, this.times.retryMs);
        await sleep(this.deps.clock, this.times.retryMs, signal);
      } else {
        // Also without news: a replica that waits for ever for a watch that died would never lead.
        await this.bell.wait(this.times.leaseTtlMs);
      }
    }
    return undefined;
  }

  private async lead(token: FencingToken, lease: HeldLease): Promise<TermEnd> {
    const { clock } = this.deps;
    const nowMs = clock.nowMs();
    const deadlineMs = lease.aliveUntilMs() - this.times.leaseMarginMs;
    // The answer came so late that the lease may have expired: never announced, so nobody is misled.
    if (nowMs >= deadlineMs || lease.lost) return { reason: 'won too late', cause: 'lost' };
    if (this.stopping.signal.aborted) return { reason: 'closing', cause: 'closing' };
    const term = this.newTerm(token, lease);
    this.term = term;
    try {
      this.step({ kind: 'elected', token, deadlineMs, nowMs }, 'elected');
      lease.listen({
        renewed: (aliveUntilMs) => {
          this.renewed(term, aliveUntilMs);
          this.confirmSoon(term);
        },
        gone: () => this.lose(term, { reason: 'its lease has expired', cause: 'lost' }),
      });
      lease.renewSoon();
      const end = await term.lost;
      // Renewals go on meanwhile: the store still takes writes under this token.
      if (end.cause === 'closing' || typeof end.cause === 'object') await this.lastWrites();
      return end;
    } finally {
      this.term = undefined;
    }
  }

  private newTerm(token: FencingToken, lease: HeldLease): Term {
    let end: (end: TermEnd) => void = () => {};
    const lost = new Promise<TermEnd>((resolve) => {
      end = resolve;
    });
    const leadership: Leadership = {
      token,
      isValid: () => {
        if (this.state.kind !== 'leading' || this.state.token !== token) return false;
        // What the keeper knows by now counts, though this event loop may not have heard of it yet.
        const deadlineMs = Math.max(this.state.deadlineMs, lease.aliveUntilMs() - this.times.leaseMarginMs);
        return this.deps.clock.nowMs() < deadlineMs;
      },
      abdicate: (reason) => {
        if (this.term?.token === token) this.lose(this.term, { reason, cause: 'abdicated' });
      },
    };
    return { token, lease, leadership, end, lost, confirmations: 0, over: false };
  }

  private renewed(term: Term, aliveUntilMs: number): void {
    const deadlineMs = aliveUntilMs - this.times.leaseMarginMs; // L2: from when it was sent
    this.step({ kind: 'renewed', token: term.token, deadlineMs, nowMs: this.deps.clock.nowMs() }, 'lease renewed');
  }

  private confirmSoon(term: Term): void {
    if (term.confirmations >= CONFIRMATIONS_IN_FLIGHT_MAX || this.term !== term || term.over) return;
    term.confirmations++;
    this.tasks.run('confirmation', () =>
      this.confirm(term).finally(() => {
        term.confirmations--;
      }),
    );
  }

  /** A living lease does not say whose the key is: the transaction does. */
  private async confirm(term: Term): Promise<void> {
    const { coordination, clock, keys } = this.deps;
    const { token, lease } = term;
    try {
      const seen = await coordination.txn({
        guards: [{ key: keys.leader, modRevision: token }],
        then: [{ kind: 'get', key: keys.leader }],
        otherwise: [{ kind: 'get', key: keys.leader }],
      });
      if (!seen.succeeded) return this.lose(term, { reason: whoLeads(seen.reads[0]), cause: 'lost' });
      const deadlineMs = lease.aliveUntilMs() - this.times.leaseMarginMs;
      this.step({ kind: 'confirmed', token, deadlineMs, nowMs: clock.nowMs() }, 'lease renewed');
    } catch (error) {
      this.log.debug({ err: asError(error), token: String(token) }, 'confirmation not answered');
      // No answer says nothing. The deadline decides; until then, and after it, ask again soon.
      if (term.confirmations === 1) clock.schedule(this.jittered(this.times.retryMs), () => this.confirmSoon(term));
    }
  }

  private lose(term: Term, end: TermEnd): void {
    if (term.over) return;
    term.over = true;
    this.step({ kind: 'lost', token: term.token }, end.reason);
    term.end(end);
  }

  private step(event: LeadershipEvent, reason: string): void {
    const before = this.state;
    const after = stepLeadership(before, event);
    this.state = after;
    this.armDeadline();
    const what = announcement(before, after);
    if (what === undefined) return;
    const token = after.kind === 'waiting' ? after.lastToken : after.token;
    this.log.info({ from: before.kind, to: after.kind, token: String(token), reason }, 'leadership changed');
    if (what !== 'granted') this.calls.announce({ kind: what, token, reason });
    else if (this.term !== undefined) this.calls.announce({ kind: what, leadership: this.term.leadership });
  }

  private tick(): void {
    const { term } = this;
    // The keeper may know of a renewal that this event loop, busy until now, has not heard of.
    if (term !== undefined) {
      const deadlineMs = term.lease.aliveUntilMs() - this.times.leaseMarginMs;
      if (this.state.kind === 'leading' && deadlineMs > this.state.deadlineMs)
        this.renewed(term, term.lease.aliveUntilMs());
    }
    this.step({ kind: 'tick', nowMs: this.deps.clock.nowMs() }, 'no keepalive was answered in time');
  }

  private armDeadline(): void {
    this.deadline?.cancel();
    this.deadline = undefined;
    if (this.state.kind !== 'leading') return;
    const { clock } = this.deps;
    this.deadline = clock.schedule(Math.max(0, this.state.deadlineMs - clock.nowMs()), () => this.tick());
  }

  private keyChanged(): void {
    const { term, watched } = this;
    const entry = watched.entries.get(this.deps.keys.leader);
    this.suspect(entry);
    this.bell.ring();
    if (term === undefined || watched.revision < term.token) return;
    // A watch is a hint; the transaction that follows decides.
    if (entry?.modRevision !== term.token) this.confirmSoon(term);
  }

  private suspect(entry: Entry | undefined): void {
    const { suspicion } = this;
    if (suspicion === undefined) return;
    const record = entry === undefined ? undefined : this.read(entry);
    const stolen = record?.stolenFrom !== undefined;
    if (record === undefined || record.incarnation === this.options.address.incarnation) {
      suspicion.leaderChanged(undefined, stolen);
      return;
    }
    const { stolenFrom: _stolenFrom, campaign: _campaign, ...leader } = record;
    suspicion.leaderChanged(leader, stolen);
  }

  /** Takes part as a standby does: with a lease that is granted already. */
  private async keepReady(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      try {
        if (!this.busy) await this.lease.get();
      } catch (error) {
        this.log.debug({ err: asError(error) }, 'no lease is ready');
      }
      await sleep(this.deps.clock, this.jittered(this.times.retryMs), signal);
    }
  }

  /**
   * The key goes at once; the word whom it is meant for stays as long as our lease, which is dropped when
   * somebody leads, or after the others have waited for long enough.
   */
  private async giveTo(token: FencingToken, lease: HeldLease, { to, done }: HandOver): Promise<void> {
    if (to === undefined) return;
    const { keys, clock } = this.deps;
    if (!(await freeKeyFor({ ...this.deps, log: this.log }, to, { token, lease: lease.id }))) return;
    done();
    const endMs = clock.nowMs() + NAMED_FIRST_MS;
    while (!this.stopping.signal.aborted && clock.nowMs() < endMs) {
      const entry = this.watched.entries.get(keys.leader);
      if (entry !== undefined && entry.modRevision > token) return;
      await this.bell.wait(endMs - clock.nowMs());
    }
  }

  private async lastWrites(): Promise<void> {
    const { lastWrites } = this.options;
    if (lastWrites === undefined) return;
    const patience = new AbortController();
    const written = lastWrites().then(
      () => undefined,
      (error: unknown) => this.log.error({ err: asError(error) }, 'last writes failed'),
    );
    const tooLate = sleep(this.deps.clock, this.times.lastWritesMaxMs, patience.signal).then(() => 'late' as const);
    if ((await Promise.race([written, tooLate])) === 'late')
      this.log.warn({ waitedMs: this.times.lastWritesMaxMs }, 'handing over before the last writes ended');
    patience.abort();
  }

  private isOurs(entry: Entry): boolean {
    return this.read(entry)?.incarnation === this.options.address.incarnation;
  }

  /** Undefined: of a newer version, or damaged. Then it is another's, and nobody knows whose. */
  private read(entry: Entry): ReturnType<typeof decodeLeader> | undefined {
    try {
      return decodeLeader(entry);
    } catch (error) {
      if (this.unreadable !== entry.modRevision)
        this.log.warn({ err: asError(error) }, 'leader record unreadable: its process is not watched');
      this.unreadable = entry.modRevision;
      return undefined;
    }
  }

  private jittered(ms: number): number {
    return ms * (1 + (RETRY_JITTER_MAX - 1) * this.deps.random.next());
  }
}

/**
 * Out of every handler's reach. Tokens that went backwards mean that the store was restored from a
 * backup: a new process, which knows no older token, is the way on.
 */
function crash(error: InvariantError): void {
  setImmediate(() => {
    throw error;
  });
}

function whoLeads(entry: Entry | undefined): string {
  return entry === undefined ? 'the leader key is gone' : `token ${entry.modRevision} leads now`;
}
