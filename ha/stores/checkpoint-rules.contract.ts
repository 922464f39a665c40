import { describe, expect, test } from 'vitest';
import { stateKeysOf } from './checkpoint-pointers.ts';
import { submit, withJob, withCheckpoints, end, ids, JOB, JOB_ID, type Rules } from './transitions.fixture.ts';
import { graphOf, type Leader, type World } from './store-world.fixture.ts';

/** See `storeRules`. */
export function checkpointRules(rules: Rules): void {
  describe('Checkpoints', () => {
    test('a checkpoint is completed by its pointer, with everything that it names, or it never was', async () => {
      await rules.interruptEverywhere({
        prepare: withCheckpoints(JOB, 1),
        act: async (leader, world) =>
          leader.checkpoints.completed(JOB_ID).add(await world.snapshot(JOB, 2), leader.token),
        then: async (next, _world, answer) => {
          const known = await ids(next);
          expect([[1], [1, 2]]).toContainEqual(known);
          if (answer === undefined) return;
          expect(known).toEqual([1, 2]);
          expect(await next.checkpoints.completed(JOB_ID).read(2)).toEqual(answer);
          expect(await next.checkpoints.readExternal(answer.metadataKey)).toEqual(answer);
        },
      });
    });

    test('ids strictly rise over all leaders: none is given twice', async () => {
      const givenIn = new Map<World, number[]>();
      await rules.interruptEverywhere({
        prepare: withJob,
        act: async (leader, world) => {
          const given: number[] = [];
          givenIn.set(world, given);
          for (let i = 0; i < 3; i++) given.push(await leader.checkpoints.counter(JOB_ID).next(leader.token));
        },
        then: async (next, world) => {
          const given = givenIn.get(world) ?? [];
          const counter = next.checkpoints.counter(JOB_ID);
          given.push(...(await Promise.all([counter.next(next.token), counter.next(next.token)])).sort());
          expect(given).toEqual([...new Set(given)].sort((a, b) => a - b));
        },
      });
    });

    test('subsuming keeps the newest, every savepoint, and what they share with what goes', async () => {
      await rules.interruptEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(JOB, 4, [2])(leader, world);
          const completed = leader.checkpoints.completed(JOB_ID);
          const { metadata } = await completed.read(3);
          const shared = metadata.operators[0]?.subtasks[0]?.keyed.flatMap(({ handle }) =>
            handle.kind === 'object' ? [handle.key] : [],
          );
          await completed.add(await world.snapshot(JOB, 5, { shared: shared ?? [] }), leader.token);
        },
        act: async (leader) => {
          await leader.checkpoints.completed(JOB_ID).subsume(1, leader.token);
          return 'subsumed';
        },
        then: async (next, world, answer) => {
          expect((await ids(next)).at(-1)).toBe(5);
          if (answer === undefined) await next.checkpoints.completed(JOB_ID).subsume(1, next.token);
          expect(await ids(next)).toEqual([5]);
          await world.check(next);
          const retained = (await world.entryKeys()).filter((key) => key.startsWith('retained/'));
          expect(retained).toHaveLength(1);
          expect(retained[0]).toContain('000000000002-');
        },
      });
    });

    const sharedBy = async (leader: Leader, checkpointId: number) =>
      [...stateKeysOf((await leader.checkpoints.completed(JOB_ID).read(checkpointId)).metadata)].filter((key) =>
        key.includes('/shared/'),
      );

    /** Checkpoints 1 to 3; 2 and 3 refer to what 1 wrote, 3 also to what 2 wrote. */
    const withSharing = async (leader: Leader, world: World) => {
      await submit(JOB)(leader);
      const completed = leader.checkpoints.completed(JOB_ID);
      for (const checkpointId of [1, 2, 3]) {
        const shared = checkpointId === 1 ? [] : await sharedBy(leader, checkpointId - 1);
        await completed.add(await world.snapshot(JOB, checkpointId, { shares: true, shared }), leader.token);
      }
    };

    test('what incremental checkpoints share goes with the last that refers to it, whoever subsumes them', async () => {
      await rules.interruptEverywhere({
        prepare: withSharing,
        act: async (leader, world) => {
          const completed = leader.checkpoints.completed(JOB_ID);
          const shared = (await sharedBy(leader, 3)).filter((key) => !key.includes('/shared/2/'));
          await completed.add(await world.snapshot(JOB, 4, { shares: true, shared }), leader.token);
          await completed.subsume(1, leader.token);
          return 'subsumed';
        },
        then: async (next, world, answer) => {
          const completed = next.checkpoints.completed(JOB_ID);
          const [newest = 0] = (await ids(next)).slice(-1);
          if (answer !== undefined) expect(await ids(next)).toEqual([4]);
          // The next leader's tasks go on from the newest, and refer to all of it.
          const shared = await sharedBy(next, newest);
          await completed.add(await world.snapshot(JOB, 9, { shares: true, shared }), next.token);
          await completed.subsume(1, next.token);
          await world.check(next);
          expect((await sharedBy(next, 9)).length).toBe(shared.length + 1);
        },
      });
    });

    test('a checkpoint that refers to what no pointer holds is refused, and leaves nothing', async () => {
      const world = rules.world();
      const leader = await world.leader();
      await withSharing(leader, world);
      const completed = leader.checkpoints.completed(JOB_ID);
      const first = await sharedBy(leader, 1);
      const second = (await sharedBy(leader, 2)).filter((key) => key.includes('/shared/2/'));
      // Checkpoint 4 knows nothing of the others, and takes their place.
      await completed.add(await world.snapshot(JOB, 4, { shares: true }), leader.token);
      await completed.subsume(1, leader.token);
      const before = await world.entryKeys();
      for (const shared of [first, second]) {
        const late = await world.snapshot(JOB, 5, { shares: true, shared });
        await expect(completed.add(late, leader.token)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      }
      expect(await world.entryKeys()).toEqual(before);
      await world.check(leader);
      // A retained checkpoint of an earlier life of the job vouches as well.
      const retained = { ...JOB.config.checkpointing, externalizedRetention: 'RETAIN_ON_CANCELLATION' } as const;
      const other = { ...graphOf(2), config: { ...JOB.config, checkpointing: retained } };
      await submit(other)(leader);
      const lives = leader.checkpoints.completed(other.jobId);
      await lives.add(await world.snapshot(other, 1, { shares: true }), leader.token);
      const keys = [...stateKeysOf((await lives.read(1)).metadata)];
      await end(other, 'CANCELED')(leader);
      await world.recover(leader);
      await leader.jobResults.expire(0, leader.token);
      await submit(other)(leader);
      const again = await world.snapshot(other, 1, { shares: true, shared: keys, deployment: '9-1' });
      await lives.add(again, leader.token);
      await world.check(leader);
    });

    test('more checkpoints than fit one transaction are subsumed all the same', async () => {
      const world = rules.world();
      const leader = await world.leader();
      await withCheckpoints(JOB, 100, [10, 50])(leader, world);
      await leader.checkpoints.completed(JOB_ID).subsume(3, leader.token);
      expect(await ids(leader)).toEqual([98, 99, 100]);
      await world.check(leader);
    });

    test('what was uploaded for a checkpoint that never completed is discarded, and nothing of others', async () => {
      const world = rules.world();
      const leader = await world.leader();
      await withCheckpoints(JOB, 1)(leader, world);
      const before = await world.objectKeys();
      const other = await world.snapshot(graphOf(2), 1);
      const foreign = (await world.objectKeys()).filter((key) => !before.includes(key));
      await world.snapshot(JOB, 2);
      const late = (await world.objectKeys()).filter((key) => !before.includes(key));
      expect(other.jobId).not.toBe(JOB_ID);
      await leader.checkpoints.completed(JOB_ID).discard(late);
      expect(await world.objectKeys()).toEqual([...before, ...foreign].sort());
    });

    test('an ended job gains no checkpoint and no id', async () => {
      const world = rules.world();
      const leader = await world.leader();
      await withCheckpoints(JOB, 1)(leader, world);
      const late = await world.snapshot(JOB, 2);
      await end(JOB, 'FAILED')(leader);
      const gone = { code: 'NOT_FOUND' };
      await expect(leader.checkpoints.completed(JOB_ID).add(late, leader.token)).rejects.toMatchObject(gone);
      await expect(leader.checkpoints.counter(JOB_ID).next(leader.token)).rejects.toMatchObject(gone);
      await world.recover(leader);
      await world.check(leader);
    });
  });
}
