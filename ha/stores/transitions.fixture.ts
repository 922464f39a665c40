import { expect } from 'vitest';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
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
export interface Transition<T> {
  readonly prepare?: (leader: Leader, world: World) => Promise<void>;
  readonly act: (leader: Leader, world: World) => Promise<T>;
  /**
   * Asked of the next leader, after it has recovered. `answer` is what the caller was told, or
   * undefined when it was told nothing, or an error.
   */
  readonly then: (next: Leader, world: World, answer: T | undefined) => Promise<void>;
}

/** Two transitions at once: `meanwhile` happens whole, right before one write of `act`. */
export interface Race<T> {
  readonly prepare: (leader: Leader, world: World) => Promise<void>;
  readonly act: (leader: Leader, world: World) => Promise<T>;
  readonly meanwhile: (leader: Leader, world: World) => Promise<unknown>;
  /** `told`: what `act` answered, or the code of its error. */
  readonly then: (leader: Leader, world: World, told: T | string, meanwhile: unknown) => Promise<void>;
}

export interface StoreRulesOptions {
  /** Several clusters at once and fewer looks in between, for stores that take milliseconds to answer. */
  readonly quick?: boolean;
}

/** Plays transitions again and again, each time with something wrong at another of their writes. */
export class Rules {
  private readonly quick: boolean;

  constructor(
    private readonly open: () => StoreBackend,
    { quick = false }: StoreRulesOptions = {},
  ) {
    this.quick = quick;
  }

  world(): World {
    return new World(this.open(), this.quick);
  }

  async forEach<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    if (this.quick) await Promise.all(items.map(work));
    else for (const item of items) await work(item);
  }

  /** Every write, interrupted in every way; then a new leader recovers. */
  async interruptEverywhere<T>(transition: Transition<T>): Promise<void> {
    // Dying before a write leaves what dying after the one before it leaves.
    const kinds = INTERRUPTIONS.filter((kind) => !this.quick || kind !== 'crash before');
    await this.forEach(kinds, (kind) => this.interruptEachWrite(kind, transition));
  }

  private async interruptEachWrite<T>(kind: InterruptionKind, transition: Transition<T>): Promise<void> {
    for (let step = 0, fired = true; fired; step++) {
      const interruption = new Interruption(kind, step);
      fired = await this.interruptOnce(transition, interruption).catch((error: unknown) => {
        throw new Error(`${kind} at write ${step}: ${error instanceof Error ? error.message : ''}`, { cause: error });
      });
      expect(step, 'a transition has an end').toBeLessThan(50);
    }
  }

  private async interruptOnce<T>(transition: Transition<T>, interruption: Interruption): Promise<boolean> {
    const world = this.world();
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
    if (!this.quick) await world.check(next);
    await transition.then(next, world, answer);
    await world.check(next);
    return interruption.fired;
  }

  /** Lets `meanwhile` happen before each write of `act` in turn, then checks. */
  async raceEverywhere<T>(race: Race<T>): Promise<void> {
    for (let step = 0, fired = true; fired; step++) {
      const world = this.world();
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
}

export const JOB = graphOf(1);
export const JOB_ID = JOB.jobId;

export const submit = (graph: JobGraph, idempotencyKey?: string) => (leader: Leader) =>
  leader.jobGraphs.submit(graph, leader.token, idempotencyKey === undefined ? {} : { idempotencyKey });

export const withJob = async (leader: Leader) => void (await submit(JOB)(leader));

/** The job, and checkpoints 1 to `count` of it. */
export const withCheckpoints =
  (graph: JobGraph, count: number, savepoints: readonly number[] = []) =>
  async (leader: Leader, world: World) => {
    await submit(graph)(leader);
    for (let n = 1; n <= count; n++) {
      const id = await leader.checkpoints.counter(graph.jobId).next(leader.token);
      const kind = savepoints.includes(n) ? 'SAVEPOINT' : 'CHECKPOINT';
      await leader.checkpoints.completed(graph.jobId).add(await world.snapshot(graph, id, { kind }), leader.token);
    }
  };

export const end = (graph: JobGraph, status: 'FINISHED' | 'CANCELED' | 'FAILED') => (leader: Leader) => {
  const { result, details } = endOf(graph, status);
  return leader.jobResults.complete(result, details, leader.token);
};

/** Of the checkpoints in the job's own list. */
export const ids = async (leader: Leader, graph = JOB) =>
  (await leader.checkpoints.completed(graph.jobId).listIds()).map((one) => one.checkpointId);
