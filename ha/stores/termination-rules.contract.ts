import { describe, expect, test } from 'vitest';
import { submit, withCheckpoints, end, ids, JOB, JOB_ID, type Rules } from './transitions.fixture.ts';
import { endOf, graphOf, type World } from './store-world.fixture.ts';

/** See `storeRules`. */
export function terminationRules(rules: Rules): void {
  describe('Termination', () => {
    test('a job runs until it has a result, and the first result stays', async () => {
      await rules.interruptEverywhere({
        prepare: withCheckpoints(JOB, 2),
        act: async (leader) => {
          await end(JOB, 'FINISHED')(leader);
          return 'recorded';
        },
        then: async (next, _world, answer) => {
          const running = (await next.jobGraphs.list()).length === 1;
          if (answer !== undefined) expect(running).toBe(false);
          // A leader that found it running may end it otherwise; one that found it ended may not.
          await end(JOB, 'FAILED')(next);
          expect(await next.jobResults.get(JOB_ID)).toMatchObject({ status: running ? 'FAILED' : 'FINISHED' });
          expect(await next.jobGraphs.list()).toEqual([]);
          await next.jobResults.cleanUp(JOB_ID, next.token);
        },
      });
    });

    test('a clean-up that was interrupted is finished by the next leader and leaves the result alone', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(JOB, 3)(leader, world);
          await world.snapshot(JOB, 4); // Of a checkpoint that never completed.
          await end(JOB, 'FINISHED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (next, world) => {
          expect(await next.jobResults.list()).toMatchObject([{ jobId: JOB_ID, status: 'FINISHED', dirty: false }]);
          expect(await world.entryKeys()).toEqual([`results/${JOB_ID}`]);
          await world.check(next);
          expect(await world.objectKeys()).toHaveLength(1); // Its details.
          expect(await next.jobResults.details(JOB_ID)).toMatchObject({ name: JOB.name, status: 'FINISHED' });
        },
      });
    });

    test('retained checkpoints and savepoints outlive their job and can be restored from', async () => {
      const checkpointing = { ...JOB.config.checkpointing, externalizedRetention: 'RETAIN_ON_CANCELLATION' } as const;
      const graph = { ...JOB, config: { ...JOB.config, checkpointing } };
      const metadataKeys = new Map<World, readonly string[]>();
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(graph, 2, [1])(leader, world);
          const known = await leader.checkpoints.completed(JOB_ID).listIds();
          metadataKeys.set(
            world,
            known.map((one) => one.metadataKey),
          );
          await end(graph, 'CANCELED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (next, world) => {
          expect(await next.jobResults.list()).toMatchObject([{ dirty: false }]);
          await world.check(next);
          expect((await world.entryKeys()).filter((key) => key.startsWith('retained/'))).toHaveLength(2);
          for (const key of metadataKeys.get(world) ?? []) await next.checkpoints.readExternal(key);
          // A second life of the job id starts from nothing, and its end does not touch them.
          expect(await next.jobResults.expire(0, next.token)).toBe(1);
          await submit(JOB)(next);
          expect(await ids(next)).toEqual([]);
          expect(await next.checkpoints.counter(JOB_ID).next(next.token)).toBe(1);
          await end(JOB, 'FINISHED')(next);
          await world.recover(next);
          for (const key of metadataKeys.get(world) ?? []) await next.checkpoints.readExternal(key);
        },
      });
    });

    test('a savepoint outlives a job that finished, its checkpoints do not', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(JOB, 3, [2])(leader, world);
          await end(JOB, 'FINISHED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (_next, world) => {
          const left = (await world.entryKeys()).filter((key) => !key.startsWith('results/'));
          expect(left).toHaveLength(1);
          expect(left[0]).toMatch(/^retained\/[0-9a-f]{32}\/000000000002-/);
        },
      });
    });

    test('checkpoints are kept or not as the author asked, by how the job ended', async () => {
      const kept: string[] = [];
      for (const retention of [
        'NO_EXTERNALIZED_CHECKPOINTS',
        'DELETE_ON_CANCELLATION',
        'RETAIN_ON_CANCELLATION',
      ] as const) {
        for (const status of ['FINISHED', 'CANCELED', 'FAILED'] as const) {
          const world = rules.world();
          const leader = await world.leader();
          const checkpointing = { ...JOB.config.checkpointing, externalizedRetention: retention };
          const graph = { ...JOB, config: { ...JOB.config, checkpointing } };
          await withCheckpoints(graph, 1)(leader, world);
          await end(graph, status)(leader);
          await world.recover(leader);
          await world.check(leader);
          const retained = (await world.entryKeys()).some((key) => key.startsWith('retained/'));
          if (retained) kept.push(`${retention}: ${status}`);
        }
      }
      expect(kept).toEqual([
        'DELETE_ON_CANCELLATION: FAILED',
        'RETAIN_ON_CANCELLATION: CANCELED',
        'RETAIN_ON_CANCELLATION: FAILED',
      ]);
    });

    test('results are forgotten oldest first, clean ones only, with their idempotency keys', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader) => {
          for (let n = 1; n <= 4; n++) {
            const graph = graphOf(n);
            await submit(graph, `key ${n}`)(leader);
            const { result, details } = endOf(graph, 'FINISHED');
            await leader.jobResults.complete({ ...result, endedWallMs: n }, details, leader.token);
            if (n !== 1) await leader.jobResults.cleanUp(graph.jobId, leader.token);
          }
        },
        act: (leader) => leader.jobResults.expire(2, leader.token),
        then: async (next) => {
          await next.jobResults.expire(2, next.token);
          expect((await next.jobResults.list()).map((one) => one.endedWallMs)).toEqual([4, 3]);
          expect(await next.jobGraphs.findByIdempotencyKey('key 1')).toBeUndefined();
          expect(await next.jobGraphs.findByIdempotencyKey('key 3')).toBe(graphOf(3).jobId);
        },
      });
    });
  });
}
