import { type Random, SeededRandom } from '../../src/kernel/random.ts';
import { DOUBT_MS } from './sim-config.ts';
import type { Ambush } from './ambushes.ts';
import type { SimCluster } from './sim-cluster.ts';
import { ETCD_HOST, OBJECTS_HOST, type SimWorld } from './sim-world.ts';

/** Moments in which the order of two steps matters. */
const MOMENTS: readonly string[] = [
  'object put metadata',
  'object put graph',
  'object put details',
  'object put state',
  'object delete',
  'txn put leader',
  'txn put jobs',
  'txn put counters',
  'txn put checkpoints',
  'txn put results',
  'txn put cancels',
  'txn put operations',
  'txn put retained',
  'object put savepoint',
  'txn delete checkpoints',
  'txn delete counters',
  'call allocateSlot',
  'call submitTasks',
  'call triggerCheckpoint',
  'call notifyCheckpointComplete',
  'call acknowledgeCheckpoint',
  'call updateTaskState',
  'call registerTaskManager',
  'call releaseJob',
  'call freeSlot',
  'call cancelTasks',
];

const WRITES = MOMENTS.filter((moment) => moment.startsWith('txn '));

/**
 * What was written is not known for longer than anybody asks again: all answers of the store to one master are
 * lost, from a moment on.
 */
function layDoubt(world: SimWorld, random: Random): void {
  const { config, time } = world;
  const at = WRITES[random.int(WRITES.length)] ?? 'txn put checkpoints';
  const forMs = DOUBT_MS * (0.9 + 0.4 * random.next());
  time.at(400 + random.next() * 400, () =>
    world.ambushes.lay({ at, skip: random.int(3), effect: 'lose-etcd-answers', forMs }),
  );
  if (config.healAtMs < DOUBT_MS) throw new Error('a long doubt needs time');
}

/** Lays out everything that will go wrong between the start and `healAtMs`. */
export function planFaults(world: SimWorld, cluster: SimCluster): void {
  const { config, time } = world;
  const random = new SeededRandom(config.seed * 31 + 9);
  if (config.longDoubt) layDoubt(world, random);
  loseDrains(world);
  for (let i = 0; i < config.faults; i++) {
    const atMs = 400 + random.next() * (config.healAtMs - 800);
    const fault = drawFault(world, cluster, random);
    if (fault.kind === 'ambush') time.at(atMs * 0.5, () => world.ambushes.lay(fault.ambush));
    else
      time.at(atMs, () => {
        if (!world.healed) fault.strike();
      });
  }
}

/**
 * The savepoint of a drain cannot be written, and the leader dies before it can end what was drained: each is common,
 * all of them together would be met once in a million seeds.
 */
function loseDrains(world: SimWorld): void {
  const { config, time } = world;
  // Of its own, so that every other seed is what it was.
  const random = new SeededRandom(config.seed * 31 + 11);
  for (const { submitAtMs, operations } of config.jobs)
    for (const { wish, atMs } of operations) {
      if (wish.kind !== 'SAVEPOINT' || wish.stop !== 'DRAIN' || random.next() < 0.3) continue;
      const forMs = 100 + 400 * random.next();
      time.at(submitAtMs + atMs, () => {
        if (world.healed) return;
        world.objectsAway = 'refuses';
        world.ambushes.lay({ at: 'call cancelTasks', skip: 0, effect: 'lose-workers', forMs });
        time.after(1_500, () => {
          world.objectsAway = 'no';
        });
      });
    }
}

type Fault =
  | { readonly kind: 'strike'; readonly strike: () => void }
  | { readonly kind: 'ambush'; readonly ambush: Ambush };

function drawFault(world: SimWorld, cluster: SimCluster, random: Random): Fault {
  const { time, trace, etcd } = world;
  const pick = <T>(items: readonly T[]): T => items[random.int(items.length)] as T;
  const shortMs = 20 + 300 * random.next();
  const longMs = 200 + 3_500 * random.next() ** 2;
  const anyHost = pick(cluster.hosts);
  /** Mostly the one whose loss hurts most. */
  const aimed = random.next() < 0.6;
  const victim = () => (aimed && anyHost.startsWith('m') ? (cluster.leader?.process.host ?? anyHost) : anyHost);
  const strike = (what: () => void): Fault => ({ kind: 'strike', strike: what });
  const coin = random.next();
  const other = pick([...cluster.hosts, ETCD_HOST, ETCD_HOST, OBJECTS_HOST].filter((host) => host !== anyHost));
  switch (random.int(15)) {
    case 0:
    case 1:
      return strike(() => cluster.crash(victim(), coin < 0.5 ? shortMs : longMs, false));
    case 2:
      return strike(() => cluster.crash(victim(), longMs, true));
    case 3:
      return strike(() => {
        const process = cluster.process(victim());
        process?.pause();
        time.after(coin < 0.4 ? shortMs : longMs, () => process?.resume());
      });
    case 4:
    case 5:
      return strike(() =>
        cutFor(world, victim(), [other], coin < 0.4 ? 'there' : coin < 0.6 ? 'back' : 'both', longMs),
      );
    case 6:
      return strike(() => {
        const host = victim();
        const peers = [...cluster.hosts, ETCD_HOST, OBJECTS_HOST].filter((peer) => peer !== host);
        cutFor(world, host, coin < 0.5 ? peers : peers.filter((peer) => peer !== ETCD_HOST), 'both', longMs);
      });
    case 7:
      return strike(() => {
        trace.notable(ETCD_HOST, 'LEADER CHANGE');
        etcd.loseLeader();
        world.etcdAway = coin < 0.4 ? 'hangs' : coin < 0.7 ? 'refuses' : 'loses-answers';
        time.after(coin < 0.8 ? shortMs * 3 : longMs, () => {
          if (world.healed) return; // It has had one since then: another would prolong every lease again.
          world.etcdAway = 'no';
          etcd.electLeader();
          trace.notable(ETCD_HOST, 'HAS A LEADER');
        });
      });
    case 8:
      return strike(() => {
        trace.notable(OBJECTS_HOST, 'AWAY');
        world.objectsAway = coin < 0.6 ? 'refuses' : 'loses-answers';
        time.after(longMs, () => {
          world.objectsAway = 'no';
          trace.notable(OBJECTS_HOST, 'BACK');
        });
      });
    case 9:
      return strike(() => cluster.stop(victim(), shortMs));
    case 10:
      return strike(() => {
        const process = cluster.process(anyHost);
        if (process !== undefined) process.wallOffsetMs += (coin - 0.5) * 7_200_000;
        etcd.compact();
        trace.notable(anyHost, 'CLOCK JUMPS, etcd compacted');
      });
    case 11:
      return {
        kind: 'ambush',
        ambush: { at: pick(WRITES), skip: random.int(4), effect: 'late', forMs: coin < 0.3 ? shortMs : longMs },
      };
    default:
      return {
        kind: 'ambush',
        ambush: {
          at: pick(MOMENTS),
          skip: random.int(4),
          effect: pick([
            'crash-before',
            'crash-after',
            'crash-after',
            'pause',
            'cut-etcd',
            'cut-all',
            'lose-etcd-answers',
          ] as const),
          forMs: coin < 0.5 ? shortMs : longMs,
        },
      };
  }
}

function cutFor(
  world: SimWorld,
  host: string,
  peers: readonly string[],
  way: 'there' | 'back' | 'both',
  forMs: number,
): void {
  const { network, time, trace } = world;
  trace.notable(host, `CUT from ${peers.join(' ')} (${way}) for ${Math.round(forMs)} ms`);
  for (const peer of peers) {
    if (way !== 'back') network.cut(host, peer);
    if (way !== 'there') network.cut(peer, host);
  }
  time.after(forMs, () => {
    for (const peer of peers) {
      if (way !== 'back') network.mend(host, peer);
      if (way !== 'there') network.mend(peer, host);
    }
  });
}
