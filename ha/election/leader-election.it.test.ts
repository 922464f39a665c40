import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { until } from '../../test-support/until.ts';
import { sharedEtcd } from '../../test-support/vitest-shared.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { createCoordination } from '../coordination/create-coordination.ts';
import { ClusterKeys } from '../stores/cluster-keys.ts';
import { startReplica } from './election.fixture.ts';
import { WatchedLeaderRetrieval } from './leader-retrieval.ts';

const clock = new SystemClock();
const random = new SystemRandom();
const deps = { clock, random, log: silentLogger };
const closers: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Replicas with a client each, as separate processes have. */
function electionOn(connect: () => Promise<Coordination>) {
  const keys = new ClusterKeys(`election-${random.hex(4)}`);
  const replicas: ReturnType<typeof startReplica>[] = [];
  const start = async (name: string) => {
    const coordination = await connect();
    const replica = startReplica({ coordination, clock, keys }, name);
    closers.push(() => coordination.close());
    closers.push(() => replica.election.close());
    replicas.push(replica);
    return replica;
  };
  const leaders = () => replicas.filter((one) => one.contender.leadership?.isValid() === true);
  const leader = (not?: string) =>
    until('a leader', () => leaders().find((one) => one.name !== not), { timeoutMs: 15_000, everyMs: 2 });
  return { keys, start, leader, leaders };
}

function electionRules(connect: () => Promise<Coordination>): void {
  test('one of three leads; when it closes another leads at once, when that falls silent the third after the TTL', async () => {
    const { keys, start, leader, leaders } = electionOn(connect);
    for (const name of ['a', 'b', 'c']) await start(name);
    const looking = await connect();
    const retrieval = WatchedLeaderRetrieval.start({ coordination: looking, keys, clock, log: silentLogger });
    closers.push(
      () => looking.close(),
      () => retrieval.close(),
    );
    const tokens: bigint[] = [];
    retrieval.subscribe((info) => info !== undefined && tokens.push(info.token));

    const first = await leader();
    await until('the retrieval', () => retrieval.current()?.replicaId === first.name);
    const handedOverMs = performance.now();
    await first.election.close();
    const second = await leader(first.name);
    // Half the TTL is generous for a loaded machine and still proves that nobody waited for it.
    expect(performance.now() - handedOverMs).toBeLessThan(1_000);

    await second.coordination.close(); // Not a word more from it, as after SIGKILL.
    const third = await leader(second.name);
    expect(leaders()).toEqual([third]);
    expect(second.contender.leads).toBe(false);
    await until('the retrieval', () => retrieval.current()?.replicaId === third.name);
    expect(tokens).toEqual([...tokens].sort((x, y) => Number(x - y)));
    expect(new Set(tokens).size).toBe(3);
  });

  test('a leader keeps its term while nothing happens, longer than several TTLs', async () => {
    const { start, leader } = electionOn(connect);
    await start('a');
    await start('b');
    const first = await leader();
    const sinceMs = performance.now();
    await until('three TTLs', () => performance.now() - sinceMs > 6_000, { timeoutMs: 20_000 });
    expect(first.contender.calls).toEqual(['granted']);
    expect(first.contender.leadership?.isValid()).toBe(true);
  });
}

describe('on etcd', () => {
  const namespace = `/election-${random.hex(4)}/`;
  electionRules(async () =>
    createCoordination(deps, { type: 'etcd', endpoints: [...(await sharedEtcd()).endpoints], namespace }),
  );

  test('when a member of etcd is killed, its leader included, the leadership stays', async () => {
    const etcd = await EtcdCluster.start();
    closers.push(() => etcd.close());
    const { start, leader } = electionOn(() =>
      createCoordination(deps, { type: 'etcd', endpoints: [...etcd.endpoints], namespace }),
    );
    await start('a');
    await start('b');
    const first = await leader();
    const token = first.contender.leadership?.token;
    await etcd.member(await etcd.leader()).kill();
    await until('the leader to be sure again', () => first.contender.leadership?.isValid() === true);
    const killedMs = performance.now();
    await until('two TTLs', () => performance.now() - killedMs > 4_000, { timeoutMs: 20_000 });
    expect(first.contender.leadership?.isValid()).toBe(true);
    expect(first.contender.tokens).toEqual([token]);
    expect(first.contender.calls).not.toContain('revoked');
  });
});

describe('on the embedded store', () => {
  let folder: string | undefined;
  electionRules(async () => {
    folder ??= await mkdtemp(join(tmpdir(), 'millrace-election-'));
    return createCoordination(deps, { type: 'embedded', directory: join(folder, 'coordination') });
  });
  afterEach(async () => {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    folder = undefined;
  });
});
