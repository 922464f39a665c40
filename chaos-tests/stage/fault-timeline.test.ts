import { expect, test } from 'vitest';
import type { ClusterLine } from '../checkers/cluster-logs.ts';
import { faultTimelines } from './fault-timeline.ts';

const JOB = 'a'.repeat(32);
const line = (time: number, msg: string, fields: object = {}): ClusterLine =>
  ({ time, process: 'p', jobId: JOB, msg, ...fields }) as ClusterLine;
const state = (time: number, subtaskIndex: number, to: string) =>
  line(time, 'task changed state', { vertexId: 'v', subtaskIndex, to });
const runs = (time: number, subtaskIndex: number) => state(time, subtaskIndex, 'RUNNING');
const begins = (time: number, subtaskIndex: number) => state(time, subtaskIndex, 'DEPLOYING');

const sources = (masters: ClusterLine[], workers: ClusterLine[]) => ({
  masters,
  workers,
  jobId: JOB,
  tasks: 2,
  endMs: 9_000,
  gapMs: () => 7,
});

test('a restart counts until the last of its tasks runs', () => {
  const masters = [
    line(1_100, 'the leader is gone, stealing its key'),
    line(1_120, 'leadership granted'),
    line(1_200, 'job deployed'),
  ];
  const workers = [runs(500, 0), runs(500, 1), begins(1_210, 0), begins(1_215, 1), runs(1_300, 0), runs(1_310, 1)];
  expect(faultTimelines([{ what: 'x', atMs: 1_000 }], sources(masters, workers))).toMatchObject([
    { detectedMs: 100, electedMs: 120, runningMs: 310, adopted: false, gapMs: 7 },
  ]);
});

test('regions that begin again count until the last of their own tasks runs', () => {
  const masters = [line(1_200, 'regions deployed')];
  const workers = [begins(1_210, 0), runs(1_300, 0), runs(4_000, 1)];
  expect(faultTimelines([{ what: 'x', atMs: 1_000 }], sources(masters, workers))).toMatchObject([{ runningMs: 300 }]);
});

test('an adopted job runs from the moment it was adopted', () => {
  const masters = [line(1_120, 'leadership granted'), line(1_150, 'job adopted')];
  expect(faultTimelines([{ what: 'x', atMs: 1_000 }], sources(masters, []))).toMatchObject([
    { electedMs: 120, runningMs: 150, adopted: true },
  ]);
});

test('what follows the next fault, or the end of the job, is not counted to this one', () => {
  const masters = [line(2_500, 'leader lost'), line(9_500, 'leader lost')];
  const faults = [
    { what: 'x', atMs: 1_000 },
    { what: 'y', atMs: 2_000 },
    { what: 'z', atMs: 3_000 },
  ];
  const detected = faultTimelines(faults, sources(masters, [])).map(({ detectedMs }) => detectedMs);
  expect(detected).toEqual([undefined, 500, undefined]);
});

test('each deployment tells the first trouble since the one before', () => {
  const failed = (time: number, message: string) =>
    line(time, 'job failed', { error: { code: 'UNAVAILABLE', message } });
  const masters = [
    line(1_150, 'job not adopted', { reason: 'a task was FAILED' }),
    line(1_200, 'job deployed'),
    failed(1_900, 'worker w is lost'),
    failed(1_950, 'its reader has gone'),
    line(2_000, 'job deployed'),
  ];
  const [timeline] = faultTimelines([{ what: 'x', atMs: 1_000 }], sources(masters, []));
  expect(timeline?.deployments).toEqual([
    { afterMs: 200, why: 'not adopted: a task was FAILED' },
    { afterMs: 1_000, why: 'worker w is lost' },
  ]);
});
