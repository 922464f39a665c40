import { expect, test } from 'vitest';
import type { KeyChange } from '../../test-support/etcd-history.ts';
import { checkHistory, termsOf } from './check-history.ts';

const ROOT = '/millrace/c/';
const JOB = 'a'.repeat(32);

type Change = readonly ['put', string, object] | readonly ['delete', string];

/** Each argument is one transaction; revisions count from 1. */
function history(...transactions: readonly (readonly Change[])[]): KeyChange[] {
  return transactions.flatMap((changes, i) =>
    changes.map(([kind, key, value]) => ({
      revision: BigInt(i + 1),
      kind,
      key: ROOT + key,
      value: value === undefined ? '' : JSON.stringify(value),
      lease: key === 'leader' ? '7' : undefined,
    })),
  );
}

const elected = (campaign: string): Change => ['put', 'leader', { campaign, replicaId: `jobmanager-${campaign}` }];
const submitted = (token: number): Change => [
  'put',
  `jobs/${JOB}`,
  { graph: { objectKey: `c/jobs/${JOB}/graph-${token}-w` } },
];
const reserved = (last: number): Change => ['put', `counters/${JOB}`, { last }];
const completed = (id: number, token: number): Change => [
  'put',
  `checkpoints/${JOB}/${String(id).padStart(12, '0')}`,
  { checkpointId: id, metadata: { objectKey: `c/jobs/${JOB}/checkpoints/${id}/metadata-${token}-w` } },
];
const result = (token: number, dirty: boolean, status = 'FINISHED'): Change => [
  'put',
  `results/${JOB}`,
  { writeId: String(dirty), status, dirty, details: { objectKey: `c/jobs/${JOB}/details-${token}-w` } },
];
const ended = (token: number): readonly Change[] => [result(token, true), ['delete', `jobs/${JOB}`]];

const story = () => [
  ...[[elected('1')], [submitted(1)], [reserved(1)], [completed(1, 1)], [['delete', 'leader']] as const],
  ...[[elected('2')], [reserved(2)], [completed(2, 6)], [elected('3')], ended(9), [result(9, false)]],
];
const problemsOf = (...transactions: readonly (readonly Change[])[]) => checkHistory(history(...transactions), ROOT);

test('a story of three terms as it should be holds no problem', () => {
  expect(problemsOf(...story())).toEqual([]);
  expect(termsOf(history(...story()), ROOT)).toEqual([
    { token: 1n, replicaId: 'jobmanager-1' },
    { token: 6n, replicaId: 'jobmanager-2' },
    { token: 9n, replicaId: 'jobmanager-3' },
  ]);
});

test.each<[string, (readonly Change[])[], RegExp]>([
  ['a change while nobody leads', [[elected('1')], [['delete', 'leader']], [submitted(1)]], /while nobody led/],
  ['a record with a stale token', [[elected('1')], [elected('2')], [submitted(1)]], /token 1 while 2 led/],
  ['a leader that writes its key again', [[elected('1')], [elected('1')]], /wrote its key again/],
  ['a job that vanishes', [[elected('1')], [submitted(1)], [['delete', `jobs/${JOB}`]]], /removed without a result/],
  ['a job written twice', [[elected('1')], [submitted(1)], [submitted(1)]], /written twice/],
  ['a job after its result', [[elected('1')], [submitted(1)], ended(1), [submitted(1)]], /came back/],
  ['a result beside its job', [[elected('1')], [submitted(1)], [result(1, true)]], /the job was left/],
  ['a result that changes', [...story(), [result(9, false, 'FAILED')]], /was changed/],
  ['a result that becomes dirty again', [...story(), [result(9, true)]], /was changed/],
  ['a checkpoint after the result', [...story(), [completed(3, 9)]], /completed after the result/],
  ['a checkpoint id that is used again', [[elected('1')], [completed(2, 1)], [completed(1, 1)]], /came after 2/],
  ['a counter that goes back', [[elected('1')], [reserved(5)], [reserved(4)]], /from 5 to 4/],
])('%s is found', (_what, transactions, says) => {
  expect(problemsOf(...transactions).join('\n')).toMatch(says);
});

test('what every master and worker writes for itself needs no leader', () => {
  expect(problemsOf([['put', 'replicas/jobmanager-0/x', {}]], [['put', 'workers/taskmanager-0', {}]])).toEqual([]);
});
