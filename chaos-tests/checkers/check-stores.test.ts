import { expect, test } from 'vitest';
import { leftovers, type StoreContents } from './check-stores.ts';

const JOB = 'a'.repeat(32);
const DETAILS = `jobs/${JOB}/details-3-x`;
const clean: StoreContents = {
  keys: new Map([
    [`results/${JOB}`, '{"dirty":false}'],
    ['leader', 'jobmanager-1'],
    ['replicas/jobmanager-1/x', '{}'],
  ]),
  objects: [DETAILS, 'jars/x/bundle-3-y', 'sweep/probe-3-z'],
};

const withKey = (key: string, value = '{}'): StoreContents => ({
  ...clean,
  keys: new Map([...clean.keys, [key, value]]),
});

test('a clean result and its details are all that stays, beside what masters and the sweeper have', () => {
  expect(leftovers(clean, JOB, false)).toEqual([]);
});

test('once the cluster has stopped, no leader and no replica is left either', () => {
  expect(leftovers(clean, JOB, true)).toEqual(['key leader is left', 'key replicas/jobmanager-1/x is left']);
});

test.each<[string, StoreContents, RegExp]>([
  ['no result', { ...clean, keys: new Map() }, /no result/],
  ['a result that was not cleaned up', withKey(`results/${JOB}`, '{"dirty":true}'), /not marked clean/],
  ['the job itself', withKey(`jobs/${JOB}`), /key jobs\/a+ is left/],
  ['a checkpoint', withKey(`checkpoints/${JOB}/000000000004`), /key checkpoints/],
  ['a counter', withKey(`counters/${JOB}`), /key counters/],
  ['metadata', { ...clean, objects: [DETAILS, `jobs/${JOB}/checkpoints/4/metadata-3-x`] }, /object jobs.*metadata/],
  ['state', { ...clean, objects: [DETAILS, `jobs/${JOB}/state/x`] }, /object jobs.*state/],
  ['two sets of details', { ...clean, objects: [DETAILS, `jobs/${JOB}/details-9-y`] }, /2 objects with details/],
])('%s is found', (_what, contents, says) => {
  expect(leftovers(contents, JOB, false).join('\n')).toMatch(says);
});
