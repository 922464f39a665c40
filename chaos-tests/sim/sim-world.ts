import type { ModelCall, ModelFault } from '../../ha/coordination/etcd-model.ts';
import { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import { type Random, SeededRandom } from '../../src/kernel/random.ts';
import { Ambushes } from './ambushes.ts';
import { CommittedOutput } from './engine/committed-output.ts';
import { DataPlane } from './engine/data-plane.ts';
import { ObservedEtcd } from './observed-etcd.ts';
import { ObservedObjects } from './observed-objects.ts';
import type { SightingName, Sightings, Violation } from './sightings.ts';
import type { SimConfig } from './sim-config.ts';
import { CALM, SimNetwork } from './sim-network.ts';
import type { ObjectCall, ObjectFate } from './sim-objects.ts';
import { SimProcess, WALL_ORIGIN_MS } from './sim-process.ts';
import { Trace } from './trace.ts';
import { VirtualTime } from './virtual-time.ts';

export const ETCD_HOST = 'etcd';
export const OBJECTS_HOST = 's3';
export const CLUSTER_ID = 'sim';

/** What all processes of one run share: time, network, stores, the outside world, and those who watch. */
export class SimWorld {
  readonly time = new VirtualTime();
  readonly trace: Trace;
  readonly random: Random;
  readonly network: SimNetwork;
  readonly etcd: ObservedEtcd;
  readonly objects: ObservedObjects;
  readonly output = new CommittedOutput();
  readonly plane: DataPlane;
  readonly keys = new ClusterKeys(CLUSTER_ID);
  readonly ambushes: Ambushes;
  readonly violations: Violation[] = [];
  readonly processes = new Map<string, SimProcess>();
  /** Who believes now to lead, and under which token. */
  believers: () => readonly { readonly name: string; readonly token: FencingToken }[] = () => [];
  /** Until then things go wrong. */
  healed = false;
  /** From then on input is read fast, so that jobs end. */
  hurry = false;
  etcdAway: 'no' | 'hangs' | 'refuses' | 'loses-answers' = 'no';
  objectsAway: 'no' | 'refuses' | 'loses-answers' = 'no';
  /** The object store's clock against the world's, so that everything in it may be made old. */
  objectClockOffsetMs = 0;
  private readonly watchers = new Map<SightingName, unknown[]>();
  private incarnations = 0;

  constructor(
    readonly config: SimConfig,
    recording: boolean,
  ) {
    this.trace = new Trace(this.time, recording);
    this.random = new SeededRandom(config.seed * 31 + 7);
    this.network = new SimNetwork(this.time, new SeededRandom(config.seed * 31 + 8), this.trace);
    this.network.noise = config.noise;
    this.network.strict = config.strict;
    this.network.onCall = (call) => {
      this.trace.event(call.from.name, `-> ${call.method}`, call.to);
      this.ambushes.met(call.from, `call ${call.method}`);
    };
    this.ambushes = new Ambushes(this);
    this.etcd = new ObservedEtcd(
      { clock: worldClock(this.time), minTtlMs: config.minTtlMs, expiryLagMs: config.expiryLagMs },
      this.keys.leader,
      {
        fate: (call) => this.etcdFate(call),
        changed: (set, writer, transaction, leaderBefore) => {
          this.trace.event(writer ?? 'etcd', 'change', String(set.revision), () =>
            set.changes.map((change) => (change.kind === 'put' ? `+${change.entry.key}` : `-${change.key}`)).join(' '),
          );
          this.tell('changed', { set, writer, transaction, leaderBefore });
        },
      },
    );
    this.objects = new ObservedObjects(
      worldClock(this.time, () => this.objectClockOffsetMs),
      (key) => this.tell('objectDeleted', key),
    );
    this.plane = new DataPlane(this.network);
    this.output.onCommit = (...sighting) => {
      this.trace.event('output', 'commit', sighting[1].id);
      this.tell('outputCommitted', ...sighting);
    };
  }

  /** A new process on a host. */
  spawn(host: string): SimProcess {
    const n = ++this.incarnations;
    const traits = {
      clockRate: 1 + 0.002 * (this.random.next() - 0.5),
      clockOriginMs: Math.floor(this.random.next() * 1e6),
      wallOffsetMs: Math.floor((this.random.next() - 0.5) * 4_000),
    };
    const seed = this.config.seed * 1_000 + n;
    const process = new SimProcess(this.time, this.trace, `${host}.${n}`, host, seed, traits);
    this.processes.set(process.name, process);
    return process;
  }

  watch(watcher: Partial<Sightings>): void {
    for (const [name, look] of Object.entries(watcher)) {
      const looks = this.watchers.get(name as SightingName) ?? [];
      looks.push(look);
      this.watchers.set(name as SightingName, looks);
    }
  }

  tell<N extends SightingName>(name: N, ...sighting: Parameters<Sightings[N]>): void {
    for (const look of this.watchers.get(name) ?? [])
      (look as (...sighting: Parameters<Sightings[N]>) => void)(...sighting);
  }

  violated(invariant: number, message: string): void {
    // One is enough to fail, a few to understand.
    if (this.violations.length < 5) this.violations.push({ invariant, atMs: this.time.nowMs, message });
    this.trace.notable('CHECKER', `VIOLATION of invariant ${invariant}: ${message}`);
  }

  /** From now on everything works. */
  heal(): void {
    this.healed = true;
    this.etcdAway = 'no';
    this.objectsAway = 'no';
    this.etcd.electLeader();
    this.network.noise = { ...CALM, latencyMs: this.config.noise.latencyMs };
    this.ambushes.clear();
    this.network.mendAll();
    this.trace.notable('world', 'HEALED');
  }

  objectFate(process: SimProcess, call: ObjectCall): ObjectFate {
    const { random, config, network } = this;
    const subject = call.key.slice(call.key.lastIndexOf('/') + 1);
    this.trace.event(process.name, `object ${call.kind}`, call.key);
    this.ambushes.met(process, `object ${call.kind} ${objectKind(call.key, subject)}`);
    const slowMs = this.healed ? 2 : config.objectSlowMs;
    const fate = { requestMs: slowMs * random.next(), answerMs: slowMs * random.next() };
    if (network.isCut(process.host, OBJECTS_HOST) || network.isCut(OBJECTS_HOST, process.host))
      return { requestMs: 0, answerMs: 800, fails: 'before' };
    if (this.healed) return { ...fate, fails: 'no' };
    if (this.objectsAway !== 'no')
      return { ...fate, answerMs: 20, fails: this.objectsAway === 'refuses' ? 'before' : 'after' };
    if (random.next() >= config.objectErrorChance) return { ...fate, fails: 'no' };
    const kinds = ['before', 'after', 'late'] as const;
    return { requestMs: fate.requestMs, answerMs: 300 * random.next(), fails: kinds[random.int(3)] ?? 'before' };
  }

  private etcdFate(call: ModelCall): ModelFault | undefined {
    const { network } = this;
    const process = this.processes.get(call.client);
    const host = process?.host ?? 'c';
    const writes = call.transaction?.then.some((op) => op.kind !== 'get') ?? false;
    const lateMs =
      process && writes
        ? this.ambushes.met(process, `txn ${this.kindOfTransaction(call.transaction?.then ?? [])}`)
        : undefined;
    if (process?.dead) return { kind: 'hang' };
    const cutThere = network.isCut(host, ETCD_HOST);
    const cutBack = network.isCut(ETCD_HOST, host);
    if (call.kind === 'watch' || call.kind === 'watchEvents') return this.watchFate(host, cutThere || cutBack);
    this.trace.event(call.client, `etcd ${call.kind}`, call.subject);
    if (lateMs !== undefined) return { kind: 'delay', requestMs: lateMs, answerMs: 1 };
    if (cutThere) return { kind: 'hang' };
    if (cutBack) return { kind: 'delay', requestMs: 1, answerMs: 1e9 };
    switch (this.etcdAway) {
      case 'hangs':
        return { kind: 'hang' };
      case 'refuses':
        return { kind: 'failBefore' };
      case 'loses-answers':
        return this.random.next() < 0.5 ? { kind: 'failAfter' } : { kind: 'failBefore' };
      default:
        break;
    }
    const there = network.fate(host, ETCD_HOST);
    const back = network.fate(ETCD_HOST, host);
    if (there.lost) return this.random.next() < 0.5 ? { kind: 'hang' } : { kind: 'failBefore' };
    if (back.lost)
      return this.random.next() < 0.5
        ? { kind: 'failAfter' }
        : { kind: 'delay', requestMs: there.latencyMs, answerMs: 1e9 };
    return { kind: 'delay', requestMs: there.latencyMs, answerMs: back.latencyMs };
  }

  private watchFate(host: string, cut: boolean): ModelFault {
    if (cut || this.etcdAway !== 'no') return { kind: 'failBefore' };
    const back = this.network.fate(ETCD_HOST, host);
    if (back.lost) return { kind: 'failBefore' };
    // Now and then news is very late, without a sign.
    const lateMs = !this.healed && this.random.next() < 0.01 ? 2_000 * this.random.next() : 0;
    return { kind: 'delay', requestMs: back.latencyMs, answerMs: lateMs };
  }

  private kindOfTransaction(
    ops: readonly { readonly kind: string; readonly key?: string; readonly prefix?: string }[],
  ): string {
    const root = CLUSTER_ID.length + 1;
    return [
      ...new Set(
        ops
          .filter(({ kind }) => kind !== 'get')
          .map(({ kind, key }) => `${kind} ${(key ?? '').slice(root).split('/')[0]}`),
      ),
    ].join('+');
  }
}

function objectKind(key: string, last: string): string {
  if (last.startsWith('metadata')) return 'metadata';
  if (key.startsWith(`${CLUSTER_ID}/savepoints/`)) return 'savepoint';
  if (last.startsWith('graph')) return 'graph';
  if (last.startsWith('details')) return 'details';
  return key.includes('/state/') ? 'state' : 'other';
}

/** For what is no process: stores. */
function worldClock(time: VirtualTime, offsetMs: () => number = () => 0): Clock {
  return {
    nowMs: () => time.nowMs,
    wallMs: () => WALL_ORIGIN_MS + time.nowMs + offsetMs(),
    schedule: (delayMs, fn) => time.after(delayMs, fn),
  };
}
