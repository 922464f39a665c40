import { expect, test } from 'vitest';
import { ClusterKeys } from '../../../ha/stores/cluster-keys.ts';
import { asJobId } from '../../../src/kernel/ids.ts';
import type { SimWorld } from '../sim-world.ts';
import { jobsKept } from './jobs-kept.ts';

/** A job that was asked for once, received so often, stored, and refused. */
function refused(timesReceived: number): readonly string[] {
  const keys = new ClusterKeys('sim');
  const jobId = asJobId('a'.repeat(32));
  const violations: string[] = [];
  const world = { keys, violated: (_: number, message: string) => void violations.push(message) };
  const checker = jobsKept(world as never as SimWorld);
  checker.submissionAsked?.(jobId);
  for (let i = 0; i < timesReceived; i++) checker.submissionReceived?.(jobId);
  const set = { revision: 1n, changes: [{ kind: 'put', entry: { key: keys.job(jobId), value: '{}' } }] };
  checker.changed?.({ set, writer: 'm0', transaction: undefined, leaderBefore: undefined } as never);
  checker.submissionAnswered?.(jobId, { code: 'UNAVAILABLE' });
  return violations;
}

test('a submission that was refused for certain, and is stored, is found', () => {
  expect(refused(1)).toEqual([expect.stringContaining('was refused with UNAVAILABLE and is stored')]);
});

test('the refusal of one copy of a doubled submission says nothing of the other', () => {
  expect(refused(2)).toEqual([]);
});
