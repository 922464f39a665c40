import { describe, expect, test } from 'vitest';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import { end, JOB, JOB_ID, type Rules, submit, withJob } from './transitions.fixture.ts';
import { graphOf } from './store-world.fixture.ts';

/** See `storeRules`. */
export function submissionRules(rules: Rules): void {
  describe('Submission', () => {
    test('a job that was answered for is never lost, and submitted again it is the same job, once', async () => {
      await rules.interruptEverywhere({
        act: submit(JOB, 'key'),
        then: async (next, _world, answer) => {
          const before = (await next.jobGraphs.list()).map((one) => one.jobId);
          if (answer !== undefined) expect(before).toEqual([JOB_ID]);
          const again = await submit(JOB, 'key')(next);
          expect(again).toEqual({ jobId: JOB_ID, outcome: before.length === 0 ? 'created' : 'duplicate' });
          expect((await next.jobGraphs.list()).map((one) => one.jobId)).toEqual([JOB_ID]);
          expect(await next.jobGraphs.load(JOB_ID)).toEqual(JOB);
        },
      });
    });

    test('one idempotency key stands for one job, whatever job ids it comes with', async () => {
      await rules.interruptEverywhere({
        act: submit(JOB, 'key'),
        then: async (next, _world, answer) => {
          const { jobId } = await submit(graphOf(2), 'key')(next);
          if (answer !== undefined) expect(jobId).toBe(JOB_ID);
          expect((await next.jobGraphs.list()).map((one) => one.jobId)).toEqual([jobId]);
          expect(await next.jobGraphs.findByIdempotencyKey('key')).toBe(jobId);
          expect((await submit(graphOf(3), 'key')(next)).jobId).toBe(jobId);
        },
      });
    });

    test('a job that has ended is not run again by a late submission', async () => {
      await rules.interruptEverywhere({
        prepare: withJob,
        act: end(JOB, 'FINISHED'),
        then: async (next) => {
          expect(await submit(JOB)(next)).toEqual({ jobId: JOB_ID, outcome: 'duplicate' });
          const running = (await next.jobGraphs.list()).length;
          expect(running + (await next.jobResults.list()).length).toBe(1);
        },
      });
    });

    test('a job keeps its bundle when its jar is deleted, and no job gets a bundle that is gone', async () => {
      const bytes = new TextEncoder().encode('export const main = () => {}');
      await rules.interruptEverywhere({
        prepare: async (leader) => void (await leader.jars.put('job.mjs', bytes, ['main'], leader.token)),
        act: async (leader) => {
          const [view] = await leader.jars.list();
          if (view === undefined) throw new Error('the jar is there');
          const { objectKey, digest } = await leader.jars.get(view.id);
          const bundle = {
            kind: 'object' as const,
            objectKey,
            digest,
            bytes: bytes.length,
            args: [] as string[],
          } satisfies JobGraph['bundle'];
          await submit({ ...JOB, bundle })(leader);
          await leader.jars.delete(view.id, leader.token);
          return bundle;
        },
        then: async (next, world, bundle) => {
          await world.check(next);
          if (bundle === undefined) return;
          await expect(submit({ ...graphOf(2), bundle })(next)).rejects.toMatchObject({ code: 'NOT_FOUND' });
          await end(JOB, 'FINISHED')(next);
          await world.recover(next);
          await world.check(next);
          expect(await world.backend.objects.size(bundle.objectKey)).toBeUndefined();
        },
      });
    });

    test('an acknowledged cancel survives, and ends with its job', async () => {
      await rules.interruptEverywhere({
        prepare: withJob,
        act: async (leader) => {
          await leader.jobGraphs.requestCancel(JOB_ID, leader.token);
          return 'acknowledged';
        },
        then: async (next, _world, answer) => {
          const [job] = await next.jobGraphs.list();
          if (answer !== undefined) expect(job?.cancelRequested).toBe(true);
          await next.jobGraphs.requestCancel(JOB_ID, next.token);
          expect((await next.jobGraphs.list())[0]?.cancelRequested).toBe(true);
          await end(JOB, 'CANCELED')(next);
          await expect(next.jobGraphs.requestCancel(JOB_ID, next.token)).rejects.toMatchObject({ code: 'NOT_FOUND' });
          await next.jobResults.cleanUp(JOB_ID, next.token);
        },
      });
    });

    test('an uploaded jar is there whole or not at all', async () => {
      const bytes = new TextEncoder().encode('export default () => {}');
      await rules.interruptEverywhere({
        act: (leader) => leader.jars.put('my job.mjs', bytes, ['default'], leader.token),
        then: async (next, world, answer) => {
          const jars = await next.jars.list();
          if (answer !== undefined) expect(jars).toEqual([answer]);
          for (const { id } of jars) await next.jars.delete(id, next.token);
          await world.check(next);
          expect(await world.objectKeys()).toEqual([]);
        },
      });
    });
  });
}
