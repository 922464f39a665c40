import type { LeaderElection } from '../../ha/election/leader-election.ts';
import type { ReplicaDirectory } from '../../ha/election/replica-directory.ts';
import { MillraceError, NotLeaderError } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { HandOverRequest } from '../rest/ports.ts';
import type { HaEvents } from './ha-events.ts';

export interface HandOverDeskDeps {
  readonly log: Logger;
  readonly replicaId: string;
  readonly directory: Pick<ReplicaDirectory, 'list'>;
  readonly events: Pick<HaEvents, 'add'>;
}

interface Office {
  readonly election: Pick<LeaderElection, 'handOver'>;
  readonly token: () => FencingToken | undefined;
}

/** Takes people's wishes that another master should lead, and refuses those that would do harm. */
export class HandOverDesk {
  private office: Office | undefined;

  constructor(private readonly deps: HandOverDeskDeps) {}

  /** REST is served before the election begins. */
  opens(office: Office): void {
    this.office = office;
  }

  async over({ leader, token, to }: HandOverRequest): Promise<void> {
    const { replicaId, directory, events, log } = this.deps;
    const present = this.office?.token();
    if (this.office === undefined || present === undefined) throw new NotLeaderError('This master does not lead.');
    if (leader !== replicaId || token !== present.toString())
      throw refusal(
        `${leader} does not lead under token ${token}: ${replicaId} does, under ${present}`,
        'Look at GET /ha and name the present leader and its token.',
      );
    const others = directory
      .list()
      .map((one) => one.replicaId)
      .filter((id) => id !== replicaId);
    if (others.length === 0)
      throw refusal('no other master is up', 'Start one first: without it, nobody would lead for a while.');
    if (to !== undefined && !others.includes(to))
      throw refusal(`${to} is not up, or leads already`, `Masters that stand by: ${others.join(', ')}.`);
    log.info({ token, to }, 'handing over on request');
    events.add('hand-over', replicaId, token, to === undefined ? 'to whoever comes first' : `to ${to}`);
    await this.office.election.handOver(present, to);
  }
}

function refusal(message: string, hint: string): MillraceError {
  return new MillraceError('CONFLICT', message, { hint });
}
