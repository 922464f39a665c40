import type { LeaderAddress, LeaderProbe, ProbeAnswer } from '../../src/contracts/leadership.ts';
import { SimNetwork } from './sim-network.ts';
import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

const DEADLINE_MS = 500;

/**
 * How a standby looks at the leader's process, over the simulated network. Until the cluster is healed it may
 * lie: a connection that breaks for no reason, a refusal by a host whose process lives. Suspicion may be wrong;
 * the protocol says that this costs a change of leader and nothing else.
 */
export class SimLeaderProbe implements LeaderProbe {
  constructor(
    private readonly world: SimWorld,
    private readonly process: SimProcess,
  ) {}

  connect(leader: LeaderAddress, lost: () => void): Promise<ProbeAnswer> {
    const { world, process } = this;
    const { network, time, random, config } = world;
    const host = SimNetwork.hostOf(leader.rpcAddress);
    return process.outside((resolve) => {
      let answered = false;
      const answer = (one: ProbeAnswer) => {
        if (answered) return;
        answered = true;
        deadline.cancel();
        resolve(one);
      };
      const deadline = process.clock.schedule(DEADLINE_MS, () => answer({ kind: 'unclear', reason: 'no answer' }));
      const back = (one: () => ProbeAnswer) =>
        time.after(network.latencyMs(host, process.host), () => {
          if (!network.isCut(host, process.host)) process.enter(() => answer(one()));
        });
      time.after(network.latencyMs(process.host, host), () => {
        if (network.isCut(process.host, host)) return;
        const peer = network.endpoint(leader.rpcAddress)?.process;
        const lies = !world.healed && random.next() < config.probeLieChance;
        if (peer === undefined || peer.dead || lies) back(() => ({ kind: 'refused' }));
        else
          peer.enter(() => {
            if (leader.incarnation === `incarnation-${peer.name}`) back(() => this.hold(peer, lost));
            else back(() => ({ kind: 'stranger' }));
          });
      });
    });
  }

  private hold(peer: SimProcess, lost: () => void): ProbeAnswer {
    const { world, process } = this;
    const { network, time, random, config } = world;
    let open = true;
    const breaks = () => {
      if (!open || network.isCut(peer.host, process.host)) return;
      open = false;
      stop();
      process.enter(lost);
    };
    const stop = peer.onDeath(() => time.after(network.latencyMs(peer.host, process.host), breaks));
    if (random.next() < config.probeLieChance)
      time.after(3_000 * random.next(), () => {
        if (!world.healed) breaks();
      });
    return {
      kind: 'same',
      close() {
        open = false;
        stop();
      },
    };
  }
}
