import { expect, test } from 'vitest';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel, type ModelCall } from '../coordination/etcd-model.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { TermReads } from './term-reads.ts';

const keys = new ClusterKeys('test');

function world() {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const calls: ModelCall['kind'][] = [];
  model.intercept = ({ kind }) => void calls.push(kind);
  const direct = model.client();
  const reads = new TermReads(model.client(), keys, clock, silentLogger);
  const put = (key: string, value: string) => reads.txn({ guards: [], then: [{ kind: 'put', key, value }] });
  return { clock, model, direct, reads, calls, put };
}

test('a new leader reads the pointers of hundreds of jobs with five listings', async () => {
  const { reads, calls, put } = world();
  const jobs = Array.from({ length: 300 }, (_, i) => String(i).padStart(32, '0') as never);
  for (const job of jobs) {
    await put(keys.job(job), 'job');
    for (const id of [1, 2, 3]) await put(keys.checkpoint(job, id), `checkpoint ${id}`);
  }
  calls.length = 0;
  reads.begin();
  expect((await reads.list(keys.jobs)).entries).toHaveLength(300);
  for (const job of jobs) {
    expect((await reads.get(keys.job(job)))?.value).toBe('job');
    expect((await reads.list(keys.checkpoints(job))).entries.map(({ value }) => value)).toEqual([
      'checkpoint 1',
      'checkpoint 2',
      'checkpoint 3',
    ]);
    expect(await reads.get(keys.counter(job))).toBeUndefined();
  }
  expect(calls).toEqual(['list', 'list', 'list', 'list', 'list']);
});

test('what this leader has written, or may have, is asked of the store', async () => {
  const { clock, reads, model, put } = world();
  await put('test/checkpoints/a/1', 'old');
  reads.begin();
  await reads.list(keys.allCheckpoints);
  model.intercept = (call) => (call.kind === 'txn' ? { kind: 'failAfter' } : undefined);
  const unknown = put('test/checkpoints/a/2', 'new').catch(() => undefined);
  model.intercept = undefined;
  await clock.advance(2_000);
  expect((await reads.list('test/checkpoints/a/')).entries).toHaveLength(2);
  expect((await reads.get('test/checkpoints/a/2'))?.value).toBe('new');
  await unknown;
});

test('a write that is sent while the pointers are still being listed is not hidden by the listing', async () => {
  const { clock, reads, model } = world();
  model.intercept = (call) => (call.kind === 'list' ? { kind: 'delay', requestMs: 0, answerMs: 500 } : undefined);
  reads.begin();
  await clock.advance(100);
  await reads.txn({ guards: [], then: [{ kind: 'put', key: 'test/jobs/a', value: 'x' }] });
  await clock.advance(1_000);
  expect((await reads.get('test/jobs/a'))?.value).toBe('x');
});

test('outside a term, after a while, and for other keys, the store is asked', async () => {
  const { clock, reads, direct, calls, put } = world();
  await put('test/jobs/a', 'old');
  reads.begin();
  await reads.list(keys.jobs);
  reads.end();
  await direct.txn({ guards: [], then: [{ kind: 'put', key: 'test/jobs/a', value: 'new' }] });
  expect((await reads.get('test/jobs/a'))?.value).toBe('new');
  reads.begin();
  await reads.list(keys.jobs);
  calls.length = 0;
  await reads.get(keys.leader);
  await reads.list(keys.replicas);
  expect(calls).toEqual(['get', 'list']);
  await clock.advance(15_000);
  await direct.txn({ guards: [], then: [{ kind: 'put', key: 'test/jobs/a', value: 'newest' }] });
  expect((await reads.get('test/jobs/a'))?.value).toBe('newest');
});

test('a listing that fails leaves every read to itself', async () => {
  const { reads, model, put } = world();
  await put('test/jobs/a', 'x');
  model.intercept = () => ({ kind: 'failBefore' });
  reads.begin();
  await expect(reads.get('test/jobs/a')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  model.intercept = undefined;
  expect((await reads.get('test/jobs/a'))?.value).toBe('x');
});

test('under random writes a term reads exactly what the store holds', async () => {
  const random = new SeededRandom(7);
  const names = ['jobs/a', 'jobs/ab', 'jobs/b', 'checkpoints/a/1', 'checkpoints/a/2', 'checkpoints/ab/1', 'counters/a'];
  const prefixes = [
    'jobs/',
    'checkpoints/',
    'checkpoints/a/',
    'checkpoints/ab/',
    'checkpoints/x/',
    'counters/',
    'results/',
  ];
  const pick = (of: readonly string[]) => `test/${of[random.int(of.length)]}`;
  const { reads, direct } = world();
  for (let i = 0; i < 2_000; i++) {
    const dice = random.next();
    if (dice < 0.05) reads.begin();
    else if (dice < 0.06) reads.end();
    else if (dice < 0.2) await reads.txn({ guards: [], then: [{ kind: 'put', key: pick(names), value: String(i) }] });
    else if (dice < 0.25) await reads.txn({ guards: [], then: [{ kind: 'delete', key: pick(names) }] });
    else if (dice < 0.28) await reads.txn({ guards: [], then: [{ kind: 'deletePrefix', prefix: pick(prefixes) }] });
    else if (dice < 0.6) {
      const key = pick(names);
      expect(await reads.get(key)).toEqual(await direct.get(key));
    } else {
      const prefix = pick(prefixes);
      expect((await reads.list(prefix)).entries).toEqual((await direct.list(prefix)).entries);
    }
  }
  await reads.close();
});
