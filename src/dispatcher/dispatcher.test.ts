import { afterEach, expect, test } from 'vitest';
import { EtcdModel, type ModelFault } from '../../ha/coordination/etcd-model.ts';
import type { Transaction } from '../../ha/coordination/coordination.ts';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { openHaStores } from '../../ha/stores/ha-stores.ts';
import type { TriggerId } from '../contracts/operations.ts';
import type { AttemptReport } from '../contracts/task.ts';
import { NO_IO } from '../contracts/task.ts';
import { MillraceError, UnavailableError } from '../kernel/errors.ts';
import { asFencingToken, type FencingToken, type JarId, type JobId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { Dispatcher } from './dispatcher.ts';
import { graphOf, jobIdOf, ModelJobMasters, ModelPlanner } from './testing/model-peers.ts';

/** Several masters of one cluster over one model of etcd and S3; the test says who leads. */
class Cluster {
  readonly clock = new ManualClock();
  readonly etcd = new EtcdModel({ clock: this.clock });
  readonly objects = new MemoryObjectStore(this.clock);
  readonly keys = this.stores('observer').keys;
  readonly abdications: string[] = [];
  s3Away = false;
  private replicas = 0;

  constructor() {
    this.objects.intercept = () => {
      if (this.s3Away) throw new UnavailableError('S3 is away');
    };
  }

  stores(name: string) {
    const coordination = this.etcd.client({ name });
    const deps = { coordination, objects: this.objects, clock: this.clock, log: silentLogger };
    return openHaStores({ ...deps, random: new SeededRandom(1 + this.replicas++) }, 'test');
  }

  master(historyMax = 100) {
    const name = `master-${this.replicas}`;
    const stores = this.stores(name);
    const masters = new ModelJobMasters();
    const planner = new ModelPlanner();
    const released: JobId[] = [];
    const dispatcher = new Dispatcher(
      {
        clock: this.clock,
        random: new SeededRandom(7),
        log: silentLogger,
        graphs: stores.jobGraphs,
        results: stores.jobResults,
        jars: stores.jars,
        operations: stores.operations,
        savepoints: stores.savepoints,
        planner,
      },
      { historyMax },
    );
    let valid = true;
    const begin = () => {
      const token = this.elect();
      valid = true;
      dispatcher.beginTerm(
        { token, isValid: () => valid, abdicate: (reason) => void this.abdications.push(reason) },
        { jobMasters: masters, listTaskManagers: () => [], releaseJob: async (jobId) => void released.push(jobId) },
      );
      return token;
    };
    const lead = async () => {
      const token = begin();
      await this.clock.advance(1);
      return token;
    };
    const invalidate = () => {
      valid = false;
    };
    return { name, stores, masters, planner, released, dispatcher, begin, lead, invalidate };
  }

  /** Whoever led before is fenced from now on. */
  elect(): FencingToken {
    const { revision } = this.etcd.txn({ guards: [], then: [{ kind: 'put', key: this.keys.leader, value: 'x' }] });
    return asFencingToken(revision);
  }

  /** The next transaction of a master that matches gets this fault. */
  fault(matches: (transaction: Transaction) => boolean, fault: ModelFault, times = 1): void {
    let left = times;
    this.etcd.intercept = ({ transaction }) =>
      transaction !== undefined && left > 0 && matches(transaction) && left-- > 0 ? fault : undefined;
  }

  has(key: string): boolean {
    return this.etcd.get(key) !== undefined;
  }
}

let cluster: Cluster;
const started: { dispatcher: Dispatcher }[] = [];

function newCluster(): Cluster {
  cluster = new Cluster();
  return cluster;
}

afterEach(async () => {
  cluster.etcd.intercept = undefined;
  for (const { dispatcher } of started.splice(0)) await dispatcher.endTerm();
});

function newMaster(historyMax?: number) {
  const master = cluster.master(historyMax);
  started.push(master);
  return master;
}

const code = (code: string) => expect.objectContaining({ code });
const writes = (part: string) => (transaction: Transaction) =>
  transaction.then.some((op) => op.kind === 'put' && op.key.includes(part));

test('a submitted job is durable before it is answered for, and runs', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await expect(a.dispatcher.submitJob(graphOf(1), {})).resolves.toEqual({ jobId: jobIdOf(1), outcome: 'created' });
  expect(cluster.has(cluster.keys.job(jobIdOf(1)))).toBe(true);
  expect(a.masters.of(jobIdOf(1)).graph).toEqual(graphOf(1));
});

test('the same job id or idempotency key gives the same job, once, at once or later, here or after a failover', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  const answers = await Promise.all([
    a.dispatcher.submitJob(graphOf(1), { idempotencyKey: 'k' }),
    a.dispatcher.submitJob(graphOf(1), { idempotencyKey: 'k' }),
    a.dispatcher.submitJob(graphOf(2), { idempotencyKey: 'k' }),
  ]);
  expect(answers.map((one) => one.jobId)).toEqual([jobIdOf(1), jobIdOf(1), jobIdOf(1)]);
  expect(answers.filter((one) => one.outcome === 'created')).toHaveLength(1);
  const b = newMaster();
  await b.lead();
  await expect(b.dispatcher.submitJob(graphOf(3), { idempotencyKey: 'k' })).resolves.toEqual({
    jobId: jobIdOf(1),
    outcome: 'duplicate',
  });
  b.masters.of(jobIdOf(1)).end('FINISHED');
  await cluster.clock.advance(1);
  await expect(b.dispatcher.submitJob(graphOf(1), {})).resolves.toEqual({ jobId: jobIdOf(1), outcome: 'duplicate' });
  expect([a.masters.all.length, b.masters.all.length]).toEqual([1, 1]);
});

test('nothing is accepted by a master that does not lead, is suspended, doubts its lease, or is still recovering', async () => {
  newCluster();
  const a = newMaster();
  const refuses = () => expect(a.dispatcher.submitJob(graphOf(1), {})).rejects.toEqual(code('NOT_LEADER'));
  await refuses();
  cluster.etcd.intercept = (call) => (call.kind === 'list' ? { kind: 'failBefore' } : undefined);
  const token = a.begin();
  await cluster.clock.advance(1_000);
  await refuses();
  await expect(a.dispatcher.updateTaskState(reportOf(1), token)).rejects.toEqual(code('NOT_LEADER'));
  cluster.etcd.intercept = undefined;
  await cluster.clock.advance(10_000);
  await a.dispatcher.submitJob(graphOf(2), {});
  a.dispatcher.suspend();
  await refuses();
  await expect(a.dispatcher.listJobs()).rejects.toEqual(code('NOT_LEADER'));
  await expect(a.dispatcher.updateTaskState(reportOf(1), token)).rejects.toEqual(code('NOT_LEADER'));
  a.dispatcher.resume();
  a.invalidate();
  await refuses();
  await a.dispatcher.endTerm();
  await refuses();
  expect(cluster.has(cluster.keys.job(jobIdOf(1)))).toBe(false);
});

test('with S3 away a submission is refused, nothing is stored, and the master goes on', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  cluster.s3Away = true;
  await expect(a.dispatcher.submitJob(graphOf(1), {})).rejects.toEqual(code('UNAVAILABLE'));
  expect(cluster.has(cluster.keys.job(jobIdOf(1)))).toBe(false);
  cluster.s3Away = false;
  await expect(a.dispatcher.submitJob(graphOf(1), {})).resolves.toMatchObject({ outcome: 'created' });
});

test('a submission whose answer was lost is read back and answered', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  cluster.fault(writes('/jobs/'), { kind: 'failAfter' });
  const answer = a.dispatcher.submitJob(graphOf(1), {});
  await cluster.clock.advance(5_000);
  await expect(answer).resolves.toMatchObject({ outcome: 'created' });
  expect(a.masters.all).toHaveLength(1);
});

test('a submission of which the outcome stays unknown says so, and if it took effect the job runs', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  cluster.fault(writes('/jobs/'), { kind: 'failAfter' }, 100);
  const answer = expect(a.dispatcher.submitJob(graphOf(1), {})).rejects.toEqual(code('UNKNOWN_OUTCOME'));
  await cluster.clock.advance(30_000);
  await answer;
  expect(a.masters.of(jobIdOf(1)).graph.name).toBe('job 1');
});

/** Stored, its client told of doubt, and its leader between two tries to list what is stored. */
async function doubtfulSubmission(submit: (a: ReturnType<typeof newMaster>) => Promise<unknown>) {
  newCluster();
  const a = newMaster();
  await a.lead();
  cluster.etcd.intercept = ({ kind, transaction }) => {
    if (kind === 'list') return { kind: 'failBefore' };
    return transaction !== undefined && writes('/jobs/')(transaction) ? { kind: 'failAfter' } : undefined;
  };
  const answer = expect(submit(a)).rejects.toEqual(code('UNKNOWN_OUTCOME'));
  await cluster.clock.advance(30_000);
  await answer;
  return a;
}

test('a job that a repeated submission was answered with is known from the answer on, for every request', async () => {
  const a = await doubtfulSubmission((master) => master.dispatcher.submitJob(graphOf(1), {}));
  await expect(a.dispatcher.requestJob(jobIdOf(1))).rejects.toEqual(code('NOT_FOUND')); // Nobody was promised it yet.
  cluster.etcd.intercept = undefined;
  const savepoint = { triggerId: 'a'.repeat(32) as TriggerId };
  const asked = a.dispatcher.submitJob(graphOf(1), {}).then(async (answer) => {
    const requests = [
      a.dispatcher.requestJob(jobIdOf(1)),
      a.dispatcher.triggerSavepoint(jobIdOf(1), savepoint),
      a.dispatcher.cancelJob(jobIdOf(1)),
    ];
    return [answer, ...(await Promise.allSettled(requests)).map((one) => ('reason' in one ? one.reason.code : 'ok'))];
  });
  // The job may still be being read: then the savepoint is to be asked for again.
  expect(await asked).toEqual([
    { jobId: jobIdOf(1), outcome: 'duplicate' },
    'ok',
    expect.not.stringMatching('NOT_FOUND'),
    'ok',
  ]);
  await cluster.clock.advance(1);
  expect(a.masters.of(jobIdOf(1)).graph.name).toBe('job 1');
});

test('a repeated submission that finds its job stored, and cannot look it up, is not told that nothing is stored', async () => {
  const a = await doubtfulSubmission((master) => master.dispatcher.submitJob(graphOf(1), {}));
  await expect(a.dispatcher.submitJob(graphOf(1), {})).rejects.toEqual(code('UNKNOWN_OUTCOME'));
  cluster.etcd.intercept = undefined;
  await expect(a.dispatcher.submitJob(graphOf(1), {})).resolves.toMatchObject({ outcome: 'duplicate' });
});

test('a jar that is run again under its key is answered with a job that is known', async () => {
  const request = { programArgs: [], entryClass: 'WordCount', allowNonRestoredState: false, idempotencyKey: 'k' };
  let jarId: JarId | undefined;
  const a = await doubtfulSubmission(async ({ dispatcher }) => {
    jarId = (await dispatcher.uploadJar('word count.mjs', new TextEncoder().encode('WordCount'))).id;
    return dispatcher.runJar(jarId, request);
  });
  cluster.etcd.intercept = undefined;
  const { jobId, outcome } = await a.dispatcher.runJar(jarId as JarId, request);
  expect(outcome).toBe('duplicate');
  await expect(a.dispatcher.requestJob(jobId)).resolves.toMatchObject({ jobId });
});

test('a submission that takes effect long after it was given up is found and runs', async () => {
  newCluster();
  const a = newMaster();
  const token = await a.lead();
  // As if a packet had been on its way: the store takes it, and nobody is told.
  const other = cluster.stores('slow packet');
  await other.jobGraphs.submit(graphOf(1), token, {});
  expect(a.masters.all).toHaveLength(0);
  await cluster.clock.advance(31_000);
  expect(a.masters.of(jobIdOf(1)).graph.name).toBe('job 1');
});

test('a new leader recovers every job that has no result, with its wish to cancel', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  for (const n of [1, 2, 3]) await a.dispatcher.submitJob(graphOf(n), {});
  a.masters.of(jobIdOf(3)).end('FINISHED');
  await cluster.clock.advance(1);
  await a.dispatcher.cancelJob(jobIdOf(2));
  expect(a.masters.of(jobIdOf(2)).cancelled).toBe(true);
  const b = newMaster();
  await b.lead();
  expect(b.masters.all.map((one) => [one.jobId, one.cancelRequested])).toEqual([
    [jobIdOf(1), false],
    [jobIdOf(2), true],
  ]);
  const listed = await b.dispatcher.listJobs();
  expect(listed.map((one) => [one.name, one.status]).sort()).toEqual([
    ['job 1', 'RUNNING'],
    ['job 2', 'RUNNING'],
    ['job 3', 'FINISHED'],
  ]);
});

test('a job that has a result is never run again, whatever else is still stored of it', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  const record = cluster.etcd.get(cluster.keys.job(jobIdOf(1)));
  a.masters.of(jobIdOf(1)).end('FINISHED');
  await cluster.clock.advance(1);
  // As if the two had not changed together.
  const key = cluster.keys.job(jobIdOf(1));
  cluster.etcd.txn({ guards: [], then: [{ kind: 'put', key, value: record?.value ?? '' }] });
  const b = newMaster();
  await b.lead();
  await cluster.clock.advance(60_000);
  expect(b.masters.all).toEqual([]);
  expect((await b.dispatcher.listJobs()).map((one) => one.status)).toEqual(['FINISHED']);
});

test('a leader whose term ends at once leaves no JobMaster behind', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  for (let n = 1; n <= 20; n++) await a.dispatcher.submitJob(graphOf(n), {});
  const b = newMaster();
  b.begin();
  const ended = b.dispatcher.endTerm();
  await cluster.clock.advance(100);
  await ended;
  expect(b.masters.live).toEqual([]);
  // Ended in the midst of reading graphs.
  const slow = newMaster();
  let reads = 0;
  cluster.objects.intercept = async () => {
    if (++reads > 5) await new Promise((resolve) => void cluster.clock.schedule(100, () => resolve(undefined)));
  };
  slow.begin();
  await cluster.clock.advance(50);
  const slowEnded = slow.dispatcher.endTerm();
  await cluster.clock.advance(1_000);
  await slowEnded;
  expect(slow.masters.live).toEqual([]);
  expect(slow.masters.all.every((one) => !one.cancelled)).toBe(true);
  cluster.objects.intercept = undefined;
  const c = newMaster();
  await c.lead();
  expect(c.masters.live).toHaveLength(20);
});

test('one corrupt job does not stop the others, is shown with its reason, is retried, and is not deleted', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  for (const n of [1, 2, 3]) await a.dispatcher.submitJob(graphOf(n), {});
  const graphs: string[] = [];
  for await (const { key } of cluster.objects.list(cluster.keys.jobObjects(jobIdOf(2)))) graphs.push(key);
  const [key = ''] = graphs;
  const good = await cluster.objects.get(key);
  await cluster.objects.put(key, new Uint8Array(good.length));
  const b = newMaster();
  const token = await b.lead();
  expect(b.masters.live.map((one) => one.jobId)).toEqual([jobIdOf(1), jobIdOf(3)]);
  const shown = await b.dispatcher.requestJob(jobIdOf(2));
  expect(shown.waitingFor).toContain('digest');
  expect(shown.exceptions.root?.message).toContain('digest');
  expect(['FINISHED', 'FAILED', 'CANCELED']).not.toContain(shown.status);
  // Its workers must wait, not end their tasks, and keep its slots; those of the others are their masters' to claim.
  expect([1, 2, 3, 4].map((n) => b.dispatcher.awaitsMaster(jobIdOf(n)))).toEqual([false, true, false, false]);
  await expect(b.dispatcher.updateTaskState(reportOf(2), token)).rejects.toEqual(code('UNAVAILABLE'));
  await cluster.clock.advance(60_000);
  expect(cluster.has(cluster.keys.job(jobIdOf(2)))).toBe(true);
  await cluster.objects.put(key, good); // Somebody restores the object.
  await cluster.clock.advance(15_000);
  expect(b.masters.of(jobIdOf(2)).graph.name).toBe('job 2');
});

test('a corrupt job that is cancelled ends as canceled, before or after a failover, and workers are told', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  for (const n of [1, 2]) await a.dispatcher.submitJob(graphOf(n), {});
  for (const n of [1, 2])
    for await (const { key } of cluster.objects.list(cluster.keys.jobObjects(jobIdOf(n))))
      await cluster.objects.put(key, new Uint8Array(3));
  const b = newMaster();
  await b.lead();
  await b.dispatcher.cancelJob(jobIdOf(1));
  await cluster.clock.advance(100);
  expect((await b.dispatcher.requestJob(jobIdOf(1))).status).toBe('CANCELED');
  expect(b.released).toEqual([jobIdOf(1)]);
  await b.stores.jobGraphs.requestCancel(
    jobIdOf(2),
    asFencingToken(cluster.etcd.get(cluster.keys.leader)?.modRevision ?? 0n),
  );
  const c = newMaster();
  await c.lead();
  await cluster.clock.advance(100);
  expect((await c.dispatcher.listJobs()).map((one) => one.status)).toEqual(['CANCELED', 'CANCELED']);
  expect(c.masters.all).toEqual([]);
});

test('a cancel while S3 keeps a job from being read is obeyed once it can be read', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  cluster.s3Away = true;
  const b = newMaster();
  await b.lead();
  await b.dispatcher.cancelJob(jobIdOf(1));
  await cluster.clock.advance(5_000);
  expect(cluster.has(cluster.keys.job(jobIdOf(1)))).toBe(true);
  cluster.s3Away = false;
  await cluster.clock.advance(15_000);
  expect(b.masters.of(jobIdOf(1)).cancelRequested).toBe(true);
});

test('a cancel while a job is being read by a new leader is not forgotten', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  cluster.objects.intercept = () =>
    new Promise((resolve) => void cluster.clock.schedule(500, () => resolve(undefined)));
  const b = newMaster();
  await b.lead();
  expect((await b.dispatcher.requestJob(jobIdOf(1))).status).toBe('INITIALIZING');
  await b.dispatcher.cancelJob(jobIdOf(1));
  await cluster.clock.advance(1_000);
  expect(b.masters.of(jobIdOf(1)).cancelRequested).toBe(true);
});

test('a cancel is durable before it is acted upon', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  cluster.fault(writes('/cancels/'), { kind: 'failBefore' });
  await expect(a.dispatcher.cancelJob(jobIdOf(1))).rejects.toEqual(code('UNAVAILABLE'));
  expect(a.masters.of(jobIdOf(1)).cancelled).toBe(false);
  await a.dispatcher.cancelJob(jobIdOf(1));
  await a.dispatcher.cancelJob(jobIdOf(1)); // Idempotent.
  expect(a.masters.of(jobIdOf(1)).cancelled).toBe(true);
});

test('a cancel that is repeated after a failover, its answer lost, is answered although the job has ended', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  await a.dispatcher.cancelJob(jobIdOf(1));
  a.masters.of(jobIdOf(1)).end('CANCELED');
  await cluster.clock.advance(100);
  await a.dispatcher.cancelJob(jobIdOf(1));
  const b = newMaster();
  await b.lead();
  await b.dispatcher.cancelJob(jobIdOf(1));
});

test('cancelling a job that has ended is a conflict, one that never was is not found', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  a.masters.of(jobIdOf(1)).end('FAILED');
  await cluster.clock.advance(100);
  await expect(a.dispatcher.cancelJob(jobIdOf(1))).rejects.toEqual(code('CONFLICT'));
  await expect(a.dispatcher.cancelJob(jobIdOf(9))).rejects.toEqual(code('NOT_FOUND'));
  await expect(a.dispatcher.requestJob(jobIdOf(9))).rejects.toEqual(code('NOT_FOUND'));
});

test('an end is shown once it is durable, survives the stores being away, and is then cleaned up', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  cluster.s3Away = true;
  a.masters.of(jobIdOf(1)).end('FINISHED');
  await cluster.clock.advance(5_000);
  expect((await a.dispatcher.requestJob(jobIdOf(1))).status).toBe('RUNNING');
  expect((await a.dispatcher.listJobs())[0]?.status).toBe('RUNNING');
  cluster.s3Away = false;
  await cluster.clock.advance(30_000);
  expect(await a.dispatcher.requestJob(jobIdOf(1))).toMatchObject({ status: 'FINISHED', name: 'job 1' });
  expect(await a.stores.jobResults.list()).toMatchObject([{ dirty: false }]);
  expect(a.masters.live).toEqual([]);
});

test('a leader that dies between the result and its clean-up is followed by one that cleans up', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  cluster.etcd.intercept = ({ client, transaction }) =>
    client === a.name && transaction?.then.some((op) => op.kind === 'put' && op.value.includes('"dirty":false'))
      ? { kind: 'failBefore' }
      : undefined;
  a.masters.of(jobIdOf(1)).end('CANCELED');
  await cluster.clock.advance(1_000);
  expect(await a.stores.jobResults.list()).toMatchObject([{ status: 'CANCELED', dirty: true }]);
  const b = newMaster();
  await b.lead();
  await cluster.clock.advance(100);
  expect(await b.stores.jobResults.list()).toMatchObject([{ status: 'CANCELED', dirty: false }]);
  expect(b.masters.all).toEqual([]);
});

test('a clean-up that fails half-way is tried again until nothing is left of the job', async () => {
  newCluster();
  const a = newMaster();
  const token = await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  await a.stores.checkpoints.counter(jobIdOf(1)).next(token);
  const removesCounter = ({ then }: Transaction) =>
    then.some((op) => op.kind === 'delete' && op.key.includes('counter'));
  cluster.fault(removesCounter, { kind: 'failBefore' }, 3);
  a.masters.of(jobIdOf(1)).end('FINISHED');
  await cluster.clock.advance(60_000);
  const left: string[] = [];
  for await (const { key } of cluster.objects.list('test/jobs/')) left.push(key);
  expect(left.filter((key) => key.includes('graph'))).toEqual([]);
  expect(cluster.has(cluster.keys.counter(jobIdOf(1)))).toBe(false);
  expect((await a.stores.jobResults.list()).map(({ dirty }) => dirty)).toEqual([false]);
});

test('a fenced leader gives up, answers so, and what it tried is not visible', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  const b = newMaster();
  await b.lead();
  await expect(a.dispatcher.submitJob(graphOf(2), {})).rejects.toEqual(code('FENCED'));
  await expect(a.dispatcher.cancelJob(jobIdOf(1))).rejects.toEqual(code('FENCED'));
  await expect(a.dispatcher.uploadJar('x.mjs', new TextEncoder().encode('main'))).rejects.toEqual(code('FENCED'));
  a.masters.of(jobIdOf(1)).end('FAILED');
  await cluster.clock.advance(1_000);
  expect(cluster.abdications.length).toBeGreaterThanOrEqual(4);
  expect((await b.dispatcher.listJobs()).map((one) => [one.jobId, one.status])).toEqual([[jobIdOf(1), 'RUNNING']]);
  expect(await b.dispatcher.listJars()).toEqual([]);
  expect(b.masters.of(jobIdOf(1)).cancelled).toBe(false);
});

test('a job whose JobMaster does not start is promised all the same, shown, and retried', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  a.masters.failure = new MillraceError('INTERNAL', 'no such strategy');
  await expect(a.dispatcher.submitJob(graphOf(1), {})).resolves.toMatchObject({ outcome: 'created' });
  expect((await a.dispatcher.requestJob(jobIdOf(1))).waitingFor).toContain('no such strategy');
  a.masters.failure = undefined;
  await cluster.clock.advance(1_000);
  expect(a.masters.of(jobIdOf(1)).graph.name).toBe('job 1');
});

test('suspending and resuming reach every JobMaster, those started meanwhile included', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  const b = newMaster();
  b.begin();
  b.dispatcher.suspend();
  await cluster.clock.advance(100);
  expect(b.masters.of(jobIdOf(1)).suspended).toBe(true);
  b.dispatcher.resume();
  expect(b.masters.of(jobIdOf(1)).suspended).toBe(false);
});

test('reports of workers reach their JobMaster; only jobs that are certainly nobody’s are unknown', async () => {
  newCluster();
  const a = newMaster();
  const token = await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  await expect(a.dispatcher.updateTaskState(reportOf(1), token)).resolves.toEqual({ known: true });
  expect(a.masters.of(jobIdOf(1)).reports).toHaveLength(1);
  await expect(a.dispatcher.updateTaskState(reportOf(9), token)).resolves.toEqual({ known: false });
  await expect(a.dispatcher.updateTaskState(reportOf(1), asFencingToken(1n))).rejects.toEqual(code('NOT_LEADER'));
});

test('ended jobs beyond the history are forgotten, oldest first, with all that they left', async () => {
  newCluster();
  const a = newMaster(2);
  await a.lead();
  for (const n of [1, 2, 3, 4]) {
    await a.dispatcher.submitJob(graphOf(n), { idempotencyKey: `k${n}` });
    a.masters.of(jobIdOf(n)).end('FINISHED');
    await cluster.clock.advance(1_000);
  }
  expect((await a.dispatcher.listJobs()).map((one) => one.name)).toEqual(['job 4', 'job 3']);
  await expect(a.dispatcher.requestJob(jobIdOf(1))).rejects.toEqual(code('NOT_FOUND'));
  const left: string[] = [];
  for await (const { key } of cluster.objects.list('test/jobs/')) left.push(key.split('/')[2] ?? '');
  expect(left.sort()).toEqual([jobIdOf(3), jobIdOf(4)]);
  await expect(a.dispatcher.submitJob(graphOf(1), { idempotencyKey: 'k1' })).resolves.toMatchObject({
    outcome: 'created',
  });
});

test('a jar is uploaded, listed, planned, run once per key, and deleted; its running job keeps the bundle', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  const jar = await a.dispatcher.uploadJar('word count.mjs', new TextEncoder().encode('WordCount'));
  expect(jar.id).toMatch(/^[0-9a-f-]{36}_word_count\.mjs$/);
  expect(await a.dispatcher.listJars()).toEqual([jar]);
  const request = { programArgs: ['--x'], entryClass: 'WordCount', allowNonRestoredState: false };
  const run = await a.dispatcher.runJar(jar.id, { ...request, idempotencyKey: 'k' });
  const again = await a.dispatcher.runJar(jar.id, { ...request, idempotencyKey: 'k' });
  expect(again).toEqual({ jobId: run.jobId, outcome: 'duplicate' });
  expect(a.planner.plans).toBe(1);
  const named = await a.dispatcher.runJar(jar.id, { ...request, jobId: jobIdOf(5) });
  await expect(a.dispatcher.runJar(jar.id, { ...request, jobId: jobIdOf(5) })).resolves.toEqual({
    ...named,
    outcome: 'duplicate',
  });
  await expect(a.dispatcher.runJar(jar.id, { ...request, entryClass: 'Nope' })).rejects.toEqual(code('PROGRAM'));
  await a.dispatcher.deleteJar(jar.id);
  await expect(a.dispatcher.runJar(jar.id, request)).rejects.toEqual(code('NOT_FOUND'));
  await expect(a.dispatcher.deleteJar(jar.id)).rejects.toEqual(code('NOT_FOUND'));
  const { bundle } = a.masters.of(run.jobId).graph;
  expect(bundle.kind === 'object' && (await cluster.objects.size(bundle.objectKey))).toBe(9);
});

test('uploaded jars are there, and run, under the next leader and after its sweep', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  const jar = await a.dispatcher.uploadJar('word count.mjs', new TextEncoder().encode('WordCount'));
  const b = newMaster();
  const token = await b.lead();
  await cluster.clock.advance(24 * 3_600_000);
  await b.stores.sweeper({ graceMs: 3_600_000, intervalMs: 3_600_000 }).sweep(token);
  expect(await b.dispatcher.listJars()).toEqual([jar]);
  const request = { programArgs: [], entryClass: 'WordCount', allowNonRestoredState: false };
  const { jobId } = await b.dispatcher.runJar(jar.id, request);
  expect(b.masters.of(jobId).graph.bundle).toMatchObject({ kind: 'object' });
  const { objectKey } = b.masters.of(jobId).graph.bundle as { objectKey: string };
  expect(new TextDecoder().decode(await cluster.objects.get(objectKey))).toBe('WordCount');
});

test('a jar that does not load, or whose name is a path, is refused and leaves nothing', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  const upload = (name: string, text: string) => a.dispatcher.uploadJar(name, new TextEncoder().encode(text));
  await expect(upload('bad.mjs', 'bad')).rejects.toEqual(code('PROGRAM'));
  for (const name of ['../x.mjs', 'a/b.mjs', 'a\\b.mjs', '..', '', ' ', 'a\u0000b', 'x'.repeat(256)])
    await expect(upload(name, 'main')).rejects.toEqual(code('INVALID_ARGUMENT'));
  expect(await a.dispatcher.listJars()).toEqual([]);
  const left: string[] = [];
  for await (const { key } of cluster.objects.list('')) left.push(key);
  expect(left).toEqual([]);
});

function reportOf(n: number): AttemptReport {
  const id = (character: string) => character.repeat(32) as never;
  return {
    jobId: jobIdOf(n),
    deployment: '1-1' as never,
    vertexId: id('a'),
    subtaskIndex: 0,
    attemptId: id('b'),
    attemptNumber: 0,
    allocationId: id('c'),
    state: 'RUNNING',
    endOfData: false,
    io: NO_IO,
  };
}

test('a request under way when leadership ends is to be repeated: the job is not said to be unknown', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  const triggerId = 'a'.repeat(32) as TriggerId;
  const savepoint = a.dispatcher.triggerSavepoint(jobIdOf(1), { triggerId });
  const ended = a.dispatcher.endTerm();
  await expect(savepoint).rejects.toEqual(code('NOT_LEADER'));
  await ended;
});

test('a savepoint that was stored with a lost answer is taken once its client asks again', async () => {
  newCluster();
  const a = newMaster();
  await a.lead();
  await a.dispatcher.submitJob(graphOf(1), {});
  const triggerId = 'a'.repeat(32) as TriggerId;
  cluster.fault(writes('operations/'), { kind: 'failAfter' }, 20);
  const asked = a.dispatcher.triggerSavepoint(jobIdOf(1), { triggerId });
  const refused = expect(asked).rejects.toEqual(code('UNKNOWN_OUTCOME'));
  await cluster.clock.advance(10_000);
  await refused;
  cluster.etcd.intercept = undefined;
  expect(a.masters.of(jobIdOf(1)).operations).toEqual([]);
  expect(await a.dispatcher.triggerSavepoint(jobIdOf(1), { triggerId })).toBe(triggerId);
  expect(a.masters.of(jobIdOf(1)).operations).toMatchObject([{ triggerId }]);
});
