import { expect, test } from 'vitest';
import { checkLogs } from './check-logs.ts';
import type { ClusterLine } from './cluster-logs.ts';

const JOB = 'a'.repeat(32);
let clockMs = 0;

/** One line a millisecond, of alternating masters unless named. */
function line(msg: string, fields: object = {}): ClusterLine {
  clockMs++;
  return { time: clockMs, process: `jobmanager-${clockMs % 2}`, jobId: JOB, msg, ...fields };
}

const granted = (token: number) => line('leadership granted', { token: String(token) });
const completed = (checkpointId: number) => line('checkpoint completed', { checkpointId });
const deployed = (deployment: string, checkpointId?: number) => line('job deployed', { deployment, checkpointId });
const ended = (status = 'FINISHED') => line('job ended', { status });

const story = () => [
  ...[granted(3), line('job submitted'), deployed('3-1'), completed(1), completed(2), deployed('3-2', 2)],
  // It had completed number 3 and died before it could say so.
  ...[granted(40), deployed('40-1', 3), completed(4)],
  ...[line('job ended', { status: 'FINISHED', component: 'jobmaster' }), ended()],
];

test('a story of failovers as it should be holds no problem', () => {
  expect(checkLogs(story(), JOB)).toEqual([]);
});

test.each<[string, () => ClusterLine[], RegExp]>([
  ['two terms with one token', () => [granted(5), granted(5)], /fencing token 5 .* comes after 5/],
  ['a token granted after a later one', () => [granted(9), granted(7)], /fencing token 7 .* comes after 9/],
  ['a checkpoint id used twice', () => [completed(8), completed(8)], /checkpoint 8 .* comes after 8/],
  [
    'a deployment of an older leader',
    () => [deployed('41-1', 4), deployed('40-9', 4)],
    /deployment 40000009 .*after 41/,
  ],
  [
    'recovery from an older checkpoint',
    () => [completed(5), deployed('41-1', 4)],
    /began from checkpoint 4, but 5 was/,
  ],
  ['recovery from nothing', () => [deployed('41-1')], /began from checkpoint undefined, but 4 was/],
  ['an end recorded twice', () => [ended()], /recorded the end of the job again: FINISHED/],
  ['another end than the first', () => [ended('CANCELED')], /recorded the end of the job again: CANCELED/],
  ['a deployment after the end', () => [deployed('41-1', 4)], /said "job deployed" after the job had ended/],
  ['a second life of the same id', () => [line('job submitted')], /said "job submitted" after the job had ended/],
  ['a broken invariant', () => [line('job master is broken')], /job master is broken/],
])('%s is found', (_what, more, says) => {
  expect(checkLogs([...story(), ...more()], JOB).join('\n')).toMatch(says);
});

test('other jobs’ checkpoints and deployments are none of this one’s', () => {
  const other = { jobId: 'b'.repeat(32) };
  const theirs = [line('checkpoint completed', { checkpointId: 1, ...other }), line('job submitted', other)];
  expect(checkLogs([...story(), ...theirs], JOB)).toEqual([]);
});
