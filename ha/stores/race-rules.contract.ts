import { describe, expect, test } from 'vitest';
import { isMillraceError } from '../../src/kernel/errors.ts';
import { stateKeysOf } from './checkpoint-pointers.ts';
import { submit, withJob, withCheckpoints, end, JOB, JOB_ID, type Rules } from './transitions.fixture.ts';
import { folderOf, savepointAt, savepointInto, withSavepointOf } from './operations.fixture.ts';
import { graphOf, Interruption, type Leader, type World } from './store-world.fixture.ts';

/** See `storeRules`. */
export function raceRules(rules: Rules): void {
  describe('Races', () => {
    test('a job that ends while a checkpoint completes gets the checkpoint before its end or not at all', async () => {
      await rules.raceEverywhere({
        prepare: withCheckpoints(JOB, 1),
        act: async (leader, world) => {
          await leader.checkpoints.completed(JOB_ID).add(await world.snapshot(JOB, 2), leader.token);
          return 'completed';
        },
        meanwhile: end(JOB, 'FINISHED'),
        then: async (_leader, _world, told) => expect(told).toBe('NOT_FOUND'),
      });
    });

    test('a job that ends while an id is reserved does not get its counter back', async () => {
      await rules.raceEverywhere({
        prepare: withJob,
        act: (leader) => leader.checkpoints.counter(JOB_ID).next(leader.token),
        meanwhile: async (leader) => {
          await end(JOB, 'FINISHED')(leader);
          await leader.jobResults.cleanUp(JOB_ID, leader.token);
        },
        then: async (_leader, _world, told) => expect(told).toBe('NOT_FOUND'),
      });
    });

    test('two submissions of one job at once give one job', async () => {
      await rules.raceEverywhere({
        prepare: async () => {},
        act: submit(JOB, 'key'),
        meanwhile: submit(JOB, 'key'),
        then: async (_leader, _world, told, other) => {
          expect(other).toEqual({ jobId: JOB_ID, outcome: 'created' });
          expect(told).toEqual({ jobId: JOB_ID, outcome: 'duplicate' });
        },
      });
    });

    test('two submissions under one idempotency key at once give one job', async () => {
      await rules.raceEverywhere({
        prepare: async () => {},
        act: submit(JOB, 'key'),
        meanwhile: submit(graphOf(2), 'key'),
        then: async (leader, _world, told) => {
          expect(told).toEqual({ jobId: graphOf(2).jobId, outcome: 'duplicate' });
          expect(await leader.jobGraphs.list()).toHaveLength(1);
        },
      });
    });

    test('a jar that is deleted and swept while a job is submitted from it is kept, or the job is refused', async () => {
      const bytes = new TextEncoder().encode('export const main = () => {}');
      await rules.raceEverywhere({
        prepare: async (leader) => void (await leader.jars.put('job.mjs', bytes, ['main'], leader.token)),
        act: async (leader) => {
          const [view] = await leader.jars.list();
          if (view === undefined) throw new Error('the jar is there');
          const { objectKey, digest } = await leader.jars.get(view.id);
          const args: string[] = [];
          return submit({ ...JOB, bundle: { kind: 'object', objectKey, digest, bytes: bytes.length, args } })(leader);
        },
        meanwhile: async (leader, world) => {
          const [view] = await leader.jars.list();
          const { objectKey } = await leader.jars.get(view?.id as never);
          await leader.jars.delete(view?.id as never, leader.token);
          await world.sweep(leader, [objectKey]);
        },
        then: async (_leader, _world, told) => expect(told).toBe('NOT_FOUND'),
      });
    });

    test('two clean-ups, or a clean-up and a subsumption, at once do no harm', async () => {
      await rules.raceEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(JOB, 3, [2])(leader, world);
          await end(JOB, 'FAILED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        meanwhile: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (leader) => expect(await leader.jobResults.list()).toMatchObject([{ dirty: false }]),
      });
      await rules.raceEverywhere({
        prepare: withCheckpoints(JOB, 4, [2]),
        act: (leader) => leader.checkpoints.completed(JOB_ID).subsume(1, leader.token),
        meanwhile: async (leader) => {
          await end(JOB, 'FINISHED')(leader);
          await leader.jobResults.cleanUp(JOB_ID, leader.token);
        },
        then: async (_leader, world) =>
          expect((await world.entryKeys()).filter((key) => key.startsWith('retained/'))).toHaveLength(1),
      });
    });

    test('a subsumption that gets no answer while the job ends takes nothing from what is retained', async () => {
      const checkpointing = { ...JOB.config.checkpointing, externalizedRetention: 'RETAIN_ON_CANCELLATION' } as const;
      const graph = { ...JOB, config: { ...JOB.config, checkpointing } };
      for (const kind of ['lost before', 'lost after'] as const) {
        const world = rules.world();
        const leader: Leader = await world.leader(
          new Interruption(kind, 0, async () => {
            await end(graph, 'CANCELED')(looking());
            await looking().jobResults.cleanUp(JOB_ID, leader.token);
          }),
        );
        const looking = (): Leader => ({ ...world.look(), token: leader.token, interruption: leader.interruption });
        await withCheckpoints(graph, 4)(looking(), world);
        await leader.checkpoints.completed(JOB_ID).subsume(1, leader.token);
        expect(leader.interruption.fired).toBe(true);
        await world.check(looking());
        const left = (await world.entryKeys()).filter((key) => key.startsWith('retained/'));
        expect(left).toHaveLength(kind === 'lost before' ? 4 : 1);
      }
    });

    test('a checkpoint that refers to what is subsumed at that moment keeps it, or is refused', async () => {
      const sharedOf = async (leader: Leader) => [
        ...stateKeysOf((await leader.checkpoints.completed(JOB_ID).read(1)).metadata),
      ];
      const borrower = async (leader: Leader, world: World) => {
        const snapshot = await world.snapshot(JOB, 3, { shares: true, shared: await sharedOf(leader) });
        return () => leader.checkpoints.completed(JOB_ID).add(snapshot, leader.token);
      };
      const prepare = async (leader: Leader, world: World) => {
        await submit(JOB)(leader);
        const completed = leader.checkpoints.completed(JOB_ID);
        await completed.add(await world.snapshot(JOB, 1, { shares: true }), leader.token);
        await completed.add(await world.snapshot(JOB, 2, { shares: true }), leader.token);
      };
      const adds = new Map<World, () => Promise<unknown>>();
      const outcomes = new Set<string>();
      // The one while the other, at each of its writes, and the other way round.
      await rules.raceEverywhere({
        prepare,
        act: async (leader, world) => (await borrower(leader, world))(),
        meanwhile: (leader) => leader.checkpoints.completed(JOB_ID).subsume(1, leader.token),
        then: async (leader, world, told) => {
          outcomes.add(typeof told === 'string' ? told : 'completed');
          await world.check(leader);
        },
      });
      await rules.raceEverywhere({
        prepare: async (leader, world) => {
          await prepare(leader, world);
          adds.set(world, await borrower(leader, world));
        },
        act: async (leader) => {
          await leader.checkpoints.completed(JOB_ID).subsume(1, leader.token);
          return 'subsumed';
        },
        meanwhile: async (_leader, world) => {
          await adds
            .get(world)?.()
            .then(
              () => outcomes.add('completed'),
              (error: unknown) => outcomes.add(isMillraceError(error) ? error.code : String(error)),
            );
        },
        then: async (leader, world) => world.check(leader),
      });
      expect([...outcomes].sort()).toEqual(['INVALID_ARGUMENT', 'completed']);
    });

    test('a sweep in the midst of any transition takes nothing that is on its way', async () => {
      const old = new Map<World, readonly string[]>();
      const whole: readonly ((leader: Leader, world: World) => Promise<unknown>)[] = [
        submit(graphOf(5)),
        async (leader, world) => leader.checkpoints.completed(JOB_ID).add(await world.snapshot(JOB, 9), leader.token),
        (leader) => leader.checkpoints.completed(JOB_ID).subsume(1, leader.token),
        end(JOB, 'FAILED'),
        (leader) => leader.jobResults.cleanUp(graphOf(2).jobId, leader.token),
        (leader) => leader.jobResults.expire(0, leader.token),
        (leader) => leader.jars.put('x.mjs', new Uint8Array([1]), [], leader.token),
        (leader, world) => leader.operations.begin(savepointInto(folderOf(world, 'nine')), leader.token),
        (leader, world) => leader.checkpoints.completed(JOB_ID).claim(savepointAt(world), leader.token),
        (leader, world) => leader.savepoints.dispose(savepointAt(world), leader.token),
      ];
      await rules.forEach(whole, (act) =>
        rules.raceEverywhere({
          prepare: async (leader, world) => {
            await withCheckpoints(JOB, 3, [2])(leader, world);
            await withCheckpoints(graphOf(2), 2, [1])(leader, world);
            await end(graphOf(2), 'FAILED')(leader);
            await withSavepointOf(leader, world, 4);
            old.set(world, await world.objectKeys());
          },
          act,
          meanwhile: (leader, world) => world.sweep(leader, old.get(world) ?? []),
          then: async (_leader, _world, told) => expect(told).not.toBe('CORRUPT'),
        }),
      );
    });
  });
}
