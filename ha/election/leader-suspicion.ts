import type { LeaderInfo, LeaderProbe } from '../../src/contracts/leadership.ts';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import {
  NO_SUSPICION,
  stepSuspicion,
  type SuspicionAction,
  type SuspicionEvent,
  type SuspicionLimits,
  type SuspicionState,
} from './suspicion.ts';

export interface FastTakeoverOptions {
  readonly probe: LeaderProbe;
  /**
   * This replica's place among those that stand by, 0 first: it waits so many steps before it steals, so
   * that usually one tries. A wrong or shared place costs a refused transaction.
   */
  readonly rank: () => number;
  /** More steals than this a minute switch the fast path off for a minute (default 10). */
  readonly stealsPerMinuteMax?: number;
  /** Told when suspicion is switched off, and on again: people should look. */
  readonly alert?: (kind: 'fast-takeover-off' | 'fast-takeover-on', detail: string) => void;
}

export interface LeaderSuspicionDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

const MINUTE_MS = 60_000;
/** A steal takes some 2 ms until the others hear of it; the next in rank waits a little longer. */
const RANK_STEP_MS = 8;
const JITTER_MS = 2;

/** Watches the leader's process for one standby. {@link stepSuspicion} decides; here is its I/O. */
export class LeaderSuspicion implements Closeable {
  private state: SuspicionState = NO_SUSPICION;
  private leader: LeaderInfo | undefined;
  private held: { readonly attempt: number; close(): void } | undefined;
  private readonly timers = new Set<Timer>();
  private readonly tasks: BackgroundTasks;
  private readonly limits: SuspicionLimits;
  private closed = false;

  constructor(
    private readonly deps: LeaderSuspicionDeps,
    private readonly options: FastTakeoverOptions,
    /** The leader of this token is gone, and this replica's turn has come. */
    private readonly convinced: (token: FencingToken) => void,
  ) {
    this.tasks = new BackgroundTasks(deps.log);
    this.limits = { stealsMax: options.stealsPerMinuteMax ?? 10, windowMs: MINUTE_MS, offMs: MINUTE_MS };
  }

  /** `undefined`: nobody leads, or this replica does, or the record cannot be read. */
  leaderChanged(leader: LeaderInfo | undefined, stolen: boolean): void {
    this.leader = leader;
    this.step({ kind: 'leader', token: leader?.token, stolen });
  }

  /** The steal of that token did not take. */
  failed(token: FencingToken): void {
    this.step({ kind: 'failed', token });
  }

  async close(): Promise<void> {
    this.closed = true;
    this.letGo();
    for (const timer of this.timers) timer.cancel();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private step(event: SuspicionEvent): void {
    if (this.closed) return;
    const before = this.state.phase.kind;
    const { state, actions } = stepSuspicion(this.state, event, this.deps.clock.nowMs(), this.limits);
    this.state = state;
    if (before !== state.phase.kind)
      this.deps.log.debug({ from: before, to: state.phase.kind, event: event.kind }, 'suspicion changed');
    for (const action of actions) this.act(action);
  }

  private act(action: SuspicionAction): void {
    const { log } = this.deps;
    switch (action.kind) {
      case 'connect':
        if (action.afterMs === 0) this.connect(action.attempt);
        else this.after(action.afterMs, () => this.connect(action.attempt));
        return;
      case 'let-go':
        this.letGo();
        return;
      case 'steal':
        this.after(RANK_STEP_MS * this.options.rank() + JITTER_MS * this.deps.random.next(), () => {
          const { phase } = this.state;
          if (phase.kind !== 'convinced' || phase.token !== action.token) return;
          log.info({ token: String(action.token) }, 'the leader is gone, stealing its key');
          this.convinced(action.token);
        });
        return;
      case 'switched-off': {
        const detail = `${action.steals} takeovers by suspicion within a minute: only leases decide for a minute`;
        log.error({ steals: action.steals }, 'fast takeover switched off for a while');
        this.options.alert?.('fast-takeover-off', detail);
        this.after(this.limits.offMs, () => this.step({ kind: 'tick' }));
        return;
      }
      case 'switched-on':
        log.info({}, 'fast takeover switched on again');
        this.options.alert?.('fast-takeover-on', 'suspicion counts again');
        return;
    }
  }

  private connect(attempt: number): void {
    const { leader } = this;
    const { phase } = this.state;
    if (leader === undefined || phase.kind === 'idle' || phase.attempt !== attempt) return;
    this.tasks.run('probe the leader', async () => {
      const answer = await this.options.probe.connect(leader, () => this.lost(attempt));
      const { phase: now } = this.state;
      if (this.closed || now.kind === 'idle' || now.attempt !== attempt) {
        if (answer.kind === 'same') answer.close();
        return;
      }
      if (answer.kind === 'same') {
        this.held?.close();
        this.held = { attempt, close: answer.close };
      } else if (answer.kind === 'unclear') this.deps.log.debug({ reason: answer.reason }, 'leader not reached');
      this.step({ kind: 'answered', attempt, answer: answer.kind });
    });
  }

  private lost(attempt: number): void {
    if (this.held?.attempt === attempt) this.held = undefined;
    this.step({ kind: 'lost', attempt });
  }

  private letGo(): void {
    this.held?.close();
    this.held = undefined;
  }

  private after(delayMs: number, fn: () => void): void {
    const timer = this.deps.clock.schedule(delayMs, () => {
      this.timers.delete(timer);
      fn();
    });
    this.timers.add(timer);
  }
}
