import type { JobGraph } from '../../src/contracts/job-graph.ts';
import { JOB_GRAPH_FORMAT } from '../../src/contracts/job-graph.ts';
import type { StopMode } from '../../src/contracts/checkpoint.ts';
import type { TriggerId } from '../../src/contracts/operations.ts';
import { asJobId, asOperatorId, asVertexId, type JobId } from '../../src/kernel/ids.ts';
import { type Random, SeededRandom } from '../../src/kernel/random.ts';
import { WALL_ORIGIN_MS } from './sim-process.ts';
import type { SimSplit } from './engine/records.ts';
import type { NetworkNoise } from './sim-network.ts';

/** One schedule's cluster and jobs, all from its seed. */
export interface SimConfig {
  readonly seed: number;
  readonly masters: number;
  readonly workers: number;
  readonly slots: number;
  readonly leaseTtlMs: number;
  /** Of a call to etcd. */
  readonly etcdDeadlineMs: number;
  readonly minTtlMs: number;
  readonly expiryLagMs: number;
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly slotRequestTimeoutMs: number;
  readonly cancelTimeoutMs: number;
  readonly spreadOut: boolean;
  readonly fastTakeover: boolean;
  readonly failover: 'adopt' | 'restart';
  readonly adoptionTimeoutMs: number;
  /** How often a probe of the leader's process lies. */
  readonly probeLieChance: number;
  readonly noise: NetworkNoise;
  readonly objectErrorChance: number;
  readonly objectSlowMs: number;
  readonly worldErrorChance: number;
  /** Small: state goes to objects; large: it travels inline. */
  readonly memoryThresholdBytes: number;
  readonly incremental: boolean;
  readonly strict: boolean;
  readonly recordMs: number;
  readonly healAtMs: number;
  readonly faults: number;
  /** One write stays in doubt for longer than it is asked about. */
  readonly longDoubt: boolean;
  readonly jobs: readonly SimJob[];
}

export interface SimJob {
  readonly graph: JobGraph;
  readonly records: number;
  readonly submitAtMs: number;
  readonly idempotencyKey: string | undefined;
  /** Submitted once more, at the same time to another master; without its key, if it has one and `keyless`. */
  readonly twice: boolean;
  readonly keyless: boolean;
  /** Submitted once more when it has run a while, or ended. */
  readonly againAtMs: number | undefined;
  /** After its submission was answered. */
  readonly cancelAtMs: number | undefined;
  /** Savepoints and stops, after its submission was answered. */
  readonly operations: readonly SimOperation[];
  /** It goes on from the savepoint with which this one has stopped; it is not submitted when that did not succeed. */
  readonly after: JobId | undefined;
}

/** Something that a client asks for under a trigger id of its own choice, and asks about until it has its result. */
export interface SimOperation {
  readonly triggerId: TriggerId;
  readonly atMs: number;
  readonly wish:
    | { readonly kind: 'SAVEPOINT'; readonly stop?: StopMode; readonly cancelJob?: true }
    | { readonly kind: 'CHECKPOINT'; readonly full: boolean };
  /** Asked for once more, at the same time of another master. */
  readonly twice: boolean;
}

/** With a deadline of 300 ms a write is asked about for 3.5 to 4 s. */
export const DOUBT_MS = 4_000;

export function makeConfig(seed: number): SimConfig {
  const random = new SeededRandom(seed);
  const chance = (p: number) => random.next() < p;
  const between = (a: number, b: number) => a + (b - a) * random.next();
  const pick = <T>(...items: readonly T[]): T => items[random.int(items.length)] as T;
  const noisy = chance(0.5);
  const workers = pick(2, 2, 3);
  const slots = pick(1, 2, 2, 3);
  const faults = random.int(10);
  // Room for what is to go wrong, and no more: time in which nothing does shows what other schedules show, too.
  const longDoubt = chance(0.04);
  const healAtMs = 1_500 + faults * between(150, 450) + (longDoubt ? 1.5 * DOUBT_MS : 0);
  return {
    seed,
    masters: pick(2, 2, 3),
    workers,
    slots,
    leaseTtlMs: pick(600, 1_000, 1_500),
    etcdDeadlineMs: longDoubt ? 300 : pick(300, 1_000),
    minTtlMs: chance(0.3) ? pick(1_000, 2_000) : 0,
    expiryLagMs: chance(0.5) ? between(0, 500) : 0,
    heartbeatIntervalMs: pick(200, 300, 500),
    heartbeatTimeoutMs: pick(1_000, 1_500, 2_000),
    slotRequestTimeoutMs: pick(4_000, 30_000),
    cancelTimeoutMs: pick(500, 1_500),
    spreadOut: chance(0.5),
    fastTakeover: chance(0.7),
    failover: pick('adopt', 'adopt', 'restart'),
    adoptionTimeoutMs: pick(300, 1_000, 2_000),
    probeLieChance: chance(0.3) ? between(0, 0.4) : 0,
    noise: {
      latencyMs: pick(0.5, 2, 10),
      spikeChance: noisy ? between(0, 0.05) : 0,
      spikeMs: pick(50, 300, 1_500),
      lossChance: noisy ? between(0, 0.03) : 0,
      duplicateChance: noisy ? between(0, 0.03) : 0,
    },
    objectErrorChance: chance(0.4) ? between(0, 0.08) : 0,
    objectSlowMs: chance(0.3) ? pick(20, 100, 400) : 3,
    worldErrorChance: chance(0.3) ? between(0, 0.1) : 0,
    memoryThresholdBytes: pick(0, 0, 60, 20_480),
    incremental: chance(0.5),
    strict: chance(0.02),
    recordMs: pick(20, 50, 120),
    healAtMs,
    faults,
    longDoubt,
    jobs: Array.from({ length: pick(1, 1, 2, 3) }, (_, n) => makeJob(random, n, workers, slots, healAtMs)).flat(),
  };
}

/** A job, and what goes on from it. */
function makeJob(random: Random, n: number, workers: number, slots: number, healAtMs: number): SimJob[] {
  const chance = (p: number) => random.next() < p;
  const pick = <T>(...items: readonly T[]): T => items[random.int(items.length)] as T;
  const jobId = asJobId(random.hex(16));
  const parallelism = Math.max(1, Math.min(pick(1, 2, 2, 3), (workers - 1) * slots));
  const splits = pick(1, 2, 3);
  const cancelAtMs = chance(0.15) ? random.next() * healAtMs : undefined;
  // One that is to be cancelled does not end by itself first.
  const length = () => (10 + random.int(80)) * (cancelAtMs === undefined ? 1 : 1_000);
  const lengths = Array.from({ length: splits }, length);
  const otherEnd = length();
  const shape = pick('two', 'two', 'three', 'one', 'join');
  const operations = chance(0.35)
    ? Array.from({ length: pick(1, 1, 2, 3) }, () => makeOperation(random, healAtMs))
    : [];
  const graph = graphOf(random, jobId, n, { parallelism, lengths, otherEnd, shape });
  const job: SimJob = {
    graph,
    records: lengths.reduce((a, b) => a + b, 0) + (shape === 'join' ? splits * otherEnd : 0),
    submitAtMs: random.next() * 800 + (chance(0.2) ? random.next() * healAtMs * 0.7 : 0),
    idempotencyKey: chance(0.3) ? `key-${n}` : undefined,
    ...{ twice: chance(0.25), keyless: chance(0.5) },
    againAtMs: chance(0.3) ? random.next() * healAtMs * 1.3 : undefined,
    cancelAtMs,
    operations,
    after: undefined,
  };
  const stops = operations.some(({ wish }) => wish.kind === 'SAVEPOINT' && wish.stop === 'SUSPEND');
  if (!stops || cancelAtMs !== undefined || chance(0.3)) return [job];
  const claimMode = pick('CLAIM', 'NO_CLAIM');
  return [
    job,
    {
      ...job,
      // Which object is known when the job has stopped.
      graph: {
        ...graph,
        jobId: asJobId(random.hex(16)),
        restoreFrom: { metadataKey: UNKNOWN_YET, allowNonRestoredState: false, claimMode },
      },
      ...{ idempotencyKey: undefined, twice: chance(0.2), againAtMs: undefined, cancelAtMs: undefined, operations: [] },
      after: jobId,
    },
  ];
}

const UNKNOWN_YET = 'unknown-yet';

function makeOperation(random: Random, healAtMs: number): SimOperation {
  const coin = random.next();
  const wish: SimOperation['wish'] =
    coin < 0.4
      ? { kind: 'SAVEPOINT' }
      : coin < 0.65
        ? { kind: 'SAVEPOINT', stop: 'SUSPEND' }
        : coin < 0.75
          ? { kind: 'SAVEPOINT', stop: 'DRAIN' }
          : coin < 0.85
            ? { kind: 'SAVEPOINT', cancelJob: true }
            : { kind: 'CHECKPOINT', full: random.next() < 0.5 };
  return {
    ...{ triggerId: random.hex(16) as TriggerId, atMs: random.next() * healAtMs * 0.6 },
    ...{ wish, twice: random.next() < 0.3 },
  };
}

interface Shape {
  readonly parallelism: number;
  /** Of the splits of the first source. */
  readonly lengths: readonly number[];
  /** Of each split of the second. */
  readonly otherEnd: number;
  readonly shape: 'one' | 'two' | 'three' | 'join';
}

function graphOf(random: Random, jobId: JobGraph['jobId'], n: number, shape: Shape): JobGraph {
  const pick = <T>(...items: readonly T[]): T => items[random.int(items.length)] as T;
  const { parallelism } = shape;
  const id = (digit: number) => `${n}${digit}`.repeat(16);
  const splits = (from: number): SimSplit[] =>
    // Of different lengths, so that some tasks finish early.
    shape.lengths.map((end, i) => ({ split: from + i, next: 0, end: from === 0 ? end : shape.otherEnd }));
  const operator = (digit: number, kind: string, more: object = {}) => ({
    ...{ id: asOperatorId(id(digit)), name: kind, kind, inputs: [] },
    ...more,
  });
  const vertex = (digit: number, width: number, operators: JobGraph['vertices'][number]['operators']) => ({
    ...{ id: asVertexId(id(digit)), name: operators.map(({ kind }) => kind).join('-'), parallelism: width },
    ...{ maxParallelism: 8, slotSharingGroup: 'default', operators },
  });
  const edge = (source: number, target: number, partitioner: JobGraph['edges'][number]['partitioner'], input = 0) => ({
    ...{ id: `${source}-${target}`, source: asVertexId(id(source)), sourceOperator: asOperatorId(id(source)) },
    ...{ target: asVertexId(id(target)), targetOperator: asOperatorId(id(target)), inputIndex: input, partitioner },
  });
  const sink = (digit: number) => operator(digit, 'sink', { twoPhaseCommit: true });
  const source = (digit: number, from: number, width: number) =>
    vertex(digit, width, [operator(digit, 'source', { splits: splits(from) })]);
  const wide = pick(1, parallelism);
  const parts: Pick<JobGraph, 'vertices' | 'edges'> =
    shape.shape === 'one'
      ? // Each split has keys of its own, so counting needs no exchange: as many regions as subtasks.
        { vertices: [vertex(1, parallelism, [operator(1, 'source', { splits: splits(0) }), sink(5)])], edges: [] }
      : shape.shape === 'two'
        ? {
            vertices: [source(1, 0, wide), vertex(3, parallelism, [operator(3, 'count'), sink(5)])],
            edges: [edge(1, 3, 'HASH')],
          }
        : shape.shape === 'three'
          ? {
              vertices: [
                source(1, 0, parallelism),
                vertex(3, parallelism, [operator(3, 'count')]),
                vertex(5, wide, [sink(5)]),
              ],
              edges: [edge(1, 3, 'HASH'), edge(3, 5, wide === parallelism ? 'FORWARD' : 'REBALANCE')],
            }
          : {
              vertices: [
                source(1, 0, wide),
                source(2, shape.lengths.length, wide),
                vertex(3, parallelism, [operator(3, 'count'), sink(5)]),
              ],
              edges: [edge(1, 3, 'HASH'), edge(2, 3, 'HASH', 1)],
            };
  return {
    formatVersion: JOB_GRAPH_FORMAT,
    jobId,
    name: `job ${n}`,
    ...parts,
    config: {
      checkpointing: {
        intervalMs: pick(150, 300, 700),
        mode: 'EXACTLY_ONCE',
        timeoutMs: pick(600, 1_500, 4_000),
        minPauseMs: pick(0, 0, 50),
        maxConcurrent: pick(1, 1, 2, 3),
        tolerableFailedCheckpoints: pick(0, 3, 100),
        numRetained: pick(1, 1, 2, 3),
        externalizedRetention: pick('NO_EXTERNALIZED_CHECKPOINTS', 'DELETE_ON_CANCELLATION', 'RETAIN_ON_CANCELLATION'),
        unaligned: false,
        alignedTimeoutMs: 0,
      },
      restartStrategy: pick(
        { type: 'fixed-delay', attempts: 1_000_000, delayMs: pick(0, 50, 300) },
        {
          ...{ type: 'exponential-delay', initialBackoffMs: 50, maxBackoffMs: 1_000, backoffMultiplier: 2 },
          ...{ resetBackoffThresholdMs: 5_000, jitterFactor: 0.1 },
        },
      ),
      bufferTimeoutMs: 20,
      recoveryFallback: 'none',
      userConfig: { keys: String(pick(1, 3, 8)) },
    },
    bundle: { kind: 'inline', programId: 'sim' },
    fingerprint: `f${n}`,
    submittedWallMs: WALL_ORIGIN_MS,
  };
}
