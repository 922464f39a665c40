import { expect, test } from 'vitest';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel, type ModelFault } from '../coordination/etcd-model.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { absent, type FencedChange, FencedWriter } from './fenced-writer.ts';

const keys = new ClusterKeys('test');

function setUp() {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const writer = new FencedWriter({
    coordination: model.client({ deadlineMs: 1_000 }),
    keys,
    clock,
    random: new SeededRandom(1),
    log: silentLogger,
  });
  const elect = () =>
    asFencingToken(model.txn({ guards: [], then: [{ kind: 'put', key: keys.leader, value: 'x' }] }).revision);
  /** Faults for the first calls, in order. */
  const faults = (...list: (ModelFault | undefined)[]) => {
    model.intercept = () => list.shift();
  };
  let committed = 0;
  const watch = model.client().watch('test/job', 0n, (event) => {
    if (event.kind === 'put') committed++;
  });
  const commit = async (token = elect(), change = create('mine')) => {
    const outcome = writer.commit(token, change).then(
      (done) => done.kind,
      (error: { code?: string }) => error.code ?? String(error),
    );
    await clock.advance(60_000);
    return outcome;
  };
  const value = () => model.get('test/job')?.value;
  return { clock, model, writer, elect, faults, commit, value, committed: () => committed, watch };
}

const put = (key: string) => ({ kind: 'put', key, value: 'x' }) as const;

function create(value: string): FencedChange {
  return {
    what: 'creating the job',
    guards: [absent('test/job')],
    then: [{ kind: 'put', key: 'test/job', value }],
    isDone: (seen) => seen.get('test/job')?.value === value,
  };
}

test('a change under the leader’s token is committed, under any other it is fenced', async () => {
  const { commit, elect, value } = setUp();
  const old = elect();
  const token = elect();
  expect(await commit(old)).toBe('FENCED');
  expect(value()).toBeUndefined();
  expect(await commit(token)).toBe('committed');
  expect(await commit(old)).toBe('FENCED'); // Not "refused": whoever is fenced must learn it.
});

test('a guard that fails is told apart from a lost leadership, with what was seen', async () => {
  const { writer, elect, commit, clock } = setUp();
  const token = elect();
  await commit(token, create('theirs'));
  const outcome = writer.commit(token, { ...create('mine'), alsoRead: ['test/other'] });
  await clock.advance(1);
  expect(await outcome).toMatchObject({ kind: 'refused' });
  const { seen } = (await outcome) as { seen: ReadonlyMap<string, { value: string } | undefined> };
  expect(seen.get('test/job')?.value).toBe('theirs');
  expect(seen.has('test/other')).toBe(true);
});

test('what did not reach the store did not happen, and is said so at once', async () => {
  const { commit, faults, value, elect } = setUp();
  const token = elect();
  faults({ kind: 'failBefore' });
  expect(await commit(token)).toBe('UNAVAILABLE');
  expect(value()).toBeUndefined();
});

test.each<[string, ModelFault[], string]>([
  ['happened', [{ kind: 'failAfter' }], 'committed'],
  ['did not happen', [{ kind: 'hang' }], 'committed'],
  [
    'happened, as did the next that nobody heard of',
    [{ kind: 'failAfter' }, { kind: 'hang' }, { kind: 'failBefore' }],
    'committed',
  ],
])('a change whose answer was lost and that %s is committed once', async (_what, list, expected) => {
  const { commit, faults, value, elect, committed, watch } = setUp();
  const token = elect();
  faults(...list);
  expect(await commit(token)).toBe(expected);
  expect(value()).toBe('mine');
  expect(committed()).toBe(1);
  await watch.close();
});

test('a request that arrives after it was given up and repeated takes effect once', async () => {
  for (const requestMs of [1_001, 1_040, 1_500, 5_000]) {
    const { commit, faults, value, elect, committed, watch } = setUp();
    const token = elect();
    faults({ kind: 'delay', requestMs, answerMs: 0 });
    expect(await commit(token)).toBe('committed');
    expect(value()).toBe('mine');
    expect(committed()).toBe(1);
    await watch.close();
  }
});

test('what was created and removed again is not created by a copy of the request that was held up (F4)', async () => {
  const { commit, faults, value, elect, clock, model, committed, watch } = setUp();
  const token = elect();
  faults({ kind: 'delay', requestMs: 70_000, answerMs: 0 });
  expect(await commit(token)).toBe('committed');
  model.txn({ guards: [], then: [{ kind: 'delete', key: 'test/job' }] });
  await clock.advance(60_000);
  expect(value()).toBeUndefined();
  expect(committed()).toBe(1);
  // Nor does the doubt stand in the way of what comes, under this leader or the next one.
  expect(await commit(token)).toBe('committed');
  model.txn({ guards: [], then: [{ kind: 'delete', key: 'test/job' }] });
  expect(await commit()).toBe('committed');
  await watch.close();
});

test('a doubt of one write does not refuse another that is under way', async () => {
  const { writer, clock, faults, elect, model } = setUp();
  const token = elect();
  // The first loses its answer, casts doubt and goes on; the second arrives after that.
  faults({ kind: 'failAfter' }, { kind: 'delay', requestMs: 900, answerMs: 0 });
  const other = { what: 'another', guards: [absent('test/other')], then: [put('test/other')], isDone: () => false };
  const both = Promise.all([writer.commit(token, create('mine')), writer.commit(token, other)]);
  await clock.advance(60_000);
  expect(await both).toEqual([{ kind: 'committed' }, { kind: 'committed' }]);
  expect(model.get('test/other')?.value).toBe('x');
});

test('a change that stays without an answer is unknown, after a bounded time, and never fenced by itself', async () => {
  const { writer, clock, model, elect } = setUp();
  const token = elect();
  model.intercept = () => ({ kind: 'failAfter' });
  let told: unknown;
  writer.commit(token, create('mine')).catch((error: unknown) => {
    told = error;
  });
  await clock.advance(15_000);
  expect(told).toMatchObject({ code: 'UNKNOWN_OUTCOME' });
});

test('an answer and then the leadership lost: committed when it is seen to have happened, else unknown', async () => {
  for (const [fault, expected] of [
    [{ kind: 'failAfter' }, 'committed'],
    [{ kind: 'hang' }, 'UNKNOWN_OUTCOME'],
  ] as const) {
    const { writer, clock, elect, faults, value } = setUp();
    const token = elect();
    faults(fault);
    let told: unknown;
    writer.commit(token, create('mine')).then(
      (outcome) => {
        told = outcome.kind;
      },
      (error: { code?: string }) => {
        told = error.code;
      },
    );
    await clock.advance(5);
    elect();
    await clock.advance(5_000);
    expect(told).toBe(expected);
    expect(value()).toBe(expected === 'committed' ? 'mine' : undefined);
  }
});

test('a change that could happen twice is a bug', async () => {
  const { writer, elect } = setUp();
  const change = { ...create('mine'), guards: [absent('test/other')] };
  await expect(writer.commit(elect(), change)).rejects.toThrow('F2');
});
