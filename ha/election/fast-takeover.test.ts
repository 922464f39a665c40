import { afterEach, expect, test } from 'vitest';
import type { LeaderAddress, LeaderProbe, ProbeAnswer } from '../../src/contracts/leadership.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { EtcdModel, type ModelCall, type ModelFault } from '../coordination/etcd-model.ts';
import { addressOf, startReplica, testKeys } from './election.fixture.ts';

type Replica = ReturnType<typeof startReplica>;
/** How a process looks from outside. */
type Health = 'alive' | 'dead' | 'replaced' | 'silent';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

/** Processes whose connections break when they die, as the kernel of a living machine makes them. */
class ModelNetwork {
  private readonly health = new Map<string, Health>();
  private readonly connections = new Set<{ readonly to: string; readonly lost: () => void }>();
  probes = 0;

  probe(): LeaderProbe {
    return {
      connect: async (leader: LeaderAddress, lost: () => void): Promise<ProbeAnswer> => {
        this.probes++;
        switch (this.health.get(leader.replicaId) ?? 'alive') {
          case 'dead':
            return { kind: 'refused' };
          case 'replaced':
            return { kind: 'stranger' };
          case 'silent':
            return { kind: 'unclear', reason: 'no answer in time' };
          case 'alive': {
            const connection = { to: leader.replicaId, lost };
            this.connections.add(connection);
            return { kind: 'same', close: () => void this.connections.delete(connection) };
          }
        }
      },
    };
  }

  becomes(name: string, health: Health): void {
    this.health.set(name, health);
    // A machine that has vanished breaks no connection: nothing comes at all.
    if (health !== 'silent') this.breakConnections(name);
  }

  breakConnections(name: string): void {
    for (const connection of [...this.connections]) {
      if (connection.to !== name) continue;
      this.connections.delete(connection);
      connection.lost();
    }
  }
}

function cluster(names: readonly string[], { stealsPerMinuteMax = 10, ranks = true } = {}) {
  const clock = new ManualClock(1_000);
  const model = new EtcdModel({ clock });
  const network = new ModelNetwork();
  const alerts: string[] = [];
  const faults = new Map<string, ModelFault>();
  const calls: ModelCall[] = [];
  model.intercept = (call) => {
    calls.push(call);
    return faults.get(call.client);
  };
  const replicas = names.map((name, i) => {
    const fastTakeover = {
      probe: network.probe(),
      rank: () => (ranks ? i : 0),
      stealsPerMinuteMax,
      alert: (kind: string) => void alerts.push(`${name} ${kind}`),
    };
    const replica = startReplica({ coordination: model.client({ name }), clock, fastTakeover }, name);
    open.push({ close: () => closing(clock, replica.election.close()) });
    return replica;
  });
  const kill = (replica: Replica, health: Health = 'dead') => {
    faults.set(replica.name, { kind: 'hang' });
    network.becomes(replica.name, health);
  };
  return { clock, model, network, replicas, alerts, faults, calls, kill };
}

async function closing(clock: ManualClock, closed: Promise<void>): Promise<void> {
  let done = false;
  const finished = closed.finally(() => {
    done = true;
  });
  for (let i = 0; i < 200 && !done; i++) await clock.advance(100);
  await finished;
}

const leadersOf = (replicas: readonly Replica[]) =>
  replicas.filter((one) => one.contender.leadership?.isValid() === true);

async function elected(c: ReturnType<typeof cluster>, not?: Replica): Promise<Replica> {
  for (let i = 0; i < 400; i++) {
    const leader = leadersOf(c.replicas).find((one) => one !== not);
    if (leader !== undefined) return leader;
    await c.clock.advance(10);
  }
  throw new Error('nobody was elected');
}

test('when the leader’s process is gone a standby leads within milliseconds, under a higher token, its lease untouched by the old one', async () => {
  const c = cluster(['a', 'b', 'c']);
  const dead = await elected(c);
  await c.clock.advance(1_000);
  const key = c.model.get(testKeys.leader);
  c.kill(dead);
  await c.clock.advance(30);
  const next = leadersOf(c.replicas).find((one) => one !== dead);
  expect(next?.contender.calls).toEqual(['granted']);
  expect(next?.contender.tokens[0]).toBeGreaterThan(key?.modRevision ?? 0n);
  expect(c.model.get(testKeys.leader)?.lease).not.toBe(key?.lease);
  // The dead one's lease expires, and takes nothing with it.
  await c.clock.advance(10_000);
  expect(leadersOf(c.replicas)).toEqual([next]);
  expect(next?.contender.calls).toEqual(['granted']);
});

test('the steal is one transaction: the lease was granted before', async () => {
  const c = cluster(['a', 'b']);
  const dead = await elected(c);
  await c.clock.advance(3_000);
  c.calls.length = 0;
  c.kill(dead);
  await c.clock.advance(20);
  const next = leadersOf(c.replicas).find((one) => one !== dead);
  const before = c.calls.filter((call) => call.client === next?.name && call.kind !== 'keepAlive');
  expect(before.slice(0, 2).map(({ kind }) => kind)).toEqual(['txn', 'watchEvents']);
});

test('of several standbys at once one wins, and the others follow it', async () => {
  const c = cluster(['a', 'b', 'c', 'd', 'e'], { ranks: false });
  const dead = await elected(c);
  await c.clock.advance(1_000);
  c.kill(dead);
  await c.clock.advance(100);
  expect(leadersOf(c.replicas).filter((one) => one !== dead)).toHaveLength(1);
  const granted = c.replicas.filter((one) => one !== dead && one.contender.calls.includes('granted'));
  expect(granted).toHaveLength(1);
});

test('a stranger on the port of the dead leader does not hold up the takeover', async () => {
  const c = cluster(['a', 'b']);
  const dead = await elected(c);
  await c.clock.advance(1_000);
  c.kill(dead, 'replaced');
  await c.clock.advance(30);
  expect(leadersOf(c.replicas).filter((one) => one !== dead)).toHaveLength(1);
});

test('a leader whose host falls silent is never stolen from: its lease decides', async () => {
  const c = cluster(['a', 'b']);
  const silent = await elected(c);
  await c.clock.advance(1_000);
  c.kill(silent, 'silent');
  c.network.breakConnections(silent.name); // Even if something on the way resets the connection.
  await c.clock.advance(1_000);
  expect(c.replicas.filter((one) => one !== silent).flatMap((one) => one.contender.calls)).toEqual([]);
  await c.clock.advance(1_500);
  expect(leadersOf(c.replicas).filter((one) => one !== silent)).toHaveLength(1);
});

test('a broken connection to a living leader costs nothing', async () => {
  const c = cluster(['a', 'b', 'c']);
  const leader = await elected(c);
  await c.clock.advance(1_000);
  for (let i = 0; i < 20; i++) {
    c.network.breakConnections(leader.name);
    await c.clock.advance(100);
  }
  expect(c.replicas.flatMap((one) => one.contender.calls)).toEqual(['granted']);
  expect(leadersOf(c.replicas)).toEqual([leader]);
});

test('a leader that is suspected wrongly is demoted by the store and stands by', async () => {
  const c = cluster(['a', 'b']);
  const wronged = await elected(c);
  await c.clock.advance(1_000);
  c.network.becomes(wronged.name, 'dead'); // Refused, and yet alive: a firewall, say.
  await c.clock.advance(100);
  const [next] = leadersOf(c.replicas);
  expect(next).not.toBe(wronged);
  expect(wronged.contender.calls).toEqual(['granted', 'revoked']);
  await c.clock.advance(10_000);
  expect(leadersOf(c.replicas)).toEqual([next]);
});

test('leadership that flaps by suspicion is left to the leases for a while, with an alert', async () => {
  const c = cluster(['a', 'b'], { stealsPerMinuteMax: 2 });
  const first = await elected(c);
  await c.clock.advance(1_000);
  // Each finds the other's port refused whenever its connection breaks, and both are alive.
  for (let i = 0; i < 6; i++) {
    for (const { name } of c.replicas) c.network.becomes(name, 'dead');
    await c.clock.advance(200);
    for (const { name } of c.replicas) c.network.becomes(name, 'alive');
    await c.clock.advance(600);
  }
  const grants = c.replicas.flatMap((one) => one.contender.calls).filter((call) => call === 'granted');
  expect(grants).toHaveLength(4); // The first election, and three steals: the third was one too many.
  expect(c.alerts.sort()).toEqual(['a fast-takeover-off', 'b fast-takeover-off']);
  await c.clock.advance(61_000);
  expect(c.alerts).toContain('a fast-takeover-on');
  expect(first.contender.calls[0]).toBe('granted');
});

test('a steal whose answer is lost is read back, not lost', async () => {
  const c = cluster(['a', 'b']);
  const dead = await elected(c);
  const standby = c.replicas.find((one) => one !== dead) as Replica;
  await c.clock.advance(1_000);
  let losing = 1;
  const intercept = c.model.intercept;
  c.model.intercept = (call) =>
    call.client === standby.name && call.kind === 'txn' && losing-- > 0 ? { kind: 'failAfter' } : intercept?.(call);
  c.kill(dead);
  await c.clock.advance(1_900);
  expect(standby.contender.calls).toEqual(['granted']);
  expect(standby.contender.tokens).toEqual([c.model.get(testKeys.leader)?.modRevision]);
});

test('a store that is away when the leader dies delays the takeover, and nothing else', async () => {
  const c = cluster(['a', 'b']);
  const dead = await elected(c);
  const standby = c.replicas.find((one) => one !== dead) as Replica;
  await c.clock.advance(1_000);
  c.faults.set(standby.name, { kind: 'failBefore' });
  c.kill(dead);
  await c.clock.advance(500);
  expect(standby.contender.calls).toEqual([]);
  c.faults.delete(standby.name);
  await c.clock.advance(700);
  expect(standby.contender.calls).toEqual(['granted']); // Still before the TTL.
});

test('a standby leaves no lease behind', async () => {
  const c = cluster(['a', 'b', 'c']);
  await elected(c);
  await c.clock.advance(1_000);
  expect(c.model.leases).toHaveLength(3);
  for (const { election } of c.replicas) await closing(c.clock, election.close());
  expect(c.model.leases).toEqual([]);
});

test('a record of a newer version is neither stolen from nor removed', async () => {
  const c = cluster(['a']);
  const only = await elected(c);
  await closing(c.clock, only.election.close());
  const newer = c.model.grantLease(3_600_000);
  const value = JSON.stringify({ v: 2, ...addressOf('z'), electedWallMs: 0, campaign: 'x', oath: 'new' });
  c.model.txn({ guards: [], then: [{ kind: 'put', key: testKeys.leader, value, lease: newer.id }] });
  const later = startReplica(
    {
      coordination: c.model.client({ name: 'b' }),
      clock: c.clock,
      fastTakeover: { probe: c.network.probe(), rank: () => 0 },
    },
    'b',
  );
  open.push({ close: () => closing(c.clock, later.election.close()) });
  c.network.becomes('z', 'dead');
  await c.clock.advance(30_000);
  expect(later.contender.calls).toEqual([]);
  expect(c.model.get(testKeys.leader)?.lease).toBe(newer.id);
});
