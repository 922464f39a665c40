import { describe, expect, test } from 'vitest';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import { stateKeysOf } from './checkpoint-pointers.ts';
import { isMillraceError } from '../../src/kernel/errors.ts';
import {
  endOf,
  graphOf,
  Interruption,
  INTERRUPTIONS,
  type InterruptionKind,
  type Leader,
  type StoreBackend,
  World,
} from './store-world.fixture.ts';

/** A transition made of several writes, and what must hold however it was interrupted. */
interface Transition<T> {
  readonly prepare?: (leader: Leader, world: World) => Promise<void>;
  readonly act: (leader: Leader, world: World) => Promise<T>;
  /**
   * Asked of the next leader, after it has recovered. `answer` is what the caller was told, or
   * undefined when it was told nothing, or an error.
   */
  readonly then: (next: Leader, world: World, answer: T | undefined) => Promise<void>;
}

const JOB = graphOf(1);
const JOB_ID = JOB.jobId;

export interface StoreRulesOptions {
  /** Several clusters at once and fewer looks in between, for stores that take milliseconds to answer. */
  readonly quick?: boolean;
}

/**
 * The rules of "Submission", "Checkpoints" and "Termination", each interrupted at every write of its
 * transition, in every way; then a new leader recovers. Run against the model and against real stores.
 */
export function storeRules(open: () => StoreBackend, options: StoreRulesOptions = {}): void {
  const { quick = false } = options;

  async function interruptEverywhere<T>(transition: Transition<T>): Promise<void> {
    // Dying before a write leaves what dying after the one before it leaves.
    const kinds = INTERRUPTIONS.filter((kind) => !quick || kind !== 'crash before');
    await forEach(kinds, (kind) => interruptEachWrite(kind, transition));
  }

  async function forEach<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    if (quick) await Promise.all(items.map(work));
    else for (const item of items) await work(item);
  }

  async function interruptEachWrite<T>(kind: InterruptionKind, transition: Transition<T>): Promise<void> {
    for (let step = 0, fired = true; fired; step++) {
      const interruption = new Interruption(kind, step);
      fired = await interruptOnce(transition, interruption).catch((error: unknown) => {
        throw new Error(`${kind} at write ${step}: ${error instanceof Error ? error.message : ''}`, { cause: error });
      });
      expect(step, 'a transition has an end').toBeLessThan(50);
    }
  }

  async function interruptOnce<T>(transition: Transition<T>, interruption: Interruption): Promise<boolean> {
    const world = new World(open(), quick);
    await transition.prepare?.(await world.leader(), world);
    const first = await world.leader(interruption);
    let answer: T | undefined;
    try {
      const told = await transition.act(first, world);
      if (!interruption.dead) answer = told;
    } catch (error) {
      if (!interruption.fired) throw error; // Nothing was wrong, so nothing may fail.
    }
    const next = await world.leader();
    await world.recover(next);
    if (!quick) await world.check(next);
    await transition.then(next, world, answer);
    await world.check(next);
    return interruption.fired;
  }

  const submit = (graph: JobGraph, idempotencyKey?: string) => (leader: Leader) =>
    leader.jobGraphs.submit(graph, leader.token, idempotencyKey === undefined ? {} : { idempotencyKey });

  const withJob = async (leader: Leader) => void (await submit(JOB)(leader));

  const withCheckpoints =
    (graph: JobGraph, count: number, savepoints: readonly number[] = []) =>
    async (leader: Leader, world: World) => {
      await submit(graph)(leader);
      for (let n = 1; n <= count; n++) {
        const id = await leader.checkpoints.counter(graph.jobId).next(leader.token);
        const kind = savepoints.includes(n) ? 'SAVEPOINT' : 'CHECKPOINT';
        await leader.checkpoints.completed(graph.jobId).add(await world.snapshot(graph, id, { kind }), leader.token);
      }
    };

  const end = (graph: JobGraph, status: 'FINISHED' | 'CANCELED' | 'FAILED') => (leader: Leader) => {
    const { result, details } = endOf(graph, status);
    return leader.jobResults.complete(result, details, leader.token);
  };

  const ids = async (leader: Leader, graph = JOB) =>
    (await leader.checkpoints.completed(graph.jobId).listIds()).map((one) => one.checkpointId);

  describe('Submission', () => {
    test('a job that was answered for is never lost, and submitted again it is the same job, once', async () => {
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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

  describe('Checkpoints', () => {
    test('a checkpoint is completed by its pointer, with everything that it names, or it never was', async () => {
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      const world = new World(open(), quick);
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
      const world = new World(open(), quick);
      const leader = await world.leader();
      await withCheckpoints(JOB, 100, [10, 50])(leader, world);
      await leader.checkpoints.completed(JOB_ID).subsume(3, leader.token);
      expect(await ids(leader)).toEqual([98, 99, 100]);
      await world.check(leader);
    });

    test('what was uploaded for a checkpoint that never completed is discarded, and nothing of others', async () => {
      const world = new World(open(), quick);
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
      const world = new World(open(), quick);
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

  describe('Termination', () => {
    test('a job runs until it has a result, and the first result stays', async () => {
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
      await interruptEverywhere({
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
          const world = new World(open(), quick);
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
      await interruptEverywhere({
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

  describe('Races', () => {
    /** Lets `meanwhile` happen before each write of `act` in turn, then checks. */
    async function raceEverywhere<T>(race: {
      readonly prepare: (leader: Leader, world: World) => Promise<void>;
      readonly act: (leader: Leader, world: World) => Promise<T>;
      readonly meanwhile: (leader: Leader, world: World) => Promise<unknown>;
      readonly then: (leader: Leader, world: World, told: T | string, meanwhile: unknown) => Promise<void>;
    }): Promise<void> {
      for (let step = 0, fired = true; fired; step++) {
        const world = new World(open(), quick);
        let happened: unknown;
        const leader: Leader = await world.leader(
          new Interruption('race', step, async () => {
            happened = await race.meanwhile({ ...world.look(), token: leader.token, interruption }, world);
          }),
        );
        const { interruption } = leader;
        const looking = { ...world.look(), token: leader.token, interruption };
        await race.prepare(looking, world);
        const told = await race.act(leader, world).catch((error: unknown) => {
          if (!isMillraceError(error)) throw error;
          return error.code;
        });
        fired = interruption.fired;
        if (!fired) break;
        await race.then(looking, world, told, happened);
        await world.recover(looking);
        await world.check(looking);
      }
    }

    test('a job that ends while a checkpoint completes gets the checkpoint before its end or not at all', async () => {
      await raceEverywhere({
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
      await raceEverywhere({
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
      await raceEverywhere({
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
      await raceEverywhere({
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
      await raceEverywhere({
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
      await raceEverywhere({
        prepare: async (leader, world) => {
          await withCheckpoints(JOB, 3, [2])(leader, world);
          await end(JOB, 'FAILED')(leader);
        },
        act: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        meanwhile: (leader) => leader.jobResults.cleanUp(JOB_ID, leader.token),
        then: async (leader) => expect(await leader.jobResults.list()).toMatchObject([{ dirty: false }]),
      });
      await raceEverywhere({
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
      await raceEverywhere({
        prepare,
        act: async (leader, world) => (await borrower(leader, world))(),
        meanwhile: (leader) => leader.checkpoints.completed(JOB_ID).subsume(1, leader.token),
        then: async (leader, world, told) => {
          outcomes.add(typeof told === 'string' ? told : 'completed');
          await world.check(leader);
        },
      });
      await raceEverywhere({
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
      ];
      await forEach(whole, (act) =>
        raceEverywhere({
          prepare: async (leader, world) => {
            await withCheckpoints(JOB, 3, [2])(leader, world);
            await withCheckpoints(graphOf(2), 2, [1])(leader, world);
            await end(graphOf(2), 'FAILED')(leader);
            old.set(world, await world.objectKeys());
          },
          act,
          meanwhile: (leader, world) => world.sweep(leader, old.get(world) ?? []),
          then: async (_leader, _world, told) => expect(told).not.toBe('CORRUPT'),
        }),
      );
    });
  });

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
    };

    async function twoLeaders() {
      const world = new World(open(), quick);
      const old = await world.leader();
      await withCheckpoints(JOB, 3)(old, world);
      await withCheckpoints(graphOf(2), 2)(old, world);
      await end(graphOf(2), 'FAILED')(old); // Dirty.
      await submit(graphOf(3))(old);
      await end(graphOf(3), 'FINISHED')(old);
      await old.jobResults.cleanUp(graphOf(3).jobId, old.token); // Clean.
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
        await forEach(['lost before', 'lost after'] as const, async (lost) => {
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
