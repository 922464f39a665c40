import { afterEach, expect, test } from 'vitest';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { EtcdModel, type ModelCall, type ModelFault } from '../coordination/etcd-model.ts';
import { addressOf, startReplica, testKeys } from './election.fixture.ts';
import { WatchedLeaderRetrieval } from './leader-retrieval.ts';
import { silentLogger } from '../../src/kernel/log.ts';

type Replica = ReturnType<typeof startReplica>;
const open: { close(): Promise<void> }[] = [];

function cluster(...names: string[]) {
  const clock = new ManualClock(1_000);
  const model = new EtcdModel({ clock });
  const faults: { client: string; kind: ModelCall['kind'] | 'all'; fault: ModelFault }[] = [];
  model.intercept = (call) =>
    faults.find(({ client, kind }) => client === call.client && (kind === 'all' || kind === call.kind))?.fault;
  const start = (name: string, options: Parameters<typeof startReplica>[2] = {}) => {
    const replica = startReplica({ coordination: model.client({ name }), clock }, name, options);
    open.push({ close: () => closing(clock, replica.election.close()) });
    return replica;
  };
  return { clock, model, faults, start, replicas: names.map((name) => start(name)) };
}

/** Closing may wait for timers, and time stands still unless it is moved. */
async function closing(clock: ManualClock, closed: Promise<void>): Promise<void> {
  let done = false;
  const finished = closed.finally(() => {
    done = true;
  });
  for (let i = 0; i < 200 && !done; i++) await clock.advance(100);
  await finished;
}

afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

const leadersOf = (replicas: readonly Replica[]) =>
  replicas.filter((one) => one.contender.leadership?.isValid() === true);
/** As etcd does when its own leader changes. */
const prolongLeases = (model: EtcdModel) => model.leases.forEach(({ id }) => void model.keepAlive(id));
const leaderKey = (model: EtcdModel) => model.get(testKeys.leader);

test('one of three replicas is elected, under the revision of its transaction, and stays', async () => {
  const { clock, model, replicas } = cluster('a', 'b', 'c');
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  expect(leadersOf(replicas)).toHaveLength(1);
  const entry = leaderKey(model);
  expect(leader?.contender.tokens).toEqual([entry?.modRevision]);
  await clock.advance(60_000);
  expect(leaderKey(model)).toEqual(entry); // Its own value was never written again.
  expect(leader?.contender.calls).toEqual(['granted']);
  expect(replicas.flatMap((one) => one.contender.calls)).toEqual(['granted']);
  expect(model.leases).toHaveLength(1);
});

test('a leader that dies is followed within the TTL, under a higher token', async () => {
  const { clock, faults, replicas } = cluster('a', 'b');
  await clock.advance(100);
  const [dead] = leadersOf(replicas);
  const alive = replicas.find((one) => one !== dead);
  faults.push({ client: dead?.name ?? '', kind: 'all', fault: { kind: 'hang' } });
  await clock.advance(2_500);
  expect(alive?.contender.leads).toBe(true);
  expect(alive?.contender.tokens[0]).toBeGreaterThan(dead?.contender.tokens[0] ?? 0n);
  expect(dead?.contender.calls).toEqual(['granted', 'suspended']);
});

test('a leader suspends itself before anybody else can be elected, at the margin after its last answered keepalive was sent', async () => {
  const { clock, faults, model, replicas } = cluster('a');
  await clock.advance(10);
  const [leader] = replicas;
  faults.push({ client: 'a', kind: 'keepAlive', fault: { kind: 'hang' } });
  const deadline = model.leases[0]?.deadlineMs ?? 0;
  await clock.advance(deadline - 500 - clock.nowMs() - 1);
  expect(leader?.contender.calls).toEqual(['granted']);
  expect(leader?.contender.leadership?.isValid()).toBe(true);
  await clock.advance(1);
  expect(leader?.contender.calls).toEqual(['granted', 'suspended']);
  expect(model.leases).toHaveLength(1); // The lease still lives: nobody else could have won.
});

test('an outage shorter than the lease costs a pause, not the leadership', async () => {
  const { clock, model, faults, replicas } = cluster('a', 'b');
  await clock.advance(10);
  const [leader] = leadersOf(replicas);
  const token = leader?.contender.tokens[0];
  const fault = { client: leader?.name ?? '', kind: 'all', fault: { kind: 'failBefore' } } as const;
  faults.push(fault);
  await clock.advance(1_600);
  expect(leader?.contender.calls).toEqual(['granted', 'suspended']);
  faults.splice(0);
  await clock.advance(300);
  expect(leader?.contender.calls).toEqual(['granted', 'suspended', 'resumed']);
  expect(leaderKey(model)?.modRevision).toBe(token);
  expect(leader?.contender.leadership?.isValid()).toBe(true);
});

test('a suspended leader whose lease was prolonged by the store resumes however long the outage was', async () => {
  const { clock, model, start } = cluster();
  const replica = start('a');
  await clock.advance(10);
  model.intercept = () => ({ kind: 'failBefore' });
  for (let second = 0; second < 30; second++) {
    await clock.advance(1_000);
    prolongLeases(model);
  }
  expect(replica.contender.calls).toEqual(['granted', 'suspended']);
  model.intercept = undefined;
  await clock.advance(1_000);
  expect(replica.contender.calls).toEqual(['granted', 'suspended', 'resumed']);
});

test('a leader whose lease expired during an outage is revoked, campaigns again and wins under a new token', async () => {
  const { clock, faults, replicas } = cluster('a');
  await clock.advance(10);
  faults.push({ client: 'a', kind: 'all', fault: { kind: 'hang' } });
  await clock.advance(10_000);
  faults.splice(0);
  await clock.advance(5_000);
  expect(replicas[0]?.contender.calls).toEqual(['granted', 'suspended', 'revoked', 'granted']);
  const [first = 0n, second = 0n] = replicas[0]?.contender.tokens ?? [];
  expect(second).toBeGreaterThan(first);
});

test('a frozen process does not believe that it leads, before any timer of it has run', async () => {
  const { clock, replicas } = cluster('a');
  await clock.advance(10);
  const leadership = replicas[0]?.contender.leadership;
  expect(leadership?.isValid()).toBe(true);
  // Time passes without a single callback, as after SIGSTOP and SIGCONT.
  const frozen = clock.nowMs();
  const nowMs = clock.nowMs.bind(clock);
  clock.nowMs = () => frozen + 10_000;
  expect(leadership?.isValid()).toBe(false);
  clock.nowMs = nowMs;
});

test('a leader key that is removed demotes at once, although the lease lives, and the replica campaigns again', async () => {
  const { clock, model, replicas } = cluster('a');
  await clock.advance(10);
  model.txn({ guards: [], then: [{ kind: 'delete', key: testKeys.leader }] });
  await clock.advance(50);
  expect(replicas[0]?.contender.calls).toEqual(['granted', 'revoked']);
  await clock.advance(3_000);
  expect(replicas[0]?.contender.calls).toEqual(['granted', 'revoked', 'granted']);
  expect(model.leases).toHaveLength(1);
});

test('a leader whose key is taken over demotes, although its lease lives', async () => {
  const { clock, model, replicas } = cluster('a');
  await clock.advance(10);
  const thief = model.grantLease(60_000);
  const value = leaderKey(model)?.value.replaceAll('a-incarnation', 'z-incarnation') ?? '';
  model.txn({ guards: [], then: [{ kind: 'put', key: testKeys.leader, value, lease: thief.id }] });
  await clock.advance(5_000);
  expect(replicas[0]?.contender.calls).toEqual(['granted', 'revoked']);
  expect(leaderKey(model)?.lease).toBe(thief.id);
});

test('a key removed between the election and the first confirmation is noticed without any watch', async () => {
  const { clock, model, start } = cluster();
  let removed = false;
  model.intercept = (call) => {
    if (call.kind === 'watch' || call.kind === 'watchEvents') return { kind: 'failBefore' };
    if (call.kind === 'keepAlive' && !removed) {
      removed = true;
      model.txn({ guards: [], then: [{ kind: 'delete', key: testKeys.leader }] });
    }
    return undefined;
  };
  const replica = start('a');
  await clock.advance(100);
  expect(replica.contender.calls).toEqual(['granted', 'revoked']);
  model.intercept = undefined;
  await clock.advance(5_000);
  expect(replica.contender.leads).toBe(true);
});

test('a won campaign whose answer was lost is read back, not lost', async () => {
  const { clock, model, start } = cluster();
  let losing = 2;
  model.intercept = (call) => {
    const campaigning = call.kind === 'txn' && call.transaction?.then.some((op) => op.kind === 'put');
    return campaigning && losing-- > 0 ? { kind: 'failAfter' } : undefined;
  };
  const replica = start('a');
  await clock.advance(1_000);
  expect(replica.contender.calls).toEqual(['granted']);
  expect(replica.contender.tokens).toEqual([leaderKey(model)?.modRevision]);
  expect(model.leases).toHaveLength(1);
});

test('a campaign whose outcome stays unknown leaves neither a ghost leader nor a lease, and is repeated', async () => {
  const { clock, model, faults, start } = cluster();
  faults.push({ client: 'a', kind: 'txn', fault: { kind: 'failAfter' } });
  const replica = start('a');
  await clock.advance(2_500);
  expect(replica.contender.calls).toEqual([]);
  faults.splice(0);
  await clock.advance(3_000);
  expect(replica.contender.leads).toBe(true);
  expect(model.leases).toHaveLength(1);
});

test('a campaign that is answered after its lease may have expired is not announced', async () => {
  const { clock, model, start } = cluster();
  let slow = 1;
  model.intercept = (call) =>
    call.kind === 'grantLease' && slow-- > 0 ? { kind: 'delay', requestMs: 0, answerMs: 990 } : undefined;
  const replica = start('a', { leaseTtlMs: 1_000, leaseMarginMs: 100, renewIntervalMs: 200 });
  await clock.advance(995);
  expect(replica.contender.calls).toEqual([]);
  await clock.advance(3_000);
  expect(replica.contender.calls).toEqual(['granted']);
  expect(model.leases).toHaveLength(1);
});

test('closing hands over without waiting for the TTL, after the last write', async () => {
  const { clock, model, start } = cluster();
  let wrote: bigint | undefined;
  let token = 0n;
  const first = start('a', {
    lastWrites: async () => {
      const write = model.txn({
        guards: [{ key: testKeys.leader, modRevision: token }],
        then: [{ kind: 'put', key: 'test/last', value: 'written' }],
      });
      wrote = write.succeeded ? write.revision : undefined;
    },
  });
  await clock.advance(50);
  token = first.contender.tokens[0] ?? 0n;
  const second = start('b');
  await clock.advance(50);
  await closing(clock, first.election.close());
  expect(first.contender.calls).toEqual(['granted', 'revoked']);
  expect(wrote).toBeDefined();
  await clock.advance(10);
  expect(second.contender.leads).toBe(true);
  expect(second.contender.tokens[0]).toBeGreaterThan(wrote ?? 0n);
});

test('a leader that hands over goes on living: its last write, then another leads, and it stands by', async () => {
  const { clock, model, start } = cluster();
  let wrote = false;
  const first = start('a', {
    lastWrites: async () => {
      wrote = leaderKey(model)?.modRevision === first.contender.tokens[0];
    },
  });
  await clock.advance(50);
  const second = start('b');
  await clock.advance(50);
  const [token = 0n as never] = first.contender.tokens;
  const handed = first.election.handOver(token, undefined);
  await clock.advance(20);
  await handed;
  await clock.advance(20);
  expect(wrote).toBe(true);
  expect(second.contender.leads).toBe(true);
  await clock.advance(10_000);
  expect(first.contender.calls).toEqual(['granted', 'revoked']);
  // And back again, to a replica that is alive.
  const back = second.election.handOver(second.contender.tokens[0] ?? (0n as never), 'a');
  await clock.advance(20);
  await back;
  await clock.advance(20);
  expect(first.contender.leads).toBe(true);
  expect(model.leases).toHaveLength(1);
});

test('a hand-over to a certain replica goes to that one, though others would be as quick', async () => {
  const { clock, replicas } = cluster('a', 'b', 'c', 'd', 'e');
  await clock.advance(100);
  for (const to of ['c', 'a', 'e', 'b', 'd', 'a']) {
    const [leader] = leadersOf(replicas);
    if (leader === undefined || leader.name === to) continue;
    const handed = leader.election.handOver(leader.contender.tokens.at(-1) ?? (0n as never), to);
    await clock.advance(50);
    await handed;
    await clock.advance(50);
    expect(leadersOf(replicas).map(({ name }) => name)).toEqual([to]);
    await clock.advance(3_000);
  }
});

test('a hand-over to a replica that does not come leaves nobody waiting for long', async () => {
  const { clock, replicas } = cluster('a', 'b');
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  const handed = leader?.election.handOver(leader.contender.tokens[0] ?? (0n as never), 'gone');
  await clock.advance(50);
  await handed;
  expect(leadersOf(replicas)).toEqual([]);
  await clock.advance(600);
  expect(leadersOf(replicas).map(({ name }) => name)).toEqual(
    replicas.flatMap((one) => (one === leader ? [] : one.name)),
  );
});

test('a hand-over under another token, or by one that does not lead, changes nothing', async () => {
  const { clock, replicas } = cluster('a', 'b');
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  const other = replicas.find((one) => one !== leader);
  await expect(leader?.election.handOver(999n as never, undefined)).rejects.toMatchObject({ code: 'NOT_LEADER' });
  const token = leader?.contender.tokens[0] ?? (0n as never);
  await expect(other?.election.handOver(token, undefined)).rejects.toMatchObject({ code: 'NOT_LEADER' });
  await clock.advance(1_000);
  expect(leader?.contender.calls).toEqual(['granted']);
});

test('a hand-over while the store is away ends in somebody’s leadership all the same', async () => {
  const { clock, faults, replicas } = cluster('a', 'b');
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  faults.push({ client: leader?.name ?? '', kind: 'all', fault: { kind: 'failAfter' } });
  const handed = leader?.election.handOver(leader.contender.tokens[0] ?? (0n as never), 'b');
  await clock.advance(10_000);
  await handed;
  faults.splice(0);
  await clock.advance(3_000);
  expect(leadersOf(replicas)).toHaveLength(1);
});

test('last writes that hang do not keep the leadership for ever, nor lose it before they may end', async () => {
  const { clock, model, start } = cluster();
  const first = start('a', { lastWrites: () => new Promise(() => {}), lastWritesMaxMs: 4_000 });
  await clock.advance(50);
  const closed = first.election.close();
  await clock.advance(3_900);
  expect(leaderKey(model)).toBeDefined(); // Longer than the TTL: it was renewed meanwhile.
  await clock.advance(200);
  await closed;
  expect(leaderKey(model)).toBeUndefined();
});

test('a leader that abdicates stands back so that another comes first', async () => {
  const { clock, replicas } = cluster('a', 'b');
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  const other = replicas.find((one) => one !== leader);
  leader?.contender.leadership?.abdicate('a store refused the token');
  leader?.contender.leadership?.abdicate('again'); // Idempotent.
  expect(leader?.contender.leadership?.isValid()).toBe(false);
  await clock.advance(100);
  expect(leader?.contender.calls).toEqual(['granted', 'revoked']);
  expect(other?.contender.leads).toBe(true);
  await clock.advance(10_000);
  expect(other?.contender.calls).toEqual(['granted']);
});

test('a contender that abdicates while it is granted leadership hears of it in order', async () => {
  const { clock, start } = cluster();
  const replica = start('a');
  replica.contender.onGranted = (leadership) => {
    replica.contender.onGranted = undefined;
    leadership.abdicate('cannot recover');
    replica.contender.calls.push('granted ends');
  };
  await clock.advance(10_000);
  expect(replica.contender.calls).toEqual(['granted', 'granted ends', 'revoked', 'granted']);
});

test('a contender that throws when it is granted leadership does not keep it', async () => {
  const { clock, start } = cluster();
  const replica = start('a');
  replica.contender.onGranted = () => {
    replica.contender.onGranted = undefined;
    throw new Error('no office today');
  };
  await clock.advance(10_000);
  expect(replica.contender.calls).toEqual(['granted', 'revoked', 'granted']);
});

test('a replica that finds a leader key of its own incarnation, which nobody serves, removes it', async () => {
  const { clock, model, start } = cluster();
  const ghost = model.grantLease(3_600_000);
  const value = JSON.stringify({ v: 1, ...addressOf('a'), electedWallMs: 0, campaign: 'old' });
  model.txn({ guards: [], then: [{ kind: 'put', key: testKeys.leader, value, lease: ghost.id }] });
  const replica = start('a');
  await clock.advance(2_000);
  expect(replica.contender.leads).toBe(true);
});

test('a store that is away at the start, or loses compacted history, only delays the election', async () => {
  const { clock, model, faults, start } = cluster();
  faults.push({ client: 'a', kind: 'all', fault: { kind: 'failBefore' } });
  const replica = start('a');
  await clock.advance(20_000);
  expect(replica.contender.calls).toEqual([]);
  faults.splice(0);
  await clock.advance(1_000);
  expect(replica.contender.leads).toBe(true);
  const standby = start('b');
  await clock.advance(100);
  standby.coordination.breakWatches('test');
  for (let i = 0; i < 20; i++) model.txn({ guards: [], then: [{ kind: 'put', key: 'test/other', value: String(i) }] });
  model.compact();
  await closing(clock, replica.election.close());
  await clock.advance(2_100);
  expect(standby.contender.leads).toBe(true);
});

test('relations between times are checked, all of them at once', () => {
  const { model, clock } = cluster();
  const start = (options: object) => () => startReplica({ coordination: model.client(), clock }, 'a', options);
  expect(start({ leaseMarginMs: 2_000 })).toThrow('margin');
  expect(start({ renewIntervalMs: 900 })).toThrow('two renewals');
  expect(start({ renewIntervalMs: 900, retryMs: 800 })).toThrow(/two renewals.*retries/);
  expect(start({ leaseTtlMs: Number.NaN })).toThrow('positive');
});

test('under random faults at most one replica believes that it leads, tokens rise, and quiet brings a leader', async () => {
  for (let seed = 1; seed <= 15; seed++) {
    const clock = new ManualClock(1_000);
    const model = new EtcdModel({ clock });
    let state = seed;
    const random = () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return state / 0x7fffffff;
    };
    let chaos = true;
    const cutOff = new Map<string, number>();
    model.intercept = (call): ModelFault | undefined => {
      if (!chaos) return undefined;
      if ((cutOff.get(call.client) ?? 0) > clock.nowMs()) return { kind: 'hang' };
      const dice = random();
      if (dice < 0.03) cutOff.set(call.client, clock.nowMs() + 6_000 * random());
      if (dice < 0.05) return { kind: 'failBefore' };
      if (dice < 0.1) return { kind: 'failAfter' };
      if (dice < 0.4) return { kind: 'delay', requestMs: 500 * random(), answerMs: 900 * random() };
      return undefined;
    };
    const replicas = ['a', 'b', 'c'].map((name) => startReplica({ coordination: model.client({ name }), clock }, name));
    for (let step = 0; step < 200; step++) {
      await clock.advance(50 + 100 * random());
      if (random() < 0.02) prolongLeases(model);
      const valid = leadersOf(replicas);
      expect(valid.length, `seed ${seed}: two leaders at ${clock.nowMs()}`).toBeLessThanOrEqual(1);
      if (valid[0] !== undefined)
        expect(leaderKey(model)?.modRevision, `seed ${seed}: valid without the key`).toBe(
          valid[0].contender.tokens.at(-1),
        );
    }
    chaos = false;
    await clock.advance(6_000);
    expect(leadersOf(replicas), `seed ${seed}: no leader after quiet`).toHaveLength(1);
    expect(model.leases.length, `seed ${seed}: leaked leases`).toBe(1);
    const tokens = replicas.flatMap((one) => one.contender.tokens);
    expect(new Set(tokens).size).toBe(tokens.length);
    for (const { contender } of replicas) {
      expect([...contender.tokens].sort((x, y) => Number(x - y))).toEqual(contender.tokens);
      expect(contender.calls.join(' ')).toMatch(
        /^((granted( suspended resumed)*( suspended)?( revoked (?=granted)| revoked$|$))*)$/,
      );
    }
    for (const { election } of replicas) await closing(clock, election.close());
    expect(model.leases, `seed ${seed}: leases left after closing`).toEqual([]);
  }
});

test('a retrieval shows each leader in turn and never an older one', async () => {
  const { clock, model, replicas } = cluster('a', 'b');
  const retrieval = WatchedLeaderRetrieval.start({
    coordination: model.client(),
    keys: testKeys,
    clock,
    log: silentLogger,
  });
  open.push(retrieval);
  const seen: (bigint | undefined)[] = [];
  retrieval.subscribe((leader) => seen.push(leader?.token));
  await clock.advance(100);
  const [leader] = leadersOf(replicas);
  expect(retrieval.current()).toMatchObject({ replicaId: leader?.name, restUrl: `http://${leader?.name}:8081` });
  leader?.contender.leadership?.abdicate('test');
  await clock.advance(100);
  const [next] = leadersOf(replicas);
  expect(next?.name).not.toBe(leader?.name);
  expect(seen).toEqual([undefined, leader?.contender.tokens[0], undefined, next?.contender.tokens[0]]);
});
