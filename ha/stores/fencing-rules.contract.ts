import { describe, expect, test } from 'vitest';
import { succeeded } from '../../src/contracts/operations.ts';
import { isMillraceError } from '../../src/kernel/errors.ts';
import { submit, withCheckpoints, end, JOB, JOB_ID, type Rules } from './transitions.fixture.ts';
import { folderOf, savepointAt, savepointInto, triggerOf, withSavepointOf } from './operations.fixture.ts';
import { graphOf, Interruption, type Leader, type World } from './store-world.fixture.ts';

/** See `storeRules`. */
export function fencingRules(rules: Rules): void {
  describe('Fencing', () => {
    const mutations: Readonly<Record<string, (leader: Leader, world: World) => Promise<unknown>>> = {
      'submitting a job': (leader) => submit(graphOf(7), 'key 7')(leader),
      'requesting to cancel': (leader) => leader.jobGraphs.requestCancel(JOB_ID, leader.token),
      'reserving a checkpoint id': (leader) => leader.checkpoints.counter(JOB_ID).next(leader.token),
      'completing a checkpoint': async (leader, world) =>
        leader.checkpoints.completed(JOB_ID).add(await world.snapshot(JOB, 9), leader.token),
      subsuming: (leader) => leader.checkpoints.completed(JOB_ID).subsume(1, leader.token),
      'ending a job': (leader) => end(JOB, 'FAILED')(leader),
      'cleaning up': (leader) => leader.jobResults.cleanUp(graphOf(2).jobId, leader.token),
      'forgetting results': (leader) => leader.jobResults.expire(0, leader.token),
      'storing a jar': (leader) => leader.jars.put('x.mjs', new Uint8Array([1]), [], leader.token),
      'deleting a jar': async (leader) => leader.jars.delete((await leader.jars.list())[0]?.id as never, leader.token),
      'beginning an operation': (leader, world) =>
        leader.operations.begin(savepointInto(folderOf(world, 'nine'), triggerOf(9)), leader.token),
      'ending an operation': (leader) => leader.operations.finish(JOB_ID, triggerOf(1), succeeded(7), leader.token),
      'taking a savepoint over': (leader, world) =>
        leader.checkpoints.completed(JOB_ID).claim(savepointAt(world), leader.token),
      'disposing of a savepoint': (leader, world) => leader.savepoints.dispose(savepointAt(world), leader.token),
    };

    async function twoLeaders() {
      const world = rules.world();
      const old = await world.leader();
      await withCheckpoints(JOB, 3)(old, world);
      await withCheckpoints(graphOf(2), 2)(old, world);
      await end(graphOf(2), 'FAILED')(old); // Dirty.
      await submit(graphOf(3))(old);
      await end(graphOf(3), 'FINISHED')(old);
      await old.jobResults.cleanUp(graphOf(3).jobId, old.token); // Clean.
      await withSavepointOf(old, world, 4);
      await old.operations.begin(savepointInto(folderOf(world, 'one')), old.token);
      await old.jars.put('job.mjs', new Uint8Array([1, 2, 3]), ['main'], old.token);
      return { world, old };
    }

    for (const [what, mutate] of Object.entries(mutations)) {
      test(`${what} under an old token is refused, and nothing of it is visible`, async () => {
        const { world, old } = await twoLeaders();
        const next = await world.leader();
        const before = await world.everything();
        await expect(mutate(old, world)).rejects.toMatchObject({ code: 'FENCED' });
        expect(await world.everything()).toEqual(before);
        // The same under the token that leads does happen.
        await mutate(next, world);
        expect(await world.everything()).not.toEqual(before);
        await world.recover(next);
        await world.check(next);
      });

      test(`${what}, when the answer is lost and then the leadership, is not taken for a failure`, async () => {
        await rules.forEach(['lost before', 'lost after'] as const, async (lost) => {
          for (let step = 0, fired = true; fired; step++) {
            const { world } = await twoLeaders();
            let next: Leader | undefined;
            let then: unknown;
            const interruption = new Interruption(lost, step, async () => {
              next = await world.leader();
              then = await world.everything();
            });
            const told = await mutate(await world.leader(interruption), world).then(
              () => 'done',
              (error: unknown) => (isMillraceError(error) ? error.code : String(error)),
            );
            fired = interruption.fired;
            if (next === undefined) break;
            // Whatever it tried under the old token after that has not happened.
            expect(await world.everything()).toEqual(then);
            if (interruption.during === 'coordination' && lost === 'lost before')
              expect(['UNKNOWN_OUTCOME'], `at write ${step}`).toContain(told);
            if (interruption.during === 'coordination' && lost === 'lost after')
              expect(what === 'cleaning up' ? ['done', 'FENCED'] : ['done'], `at write ${step}`).toContain(told);
            await world.recover(next);
            await world.check(next);
          }
        });
      });
    }

    test('a sweep under an old token removes nothing', async () => {
      const { world, old } = await twoLeaders();
      await world.snapshot(JOB, 9);
      const objects = await world.objectKeys();
      await world.leader();
      await expect(world.sweep(old)).rejects.toMatchObject({ code: 'FENCED' });
      expect(await world.objectKeys()).toEqual(objects);
    });
  });
}
