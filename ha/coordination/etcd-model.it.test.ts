import { afterAll, beforeAll, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { toErrorInfo } from '../../src/kernel/errors.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { type Random, SeededRandom, SystemRandom } from '../../src/kernel/random.ts';
import { compactEtcd } from '../../test-support/compact-etcd.ts';
import { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { until } from '../../test-support/until.ts';
import type { Coordination, Entry, Guard, Op, Revision, WatchEvent } from './coordination.ts';
import { EtcdCoordination } from './etcd-coordination.ts';
import { EtcdModel } from './etcd-model.ts';

/**
 * The model that simulations stand on, against etcd itself: the same random operations on both must give the
 * same answers, but for where the revisions begin and what leases are called. `MILLRACE_MODEL_OPS=20000` for
 * more than the few hundred of every day.
 */
const OPERATIONS = Number(process.env.MILLRACE_MODEL_OPS ?? 400);
const SEED = Number(process.env.MILLRACE_MODEL_SEED ?? 1);
const COMPACT_EVERY = 90;
const EXPIRE_EVERY = 190;
const KEYS = ['a', 'a/1', 'a/2', 'b', 'b/1', 'c'];

let cluster: EtcdCluster;

beforeAll(async () => {
  cluster = await EtcdCluster.start();
});

afterAll(() => cluster?.close());

/** One of the two stores, with its own names for what both have. */
class Side {
  readonly leases: string[] = [];
  readonly events: string[] = [];

  constructor(
    readonly store: Coordination,
    /** Of the store before the first operation. */
    readonly origin: Revision,
  ) {}

  revision(revision: Revision): string {
    return revision === 0n ? '0' : `+${revision - this.origin}`;
  }

  entry(entry: Entry | undefined): string {
    if (entry === undefined) return '-';
    const lease = entry.lease === undefined ? '' : ` lease ${this.leases.indexOf(entry.lease)}`;
    return `${entry.key}=${entry.value} ${this.revision(entry.createRevision)}..${this.revision(entry.modRevision)}${lease}`;
  }

  /** What a watch from the beginning is told first. */
  async firstEvent(): Promise<string> {
    const events: WatchEvent[] = [];
    const watch = this.store.watch('', this.origin, (event) => events.push(event));
    const event = await until('the first event of a watch', () => events.find(({ kind }) => kind !== 'disconnected'));
    await watch.close();
    if (event.kind !== 'reset') return event.kind;
    const { entries, revision } = event.listing;
    return `reset ${this.revision(revision)} ${entries.map((entry) => this.entry(entry)).join(', ')}`;
  }

  event(event: WatchEvent): void {
    if (event.kind === 'put') this.events.push(`${this.revision(event.revision)} put ${this.entry(event.entry)}`);
    if (event.kind === 'delete') this.events.push(`${this.revision(event.revision)} delete ${event.key}`);
  }
}

type PlannedOp = Exclude<Op, { kind: 'put' }> | { kind: 'put'; key: string; value: string; lease: number | undefined };
type Step =
  | { readonly kind: 'get' | 'list'; readonly key: string }
  | {
      readonly kind: 'txn';
      readonly guards: readonly [string, number][];
      readonly then: PlannedOp[];
      readonly otherwise: PlannedOp[];
    }
  | { readonly kind: 'grant' }
  | { readonly kind: 'keepAlive' | 'revoke'; readonly lease: number };

function drawStep(random: Random, leases: number): Step {
  const key = () => KEYS[random.int(KEYS.length)] as string;
  const op = (taken: Set<string>): PlannedOp => {
    const one = key();
    const coin = random.int(10);
    if (coin < 3) return { kind: 'get', key: one };
    if (coin === 3) return { kind: 'deletePrefix', prefix: random.int(2) === 0 ? 'a/' : 'c' };
    if (coin < 6 || taken.has(one)) return { kind: 'delete', key: one };
    taken.add(one);
    return {
      kind: 'put',
      key: one,
      value: `v${random.int(1_000)}`,
      lease: random.int(3) > 0 ? undefined : random.int(leases + 1),
    };
  };
  const ops = () => {
    const taken = new Set<string>();
    return Array.from({ length: random.int(4) }, () => op(taken));
  };
  const coin = random.int(20);
  if (coin < 2) return { kind: 'get', key: key() };
  if (coin < 4) return { kind: 'list', key: random.int(3) === 0 ? '' : key() };
  if (coin === 4) return { kind: 'grant' };
  if (coin < 7 && leases > 0) return { kind: coin === 5 ? 'keepAlive' : 'revoke', lease: random.int(leases) };
  const guards = Array.from({ length: random.int(3) }, (): [string, number] => [key(), random.int(4)]);
  return { kind: 'txn', guards, then: ops(), otherwise: ops() };
}

async function play(side: Side, step: Step): Promise<string> {
  const { store, leases } = side;
  const real = (op: PlannedOp): Op => {
    if (op.kind !== 'put') return op;
    const { lease, ...rest } = op;
    const id = lease === undefined ? undefined : leases[lease];
    return id === undefined ? rest : { ...rest, lease: id };
  };
  try {
    switch (step.kind) {
      case 'get':
        return side.entry(await store.get(step.key));
      case 'list': {
        const { entries, revision } = await store.list(step.key);
        return `${side.revision(revision)} ${entries.map((entry) => side.entry(entry)).join(', ')}`;
      }
      case 'grant': {
        const { id, grantedTtlMs } = await store.grantLease(36_000_000);
        leases.push(id);
        return `granted ${grantedTtlMs}`;
      }
      case 'keepAlive':
        return `alive ${(await store.keepAlive(leases[step.lease] ?? '')).ttlMs}`;
      case 'revoke':
        await store.revokeLease(leases[step.lease] ?? '');
        return 'revoked';
      case 'txn': {
        const guards: Guard[] = [];
        // The present revision, none, or one of the past.
        for (const [key, what] of step.guards) {
          const present = (await store.get(key))?.modRevision ?? 0n;
          guards.push({ key, modRevision: what < 2 ? present : what === 2 ? 0n : side.origin });
        }
        const result = await store.txn({ guards, then: step.then.map(real), otherwise: step.otherwise.map(real) });
        return `${result.succeeded} ${side.revision(result.revision)} ${result.reads.map((entry) => side.entry(entry)).join(', ')}`;
      }
    }
  } catch (error) {
    return toErrorInfo(error).code;
  }
}

async function putUnderShortLease({ store, leases }: Side, keys: readonly string[]): Promise<void> {
  const { id } = await store.grantLease(1_000);
  leases.push(id);
  await store.txn({ guards: [], then: keys.map((key) => ({ kind: 'put', key, value: 'short', lease: id })) });
}

const isNone = (entry: Entry | undefined) => entry === undefined;

test('random operations have the same answers and the same watch events in the model as in etcd', async () => {
  // The model's time passes when it is told to.
  const clock = new ManualClock();
  const etcd = new EtcdCoordination(
    { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger },
    { endpoints: cluster.endpoints, namespace: '/model/' },
  );
  const store = new EtcdModel({ clock, minTtlMs: 1_000 });
  const model = store.client();
  const sides = await Promise.all([etcd, model].map(async (store) => new Side(store, (await store.list('')).revision)));
  const [real, modelled] = sides as [Side, Side];
  for (const side of sides) side.store.watch('a', side.origin, (event) => side.event(event));
  const random = new SeededRandom(SEED);
  let granted = 0;
  for (let i = 0; i < OPERATIONS; i++) {
    const step = drawStep(random, granted);
    if (step.kind === 'grant') granted++;
    const [expected, given] = [await play(real, step), await play(modelled, step)];
    expect(given, `operation ${i} of seed ${SEED}: ${JSON.stringify(step)}`).toBe(expected);
    if (i % COMPACT_EVERY === COMPACT_EVERY - 1) {
      // Those that have kept up are not disturbed, and one that asks for what is gone begins anew.
      await until('all watch events of etcd', () => real.events.length >= modelled.events.length);
      await compactEtcd(cluster, (await etcd.list('')).revision);
      store.compact();
      expect(await modelled.firstEvent(), `compacted after operation ${i} of seed ${SEED}`).toBe(
        await real.firstEvent(),
      );
    }
    if (i % EXPIRE_EVERY === EXPIRE_EVERY - 1) {
      granted++;
      const keys = KEYS.filter(() => random.int(2) === 0);
      for (const side of sides) await putUnderShortLease(side, keys);
      await clock.advance(2_000);
      // When it expires is etcd's to say; what goes with it, and in which revision, is not.
      await until('a lease to expire', async () => (await Promise.all(keys.map((key) => etcd.get(key)))).every(isNone));
      const list: Step = { kind: 'list', key: '' };
      expect(await play(modelled, list), `expired after operation ${i} of seed ${SEED}`).toBe(await play(real, list));
    }
  }
  await until('all watch events of etcd', () => real.events.length >= modelled.events.length);
  expect(modelled.events.length).toBeGreaterThan(OPERATIONS / 20);
  expect(modelled.events).toEqual(real.events);
  for (const side of sides) await side.store.close();
});
