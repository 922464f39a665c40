import type { LeaderContender, Leadership } from '../../src/contracts/leadership.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { ClusterKeys } from '../stores/cluster-keys.ts';
import type { ElectionOptions } from './election-options.ts';
import type { FastTakeoverOptions } from './leader-suspicion.ts';
import type { LeaseKeeper } from './lease-keeper.ts';
import { LeaderElection } from './leader-election.ts';

/** A contender that writes down what it is told. */
export class RecordingContender implements LeaderContender {
  readonly calls: string[] = [];
  readonly tokens: FencingToken[] = [];
  leadership: Leadership | undefined;
  onGranted: ((leadership: Leadership) => void) | undefined;

  granted(leadership: Leadership): void {
    this.calls.push('granted');
    this.tokens.push(leadership.token);
    this.leadership = leadership;
    this.onGranted?.(leadership);
  }

  suspended(): void {
    this.calls.push('suspended');
  }

  resumed(): void {
    this.calls.push('resumed');
  }

  revoked(): void {
    this.calls.push('revoked');
  }

  /** As the contender believes: granted or resumed last. */
  get leads(): boolean {
    const last = this.calls.at(-1);
    return last === 'granted' || last === 'resumed';
  }
}

export const testKeys = new ClusterKeys('test');

export function startReplica<C extends Coordination>(
  deps: {
    readonly coordination: C;
    readonly clock: Clock;
    readonly keys?: ClusterKeys;
    readonly fastTakeover?: FastTakeoverOptions;
    readonly keeper?: LeaseKeeper;
  },
  name: string,
  options: Partial<ElectionOptions> = {},
) {
  const contender = new RecordingContender();
  const seed = [...name].reduce((sum, character) => sum * 31 + character.charCodeAt(0), 7);
  const election = LeaderElection.start(
    {
      coordination: deps.coordination,
      keys: deps.keys ?? testKeys,
      clock: deps.clock,
      random: new SeededRandom(seed),
      log: silentLogger,
      ...(deps.fastTakeover === undefined ? {} : { fastTakeover: deps.fastTakeover }),
      ...(deps.keeper === undefined ? {} : { keeper: deps.keeper }),
    },
    { address: addressOf(name), leaseTtlMs: 2_000, leaseMarginMs: 500, ...options },
    contender,
  );
  return { name, contender, election, coordination: deps.coordination };
}

export function addressOf(name: string) {
  return {
    replicaId: name,
    incarnation: `${name}-incarnation`,
    rpcAddress: `${name}:6123`,
    restUrl: `http://${name}:8081`,
  };
}
