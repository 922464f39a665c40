import { parseBoolean, parseDuration, parseDurationOrNever, parseInteger, parseNumber, parseSize } from './values.ts';

/**
 * Every configuration key, its type, default and meaning: the one list from which parsing, the check
 * for unknown keys and docs/configuration.md are made. Flink's names where Flink has the thing.
 */
export interface Option<T> {
  readonly key: string;
  /** As a person would write it in the file; undefined when there is no default. */
  readonly defaultText: string | undefined;
  readonly description: string;
  readonly secret: boolean;
  readonly parse: (text: string) => T;
}

type Text = string | undefined;

function option<T, D extends Text>(
  key: string,
  defaultText: D,
  parse: (text: string) => T,
  description: string,
  secret = false,
): Option<D extends string ? T : T | undefined> {
  return { key, defaultText, description, secret, parse } as Option<D extends string ? T : T | undefined>;
}

const duration = <D extends Text>(key: string, defaultText: D, description: string) =>
  option(key, defaultText, parseDuration, description);
const size = <D extends Text>(key: string, defaultText: D, description: string) =>
  option(key, defaultText, parseSize, description);
const bool = <D extends Text>(key: string, defaultText: D, description: string) =>
  option(key, defaultText, parseBoolean, description);
const text = <D extends Text>(key: string, defaultText: D, description: string) =>
  option(key, defaultText, (value) => value, description);
const secret = (key: string, description: string) =>
  option(key, undefined, (value: string) => value, description, true);
const integer = <D extends Text>(key: string, defaultText: D, min: number, max: number, description: string) =>
  option(key, defaultText, (value) => parseInteger(value, min, max), description);
const port = <D extends Text>(key: string, defaultText: D, description: string) =>
  integer(key, defaultText, 0, 65_535, description);
const number = <D extends Text>(key: string, defaultText: D, min: number, max: number, description: string) =>
  option(key, defaultText, (value) => parseNumber(value, min, max), description);

function choice<const C extends readonly string[], D extends C[number] | undefined>(
  key: string,
  defaultText: D,
  choices: C,
  description: string,
): Option<D extends string ? C[number] : C[number] | undefined> {
  const parse = (value: string): C[number] => {
    if (!choices.includes(value)) throw new Error(`"${value}" is not one of ${choices.join(', ')}`);
    return value;
  };
  return {
    key,
    defaultText,
    description: `${description} One of: ${choices.join(', ')}.`,
    secret: false,
    parse,
  } as never;
}

export const OPTIONS = {
  clusterId: text(
    'high-availability.cluster-id',
    'default',
    'Names the cluster in the stores; two clusters may share them.',
  ),
  haType: choice(
    'high-availability.type',
    'embedded',
    ['embedded', 'etcd'],
    'Where masters coordinate: a local LMDB file shared by processes of one machine, or etcd.',
  ),
  storageDir: text(
    'high-availability.storageDir',
    undefined,
    'Object store for job graphs, jars, checkpoints: `s3://bucket/prefix` or `file:/dir`. Default: a folder inside `high-availability.embedded.dir` (embedded only).',
  ),
  embeddedDir: text('high-availability.embedded.dir', '.millrace', 'Folder of the embedded coordination file.'),
  etcdEndpoints: text(
    'high-availability.etcd.endpoints',
    undefined,
    'All etcd members, comma separated: `http://host:2379,…`.',
  ),
  etcdUsername: text('high-availability.etcd.username', undefined, 'etcd user, when it asks for one.'),
  etcdPassword: secret('high-availability.etcd.password', 'Password of that user.'),
  etcdCaFile: text('high-availability.etcd.tls.ca-file', undefined, 'PEM file with the CA of etcd; switches TLS on.'),
  etcdCertFile: text('high-availability.etcd.tls.cert-file', undefined, 'PEM client certificate for etcd.'),
  etcdKeyFile: text('high-availability.etcd.tls.key-file', undefined, 'PEM key of the client certificate.'),
  leaseTtlMs: duration('high-availability.lease-ttl', '2 s', 'How long a silent leader keeps leadership.'),
  leaseMarginMs: duration(
    'high-availability.lease-margin',
    '500 ms',
    'A leader suspends itself this long before its lease could expire.',
  ),
  leasePatienceMs: duration(
    'high-availability.lease-patience',
    undefined,
    'How long a leader whose event loop is blocked keeps its lease (etcd only: a thread renews it). Default: `heartbeat.timeout` less `high-availability.lease-ttl` less 500 ms, so that a new leader comes before workers give up; at least the lease’s TTL.',
  ),
  fastTakeover: bool(
    'high-availability.fast-takeover',
    'true',
    'A standby that finds the leader’s process gone takes over at once, instead of when the lease has expired.',
  ),
  fastTakeoversPerMinute: integer(
    'high-availability.fast-takeover.max-per-minute',
    '10',
    1,
    100_000,
    'More such takeovers within a minute switch them off for a minute, with an alert.',
  ),
  s3Endpoint: text('s3.endpoint', undefined, 'URL of an S3-compatible server; AWS when absent.'),
  s3Region: text('s3.region', 'us-east-1', 'Region to sign for.'),
  s3AccessKey: secret('s3.access-key', 'Access key; the default provider chain of AWS when absent.'),
  s3SecretKey: secret('s3.secret-key', 'Secret key.'),
  s3PathStyle: bool('s3.path.style.access', 'true', 'Bucket in the path instead of the host name.'),

  replicaId: text(
    'jobmanager.id',
    undefined,
    'Name of this master, unique in the cluster. Default: host name and pid.',
  ),
  internalTls: bool(
    'security.ssl.internal.enabled',
    'false',
    'Mutual TLS on the internal ports: control RPC and data. Masters and workers need the three files below.',
  ),
  internalCertFile: text('security.ssl.internal.cert-file', undefined, 'PEM certificate of this process.'),
  internalKeyFile: text('security.ssl.internal.key-file', undefined, 'PEM key of that certificate.'),
  internalCaFile: text(
    'security.ssl.internal.ca-file',
    undefined,
    'PEM file with the CA of this cluster. Whoever shows a certificate of it belongs to the cluster, under whatever name.',
  ),

  jobmanagerBindHost: text('jobmanager.bind-host', '127.0.0.1', 'Address the control RPC of a master listens on.'),
  jobmanagerAddress: text('jobmanager.rpc.address', '127.0.0.1', 'Host under which workers reach this master.'),
  jobmanagerPort: port(
    'jobmanager.rpc.port',
    '6123',
    'Port of the control RPC; 0 takes a free one of 20000 to 29999, below the ports of outgoing connections.',
  ),
  restBindAddress: text('rest.bind-address', '127.0.0.1', 'Address that REST and the dashboard listen on.'),
  restAddress: text('rest.address', '127.0.0.1', 'Host under which REST of this master is reached.'),
  restPort: port('rest.port', '8081', 'Port of REST and the dashboard; 0 takes a free one.'),
  restMaxContentBytes: size('rest.server.max-content-length', '100 MiB', 'Largest upload accepted.'),

  failover: choice(
    'jobmaster.failover',
    'adopt',
    ['adopt', 'restart'],
    'What a new leader does with jobs that run: take their tasks over, or begin again from the newest checkpoint.',
  ),
  adoptionTimeoutMs: duration(
    'jobmaster.adoption-timeout',
    '2 s',
    'How long a new leader waits for workers to show what they run; less when all known ones have come or are dead.',
  ),

  taskmanagerId: text(
    'taskmanager.resource-id',
    undefined,
    'Name of this worker, unique. Default: host, pid and a random part.',
  ),
  taskmanagerBindHost: text(
    'taskmanager.bind-host',
    '127.0.0.1',
    'Address that control RPC and data ports of a worker listen on.',
  ),
  taskmanagerHost: text('taskmanager.host', '127.0.0.1', 'Host under which this worker is reached.'),
  taskmanagerRpcPort: port(
    'taskmanager.rpc.port',
    '0',
    'Port of the worker’s control RPC; 0 takes a free one of 20000 to 29999.',
  ),
  taskmanagerDataPort: port(
    'taskmanager.data.port',
    '0',
    'First data port; slot n takes this plus n. 0 takes free ones.',
  ),
  networkCodec: choice(
    'taskmanager.network.codec',
    'columnar',
    ['columnar', 'row'],
    'How records are written between slots: as columns by code generated for their shape, or value by value. Workers read both, whatever they write.',
  ),
  slots: integer('taskmanager.numberOfTaskSlots', '1', 1, 1_024, 'Slots, each with its own thread.'),
  slotHeapBytes: size('taskmanager.memory.slot-heap.size', '512 MiB', 'JavaScript heap of one slot’s thread.'),
  stateHeapFraction: number(
    'taskmanager.memory.state-heap.fraction',
    '0.8',
    0.01,
    1,
    'Part of a slot’s heap that its state may take, by estimate. A task that needs more fails and says so, before the slot runs out of memory.',
  ),
  tmpDir: text(
    'io.tmp.dirs',
    undefined,
    'Folder for caches, state on disk and local copies of checkpoints. Default: a folder in the system’s temporary directory.',
  ),
  cancellationTimeoutMs: duration(
    'task.cancellation.timeout',
    '10 s',
    'A task that has not ended this long after its cancellation is ended with its slot’s thread.',
  ),

  heartbeatIntervalMs: duration('heartbeat.interval', '1 s', 'Between two heartbeats of leader and worker.'),
  heartbeatTimeoutMs: duration('heartbeat.timeout', '5 s', 'Silence after which the other side is given up.'),
  slotRequestTimeoutMs: duration('slot.request.timeout', '5 min', 'How long a job waits for slots.'),
  evenlySpread: bool(
    'cluster.evenly-spread-out-slots',
    'true',
    'Spread a job over all workers instead of filling one after the other.',
  ),

  defaultParallelism: integer('parallelism.default', '1', 1, 32_768, 'Parallelism of operators that set none.'),
  checkpointIntervalMs: duration(
    'execution.checkpointing.interval',
    undefined,
    'Between two checkpoints; none without.',
  ),
  checkpointMode: choice(
    'execution.checkpointing.mode',
    'EXACTLY_ONCE',
    ['EXACTLY_ONCE', 'AT_LEAST_ONCE'],
    'Guarantee.',
  ),
  checkpointTimeoutMs: duration(
    'execution.checkpointing.timeout',
    '10 min',
    'A checkpoint not complete by then is aborted.',
  ),
  checkpointMinPauseMs: duration(
    'execution.checkpointing.min-pause',
    '0 ms',
    'Least time between the end of one and the start of the next.',
  ),
  checkpointMaxConcurrent: integer(
    'execution.checkpointing.max-concurrent-checkpoints',
    '1',
    1,
    100,
    'Checkpoints in progress at once.',
  ),
  unalignedCheckpoints: bool(
    'execution.checkpointing.unaligned.enabled',
    'false',
    'Barriers overtake queued records, which become part of the checkpoint. For EXACTLY_ONCE.',
  ),
  alignedCheckpointTimeoutMs: duration(
    'execution.checkpointing.aligned-checkpoint-timeout',
    '0 ms',
    'With unaligned checkpoints: barriers overtake only when they have waited this long.',
  ),
  tolerableFailedCheckpoints: integer(
    'execution.checkpointing.tolerable-failed-checkpoints',
    '0',
    0,
    1_000_000,
    'Consecutive failed checkpoints borne before the job restarts.',
  ),
  checkpointRetention: choice(
    'execution.checkpointing.externalized-checkpoint-retention',
    'NO_EXTERNALIZED_CHECKPOINTS',
    ['DELETE_ON_CANCELLATION', 'RETAIN_ON_CANCELLATION', 'NO_EXTERNALIZED_CHECKPOINTS'],
    'What happens to checkpoints when a job is cancelled or fails.',
  ),
  checkpointsRetained: integer('state.checkpoints.num-retained', '1', 1, 1_000, 'Completed checkpoints kept.'),
  memoryThresholdBytes: size(
    'state.storage.fs.memory-threshold',
    '20 kb',
    'State smaller than this is kept inside the metadata.',
  ),
  stateBackend: choice(
    'state.backend.type',
    'hashmap',
    ['hashmap', 'lmdb'],
    'Where keyed state is kept, unless the job says: in memory, or in LMDB files below `io.tmp.dirs`, for more than fits into memory. Either restores what the other wrote.',
  ),
  incrementalCheckpoints: bool(
    'state.backend.incremental',
    'false',
    'Checkpoints write only the key groups that have changed and refer to earlier ones for the rest, unless the job says.',
  ),
  lmdbCacheBytes: size(
    'state.backend.lmdb.cache-size',
    '64 MiB',
    'Memory for the state that an operator in one slot uses most, with `lmdb`; at most a quarter of what state may take.',
  ),
  snapshotCompression: choice(
    'execution.checkpointing.snapshot-compression',
    'none',
    ['none', 'gzip', 'lz4'],
    'How keyed state is compressed in checkpoints and savepoints, unless the job says. Restoring needs no setting.',
  ),
  localRecovery: bool(
    'execution.state-recovery.from-local',
    'false',
    'Workers keep a copy of what they wrote for the newest checkpoint below `io.tmp.dirs`, and restore from it if they can, unless the job says.',
  ),
  bufferTimeoutMs: option(
    'execution.buffer-timeout',
    '20 ms',
    parseDurationOrNever,
    'Longest time a record waits in an output buffer. 0 sends each record by itself; -1 sends buffers only when they are full.',
  ),
  latencyIntervalMs: duration(
    'metrics.latency.interval',
    '0 ms',
    'How often sources send a latency marker through the job; 0 never. What operators see of them is among the job’s metrics.',
  ),
  autoWatermarkIntervalMs: duration(
    'pipeline.auto-watermark-interval',
    '200 ms',
    'How often a job says how far event time is; 0 only at the end of the data.',
  ),
  recoveryFallback: choice(
    'execution.recovery.fallback',
    'none',
    ['none', 'previous', 'fresh'],
    'When the newest checkpoint cannot be read: wait and retry, take the one before, or start empty.',
  ),

  restartStrategy: choice(
    'restart-strategy.type',
    undefined,
    ['none', 'fixed-delay', 'exponential-delay', 'failure-rate'],
    'What follows a failure. Default: exponential-delay with checkpoints, none without.',
  ),
  fixedDelayAttempts: integer(
    'restart-strategy.fixed-delay.attempts',
    '1',
    0,
    2_147_483_647,
    'Restarts before the job fails.',
  ),
  fixedDelayMs: duration('restart-strategy.fixed-delay.delay', '1 s', 'Wait before each restart.'),
  exponentialInitialMs: duration('restart-strategy.exponential-delay.initial-backoff', '1 s', 'First wait.'),
  exponentialMaxMs: duration('restart-strategy.exponential-delay.max-backoff', '1 min', 'Longest wait.'),
  exponentialMultiplier: number(
    'restart-strategy.exponential-delay.backoff-multiplier',
    '1.5',
    1,
    100,
    'Each wait is the last one times this.',
  ),
  exponentialResetMs: duration(
    'restart-strategy.exponential-delay.reset-backoff-threshold',
    '1 h',
    'Quiet time after which waits begin small again.',
  ),
  exponentialJitter: number(
    'restart-strategy.exponential-delay.jitter-factor',
    '0.1',
    0,
    1,
    'Random part of each wait.',
  ),
  exponentialAttempts: integer(
    'restart-strategy.exponential-delay.attempts-before-reset-backoff',
    undefined,
    1,
    2_147_483_647,
    'Restarts before the job fails; no limit without.',
  ),
  failureRateMax: integer(
    'restart-strategy.failure-rate.max-failures-per-interval',
    '1',
    1,
    1_000_000,
    'Failures borne per interval.',
  ),
  failureRateIntervalMs: duration('restart-strategy.failure-rate.failure-rate-interval', '1 min', 'That interval.'),
  failureRateDelayMs: duration('restart-strategy.failure-rate.delay', '1 s', 'Wait before each restart.'),

  compiledChains: bool(
    'pipeline.compiled-chains',
    'true',
    'Compile each chain of operators into one function. Off, or where code generation is not allowed, chains are interpreted: slower, with the same results.',
  ),
  programTimeoutMs: duration('client.program.timeout', '10 s', 'Longest time a program may take to build its graph.'),
  historyMax: integer('jobstore.max-capacity', '1000', 1, 100_000, 'Ended jobs remembered.'),
  gcGraceMs: duration('gc.grace', '1 h', 'Age at which an object that nothing points to is removed.'),
  gcIntervalMs: duration('gc.interval', '10 min', 'Between two sweeps for such objects.'),
  logLevel: choice(
    'log.level',
    'info',
    ['debug', 'info', 'warn', 'error', 'silent'],
    'Least severe line that is logged.',
  ),
} as const;

type ValueOf<O> = O extends Option<infer T> ? T : never;

/** All options, parsed and checked; frozen. */
export type Configuration = { readonly [K in keyof typeof OPTIONS]: ValueOf<(typeof OPTIONS)[K]> };
