import { describe, expect, test } from 'vitest';
import { failedWith, succeeded } from '../../src/contracts/operations.ts';
import { stateKeysOf } from './checkpoint-pointers.ts';
import { folderOf, savepointAt, savepointInto, triggerOf, withSavepointOf } from './operations.fixture.ts';
import { graphOf, type Leader, type World } from './store-world.fixture.ts';
import { end, ids, JOB, JOB_ID, type Rules, submit, withCheckpoints, withJob } from './transitions.fixture.ts';

const TRIGGER = triggerOf(1);

const begun = async (leader: Leader, world: World) => {
  await withCheckpoints(JOB, 1)(leader, world);
  await leader.operations.begin(savepointInto(folderOf(world, 'one')), leader.token);
};

/** Checkpoint `id` completes the operation. */
const complete = async (
  leader: Leader,
  world: World,
  id: number,
  completion: { readonly cancelJob?: true; readonly stop?: 'SUSPEND' } = {},
) => {
  const location = folderOf(world, `of-${id}`);
  const snapshot = await world.snapshot(JOB, id, { kind: 'SAVEPOINT' });
  const done = { triggerId: TRIGGER, location, ...completion };
  return leader.checkpoints.completed(JOB_ID).add(snapshot, leader.token, done);
};

const retained = async (world: World) => (await world.entryKeys()).filter((key) => key.startsWith('retained/'));

/** See `storeRules`. */
export function operationRules(rules: Rules): void {
  describe('Operations', () => {
    test('what was answered for goes on under the next leader, and begins once', async () => {
      await rules.interruptEverywhere({
        prepare: withJob,
        act: (leader, world) => leader.operations.begin(savepointInto(folderOf(world, 'one')), leader.token),
        then: async (next, world, answer) => {
          const operation = savepointInto(folderOf(world, 'one'));
          const before = await next.operations.pending(JOB_ID);
          if (answer !== undefined) expect(before).toEqual([operation]);
          const again = await next.operations.begin({ ...operation, startedWallMs: 9 }, next.token);
          expect(again.outcome).toBe(before.length === 0 ? 'created' : 'existing');
          expect(await next.operations.pending(JOB_ID)).toEqual([again.operation]);
        },
      });
    });

    test('the first result that was told stays, whoever ends the operation again', async () => {
      await rules.interruptEverywhere({
        prepare: begun,
        act: (leader) => leader.operations.finish(JOB_ID, TRIGGER, succeeded(7), leader.token),
        then: async (next, _world, answer) => {
          const before = (await next.operations.get(JOB_ID, TRIGGER))?.result;
          if (answer !== undefined) expect(before).toEqual(succeeded(7));
          const late = failedWith({ code: 'TIMEOUT', message: 'late' });
          expect(await next.operations.finish(JOB_ID, TRIGGER, late, next.token)).toEqual(before ?? late);
          expect(await next.operations.finish(JOB_ID, TRIGGER, succeeded(8), next.token)).toEqual(before ?? late);
          expect(await next.operations.pending(JOB_ID)).toEqual([]);
        },
      });
    });

    test('a savepoint and the result that names it come together, or neither does', async () => {
      await rules.interruptEverywhere({
        prepare: begun,
        act: (leader, world) => complete(leader, world, 2),
        then: async (next, world, answer) => {
          const there = (await ids(next)).includes(2);
          if (answer !== undefined) expect(there).toBe(true);
          const result = (await next.operations.get(JOB_ID, TRIGGER))?.result;
          expect(result).toEqual(there ? succeeded(2, folderOf(world, 'of-2')) : undefined);
          // The next leader takes it again if it has to, and only then.
          const again = complete(next, world, 3);
          if (there) await expect(again).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
          else await again;
          expect(await ids(next)).toEqual(there ? [1, 2] : [1, 3]);
        },
      });
    });

    test('the job is cancelled by the savepoint that was asked to, or goes on without one', async () => {
      await rules.interruptEverywhere({
        prepare: begun,
        act: (leader, world) => complete(leader, world, 2, { cancelJob: true }),
        then: async (next, _world, answer) => {
          const there = (await ids(next)).includes(2);
          if (answer !== undefined) expect(there).toBe(true);
          expect((await next.jobGraphs.list())[0]?.cancelRequested).toBe(there);
        },
      });
    });

    test('a job that has stopped with a savepoint is known to have, until it has ended', async () => {
      await rules.interruptEverywhere({
        prepare: begun,
        act: (leader, world) => complete(leader, world, 2, { stop: 'SUSPEND' }),
        then: async (next, world, answer) => {
          const completed = next.checkpoints.completed(JOB_ID);
          const stops = async () => (await completed.listIds()).filter(({ stop }) => stop !== undefined);
          const stopped = await stops();
          if (answer !== undefined) expect(stopped).toMatchObject([{ checkpointId: 2, stop: 'SUSPEND' }]);
          if (stopped.length === 0) return;
          // No later checkpoint makes it forgotten, and nobody takes it away.
          await completed.add(await world.snapshot(JOB, 3), next.token);
          await completed.subsume(1, next.token);
          expect(await stops()).toEqual(stopped);
          const [{ metadataKey } = { metadataKey: '' }] = stopped;
          await expect(next.savepoints.dispose(metadataKey, next.token)).rejects.toMatchObject({ code: 'CONFLICT' });
          await end(JOB, 'FINISHED')(next);
          await world.recover(next);
          expect(await retained(world)).toHaveLength(1);
        },
      });
    });

    test('what is retained of a job that stopped and was cancelled then needs nothing of its savepoint', async () => {
      const checkpointing = { ...JOB.config.checkpointing, externalizedRetention: 'RETAIN_ON_CANCELLATION' } as const;
      const graph = { ...JOB, config: { ...JOB.config, checkpointing } };
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(graph, 1)(leader, world);
          await leader.operations.begin(savepointInto(folderOf(world, 'one')), leader.token);
          const { metadata } = await complete(leader, world, 2, { stop: 'SUSPEND' });
          // The tasks that were left when the job had stopped say what the others had left by then.
          const shared = [...stateKeysOf(metadata)];
          const behind = await world.snapshot(JOB, 3, { shared });
          await leader.checkpoints.completed(JOB_ID).add(behind, leader.token);
          await end(graph, 'CANCELED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (next, world) => {
          const checkpoints = (await retained(world)).map((key) => key.split('/')[2]?.slice(0, 12));
          expect(checkpoints).toEqual(['000000000001', '000000000002']);
          await next.savepoints.dispose(`${folderOf(world, 'of-2')}_metadata`, next.token);
        },
      });
    });

    test('results outlive their job and its clean-up, and are forgotten with its result', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await begun(leader, world);
          await complete(leader, world, 2, { stop: 'SUSPEND' });
          await end(JOB, 'FINISHED')(leader);
          await leader.jobResults.cleanUp(JOB_ID, leader.token);
        },
        act: (leader) => leader.jobResults.expire(0, leader.token),
        then: async (next, world, answer) => {
          const known = await next.jobResults.list();
          const operation = await next.operations.get(JOB_ID, TRIGGER);
          expect(operation?.result).toEqual(known.length === 0 ? undefined : succeeded(2, folderOf(world, 'of-2')));
          if (answer !== undefined) expect(known).toEqual([]);
          await next.jobResults.expire(0, next.token);
          expect((await world.entryKeys()).filter((key) => key.startsWith('operations/'))).toEqual([]);
        },
      });
    });
  });

  describe('Savepoints', () => {
    test('one that is disposed of loses its pointer before its objects, and is gone once', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => void (await withSavepointOf(leader, world)),
        act: async (leader, world) => {
          await leader.savepoints.dispose(savepointAt(world), leader.token);
          return 'disposed';
        },
        then: async (next, world, answer) => {
          const there = (await retained(world)).length === 1;
          if (answer !== undefined) expect(there).toBe(false);
          const again = next.savepoints.dispose(savepointAt(world), next.token);
          if (there) await again;
          else await expect(again).rejects.toMatchObject({ code: 'NOT_FOUND' });
          expect(await retained(world)).toEqual([]);
          await world.check(next);
          // Of the job there are its details left.
          expect(await world.objectKeys()).toHaveLength(1);
        },
      });
    });

    test('one that a job takes over belongs to it alone, counts its ids from there, and goes with it', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withSavepointOf(leader, world);
          await withJob(leader);
        },
        act: (leader, world) => leader.checkpoints.completed(JOB_ID).claim(savepointAt(world), leader.token),
        then: async (next, world, answer) => {
          const completed = next.checkpoints.completed(JOB_ID);
          const before = await ids(next);
          expect(before.length + (await retained(world)).length, 'one pointer, here or there').toBe(1);
          if (answer !== undefined) expect(before).toEqual([5]);
          expect(await completed.claim(savepointAt(world), next.token)).toBe(5);
          expect(await ids(next)).toEqual([5]);
          expect((await completed.read(5)).metadataKey).toBe(savepointAt(world));
          expect(await next.checkpoints.counter(JOB_ID).next(next.token)).toBeGreaterThan(5);
          await submit(graphOf(3))(next);
          const other = next.checkpoints.completed(graphOf(3).jobId);
          await expect(other.claim(savepointAt(world), next.token)).rejects.toMatchObject({ code: 'CONFLICT' });
          await end(JOB, 'FINISHED')(next);
          await world.recover(next);
          await world.check(next);
          expect((await world.objectKeys()).filter((key) => key.startsWith(folderOf(world, 'kept')))).toEqual([]);
        },
      });
    });

    test('taken over and disposed of at once, or by two jobs, it has one owner or none', async () => {
      const prepare = async (leader: Leader, world: World) => {
        await withSavepointOf(leader, world);
        await withJob(leader);
        await submit(graphOf(3))(leader);
      };
      const claim = (jobId: typeof JOB_ID) => (leader: Leader, world: World) =>
        leader.checkpoints.completed(jobId).claim(savepointAt(world), leader.token);
      const dispose = async (leader: Leader, world: World) => {
        await leader.savepoints.dispose(savepointAt(world), leader.token);
        return 'disposed';
      };
      await rules.raceEverywhere({
        prepare,
        act: claim(JOB_ID),
        meanwhile: dispose,
        then: async (leader, _world, told) => {
          expect(['UNAVAILABLE', 'NOT_FOUND']).toContain(told);
          expect(await ids(leader)).toEqual([]);
        },
      });
      await rules.raceEverywhere({
        prepare,
        act: claim(JOB_ID),
        meanwhile: claim(graphOf(3).jobId),
        then: async (leader, _world, told) => {
          expect(['UNAVAILABLE', 'CONFLICT']).toContain(told);
          expect([...(await ids(leader)), ...(await ids(leader, graphOf(3)))]).toEqual([5]);
        },
      });
      const outcomes = new Set<unknown>();
      await rules.raceEverywhere({
        prepare,
        act: dispose,
        meanwhile: async (leader, world) =>
          claim(JOB_ID)(leader, world).then(
            () => outcomes.add('claimed'),
            (error: { readonly code?: unknown }) => outcomes.add(error.code),
          ),
        // Before the pointer has gone the job has it; after that there is nothing to claim.
        then: async (leader, _world, told) =>
          expect([told, await ids(leader)]).toEqual(
            (await ids(leader)).length === 1 ? ['CONFLICT', [5]] : ['disposed', []],
          ),
      });
      expect([...outcomes].sort()).toEqual(['NOT_FOUND', 'claimed']);
    });
  });
}
