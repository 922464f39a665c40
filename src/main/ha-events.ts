import type { LeaderInfo, LeaderRetrieval } from '../contracts/leadership.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Logger } from '../kernel/log.ts';
import type { HaEvent } from '../rest/ports.ts';

const REMEMBERED = 50;

/** The election as one replica has seen it: a short memory for the dashboard, and lines in the log. */
export class HaEvents {
  private readonly events: HaEvent[] = [];
  private last: LeaderInfo | undefined;

  constructor(
    private readonly deps: { readonly clock: Clock; readonly log: Logger; readonly retrieval: LeaderRetrieval },
  ) {
    deps.retrieval.subscribe((leader) => this.leaderChanged(leader));
  }

  list(): readonly HaEvent[] {
    return this.events;
  }

  add(kind: HaEvent['kind'], replicaId: string | undefined, token: string | undefined, detail: string): void {
    this.events.push({ timestampMs: this.deps.clock.wallMs(), kind, replicaId, token, detail });
    if (this.events.length > REMEMBERED) this.events.shift();
  }

  private leaderChanged(leader: LeaderInfo | undefined): void {
    const { last } = this;
    this.last = leader;
    if (leader === undefined && last !== undefined) {
      this.deps.log.info({ replicaId: last.replicaId, token: last.token.toString() }, 'leader lost');
      this.add('leader-lost', last.replicaId, last.token.toString(), 'its lease has ended');
    } else if (leader !== undefined && leader.token !== last?.token) {
      this.deps.log.info({ replicaId: leader.replicaId, token: leader.token.toString() }, 'leader elected');
      this.add('leader-elected', leader.replicaId, leader.token.toString(), `at ${leader.restUrl}`);
    }
  }
}
