import type { LeaderContender, Leadership } from '../../src/contracts/leadership.ts';
import { InvariantError } from '../../src/kernel/assert.ts';
import { type Clock, every, sleep, type Timer } from '../../src/kernel/clock.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination, Entry } from '../coordination/coordination.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import { campaign, type WonCampaign } from './campaign.ts';
import { ContenderCalls } from './contender-calls.ts';
import { type ElectionOptions, type ElectionTimes, electionTimes, RETRY_JITTER_MAX } from './election-options.ts';
import { decodeLeader } from './leader-record.ts';
import { type LeadershipEvent, type LeadershipState, announcement, stepLeadership } from './leadership.ts';
import { revokeLease } from './revoke-lease.ts';
import { WatchedKeys } from './watched-keys.ts';

export interface ElectionDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Renewals that wait for an answer at once: one hung call must not hold up the next. */
const RENEWALS_IN_FLIGHT_MAX = 3;

/** One term from this replica's side, until it is lost. */
interface Term {
  readonly won: WonCampaign;
  readonly leadership: Leadership;
  /** Resolves `lost` (once; later calls do nothing). */
  readonly end: (end: TermEnd) => void;
  readonly lost: Promise<TermEnd>;
  renewals: number;
  over: boolean;
}

interface TermEnd {
  readonly reason: string;
  readonly cause: 'lost' | 'abdicated' | 'closing';
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
  private readonly stopping = new AbortController();
  private readonly log: Logger;
  private term: Term | undefined;
  private deadline: Timer | undefined;
  private news: (() => void) | undefined;

  private constructor(
    private readonly deps: ElectionDeps,
    private readonly options: ElectionOptions,
    contender: LeaderContender,
  ) {
    this.times = electionTimes(options);
    this.log = deps.log.child({ component: 'election', replicaId: options.address.replicaId });
    this.tasks = new BackgroundTasks(this.log);
    this.calls = new ContenderCalls(contender, this.log);
    this.watched = WatchedKeys.start(
      { ...deps, log: this.log },
      { prefix: deps.keys.leader, retryMs: this.times.retryMs, resyncMs: this.times.leaseTtlMs },
      () => this.keyChanged(),
    );
  }

  /** Returns at once and campaigns in the background. @throws `CONFIGURATION`. */
  static start(deps: ElectionDeps, options: ElectionOptions, contender: LeaderContender): LeaderElection {
    const election = new LeaderElection(deps, options, contender);
    election.tasks.run('campaign', () => election.run());
    return election;
  }

  /** The state as of now, for display. */
  get phase(): LeadershipState['kind'] {
    this.step({ kind: 'tick', nowMs: this.deps.clock.nowMs() }, 'no keepalive was answered in time');
    return this.state.kind;
  }

  /**
   * Hands over: `revoked`, the contender's last writes, then the lease goes and a standby may win at once.
   */
  async close(): Promise<void> {
    this.stopping.abort();
    if (this.term !== undefined) this.lose(this.term, { reason: 'closing', cause: 'closing' });
    this.news?.();
    await this.tasks.drain();
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
      await this.untilNews(this.jittered(this.times.retryMs));
    }
  }

  private async campaignOnce(): Promise<void> {
    if (!(await this.untilFree())) return;
    const { signal } = this.stopping;
    const won = await campaign({ ...this.deps, log: this.log }, this.times, this.options.address, signal);
    if (won === undefined) return;
    let end: TermEnd | undefined;
    try {
      end = await this.lead(won);
    } finally {
      await this.revoke(won.lease);
    }
    if (end.cause === 'abdicated') await sleep(this.deps.clock, this.times.abdicationDelayMs, signal);
  }

  /** Waits for a moment in which nobody seems to lead. False when closing. */
  private async untilFree(): Promise<boolean> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const entry = this.watched.entries.get(this.deps.keys.leader);
      if (this.watched.ready && entry === undefined) return true;
      // Our own, from a campaign that was given up or a term that ended: nobody renews it, it only delays.
      if (entry?.lease !== undefined && this.isOurs(entry)) {
        await this.revoke(entry.lease);
        await sleep(this.deps.clock, this.times.retryMs, signal);
      } else {
        // Also without news: a replica that waits for ever for a watch that died would never lead.
        await this.untilNews(this.times.leaseTtlMs);
      }
    }
    return false;
  }

  private async lead(won: WonCampaign): Promise<TermEnd> {
    const { clock } = this.deps;
    const nowMs = clock.nowMs();
    // The answer came so late that the lease may have expired: never announced, so nobody is misled.
    if (nowMs >= won.deadlineMs) return { reason: 'won too late', cause: 'lost' };
    if (this.stopping.signal.aborted) return { reason: 'closing', cause: 'closing' };
    const term = this.newTerm(won);
    this.term = term;
    const renewing = every(clock, this.times.renewIntervalMs, () => this.renewSoon(term));
    try {
      this.step({ kind: 'elected', token: won.token, deadlineMs: won.deadlineMs, nowMs }, 'elected');
      this.renewSoon(term);
      const end = await term.lost;
      // Renewals go on meanwhile: the store still takes writes under this token.
      if (end.cause === 'closing') await this.lastWrites();
      return end;
    } finally {
      renewing.cancel();
      this.term = undefined;
    }
  }

  private newTerm(won: WonCampaign): Term {
    let end: (end: TermEnd) => void = () => {};
    const lost = new Promise<TermEnd>((resolve) => {
      end = resolve;
    });
    const { token } = won;
    const leadership: Leadership = {
      token,
      isValid: () =>
        this.state.kind === 'leading' && this.state.token === token && this.deps.clock.nowMs() < this.state.deadlineMs,
      abdicate: (reason) => {
        if (this.term?.won.token === token) this.lose(this.term, { reason, cause: 'abdicated' });
      },
    };
    return { won, leadership, end, lost, renewals: 0, over: false };
  }

  private renewSoon(term: Term): void {
    if (term.renewals >= RENEWALS_IN_FLIGHT_MAX || this.term !== term) return;
    term.renewals++;
    this.tasks.run('renewal', () =>
      this.renew(term).finally(() => {
        term.renewals--;
      }),
    );
  }

  private async renew(term: Term): Promise<void> {
    const { coordination, clock, keys } = this.deps;
    const { token, lease } = term.won;
    const sentMs = clock.nowMs();
    try {
      const { ttlMs } = await coordination.keepAlive(lease);
      const deadlineMs = sentMs + ttlMs - this.times.leaseMarginMs; // L2: from when it was sent
      this.step({ kind: 'renewed', token, deadlineMs, nowMs: clock.nowMs() }, 'lease renewed');
      if (term.over) return;
      const seen = await coordination.txn({
        guards: [{ key: keys.leader, modRevision: token }],
        then: [{ kind: 'get', key: keys.leader }],
        otherwise: [{ kind: 'get', key: keys.leader }],
      });
      if (seen.succeeded) this.step({ kind: 'confirmed', token, deadlineMs, nowMs: clock.nowMs() }, 'lease renewed');
      else this.lose(term, { reason: whoLeads(seen.reads[0]), cause: 'lost' });
    } catch (error) {
      if (isMillraceError(error, 'NOT_FOUND'))
        return this.lose(term, { reason: 'its lease has expired', cause: 'lost' });
      this.log.debug({ err: asError(error), token: String(token) }, 'renewal not answered');
      // No answer says nothing. The deadline decides; until then, and after it, ask again soon.
      if (term.renewals === 1) clock.schedule(this.jittered(this.times.retryMs), () => this.renewSoon(term));
    }
  }

  private lose(term: Term, end: TermEnd): void {
    if (term.over) return;
    term.over = true;
    this.step({ kind: 'lost', token: term.won.token }, end.reason);
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

  private armDeadline(): void {
    this.deadline?.cancel();
    this.deadline = undefined;
    if (this.state.kind !== 'leading') return;
    const { clock } = this.deps;
    this.deadline = clock.schedule(Math.max(0, this.state.deadlineMs - clock.nowMs()), () =>
      this.step({ kind: 'tick', nowMs: clock.nowMs() }, 'no keepalive was answered in time'),
    );
  }

  private keyChanged(): void {
    this.news?.();
    const { term, watched } = this;
    if (term === undefined || watched.revision < term.won.token) return;
    // A watch is a hint; the transaction that follows the renewal decides.
    const entry = watched.entries.get(this.deps.keys.leader);
    if (entry?.modRevision !== term.won.token) this.renewSoon(term);
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

  /** Resolves when the leader key changes, when closing, and after `waitMs` at the latest. */
  private untilNews(waitMs: number): Promise<void> {
    const { signal } = this.stopping;
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.deps.clock.schedule(waitMs, done);
      const news = () => done();
      this.news = news;
      signal.addEventListener('abort', news);
      function done(): void {
        timer.cancel();
        signal.removeEventListener('abort', news);
        resolve();
      }
    });
  }

  private isOurs(entry: Entry): boolean {
    try {
      return decodeLeader(entry).incarnation === this.options.address.incarnation;
    } catch {
      return false; // Written by a newer version, or damaged: not ours, in any case.
    }
  }

  private revoke(lease: string): Promise<void> {
    return revokeLease({ ...this.deps, log: this.log }, lease, this.times.retryMs);
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
