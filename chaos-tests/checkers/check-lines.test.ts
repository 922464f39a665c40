import { describe, expect, test } from 'vitest';
import { expectedLines, WORKLOADS } from '../workloads/records.ts';
import { danglingPointers } from './check-bucket.ts';
import { compareLines } from './check-lines.ts';

test('the same lines in another order are no difference', () => {
  expect(compareLines(['a 1', 'a 2', 'b 1'], ['b 1', 'a 2', 'a 1'])).toEqual([]);
});

test('what is lost, repeated or wrong is told apart', () => {
  expect(compareLines(['a 1', 'a 2'], ['a 2', 'a 2', 'c 1'])).toEqual([
    'output: 1 lines lost, of "a 1"',
    'output: 1 lines written more than once, of "a 2"',
    'output: 1 lines never to be written, of "c 1"',
  ]);
});

describe.each(WORKLOADS)('%s', (name) => {
  test('writes lines of which none is there twice, so that each difference shows', () => {
    const lines = expectedLines(name, 4_800);
    expect(lines.length).toBeGreaterThan(100);
    expect(new Set(lines).size).toBe(lines.length);
  });
});

test('a record that names an object which is not there is found', () => {
  const keys = new Map([
    ['jobs/x', '{"graph":{"objectKey":"c/jobs/x/graph-1-w"}}'],
    ['counters/x', '{"last":1}'],
  ]);
  expect(danglingPointers({ keys, objects: ['jobs/x/graph-1-w'] })).toEqual([]);
  expect(danglingPointers({ keys, objects: [] })).toEqual(['jobs/x points to jobs/x/graph-1-w, which is not there']);
});
