import fc from 'fast-check';
import { expect } from 'vitest';
import type { TwoPhaseCommitWriter } from '../../api/sink.ts';

type Writer<C> = TwoPhaseCommitWriter<unknown, C>;

/** A place that a sink writes numbers to, new for each history. */
export interface SinkWorld<C> {
  writerOf(attempt: { subtask: number; parallelism: number; deployment: string }): Writer<C>;
  /** What two copies of one committable have in common. */
  identityOf(committable: C): string;
  /** All rows that a reader would see now. */
  visible(): Promise<string[]>;
  end(): Promise<void>;
}

/**
 * A job that writes the numbers from 0 on, subtask `n % parallelism` the number n. Crashes replace all
 * writers at any point; those that were replaced live on as zombies and may do anything but get notices
 * of checkpoints that never completed.
 */
class Job<C> {
  private writers: Writer<C>[] = [];
  /** By subtask: prepared and not known to be committed, as the subtask keeps them in its state. */
  private pending: C[][] = [];
  private next = 0;
  private deployments = 0;
  private deployment = '';
  private checkpointId = 0;
  private completed = { next: 0, committables: [] as C[] };
  private readonly zombies: { writer: Writer<C>; mayCommit: C[] }[] = [];

  constructor(private readonly world: SinkWorld<C>) {}

  async deploy(parallelism: number): Promise<void> {
    for (const [i, writer] of this.writers.entries()) {
      // Of what the zombie prepared, only what a completed checkpoint holds can ever be announced to it.
      const mayCommit = (this.pending[i] ?? []).filter((committable) =>
        this.completed.committables.some((one) => this.world.identityOf(one) === this.world.identityOf(committable)),
      );
      this.zombies.push({ writer, mayCommit });
    }
    const deployment = `${5 + Math.floor(this.deployments / 3)}-${this.deployments++ % 3}`;
    this.deployment = deployment;
    this.next = this.completed.next;
    this.pending = Array.from({ length: parallelism }, () => []);
    this.writers = Array.from({ length: parallelism }, (_, subtask) =>
      this.world.writerOf({ subtask, parallelism, deployment }),
    );
    for (const [i, writer] of this.writers.entries()) {
      await writer.open(this.completed.committables.filter((_, n) => n % parallelism === i));
      await this.expectNoDuplicates();
    }
  }

  write(count: number): void {
    for (let i = 0; i < count; i++, this.next++)
      this.writers[this.next % this.writers.length]?.write(String(this.next));
  }

  /** `acknowledged`: how many subtasks prepare before something breaks; all of them: it may complete. */
  async checkpoint(acknowledged: number, commits: number): Promise<void> {
    const checkpointId = ++this.checkpointId;
    const at = this.next;
    for (const [i, writer] of this.writers.entries()) {
      if (i >= acknowledged) return;
      this.pending[i]?.push(...(await writer.prepareCommit(checkpointId)));
    }
    this.completed = { next: at, committables: this.pending.flat() };
    for (const [i, writer] of this.writers.entries()) {
      // The notice reaches so many subtasks; the others keep what they hold for the next checkpoint.
      if (i >= commits) return;
      const committables = this.pending[i] ?? [];
      await writer.commit(committables, this.requestOf(checkpointId));
      this.pending[i] = [];
      await this.expectNoDuplicates();
    }
  }

  async zombieActs(which: number): Promise<void> {
    const zombie = this.zombies[which % Math.max(1, this.zombies.length)];
    if (zombie === undefined) return;
    zombie.writer.write(`zombie of ${this.next}`);
    await zombie.writer.prepareCommit(this.checkpointId + 1);
    await zombie.writer.commit(zombie.mayCommit, this.requestOf(this.checkpointId));
    await this.expectNoDuplicates();
  }

  async finish(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      this.write(3);
      await this.checkpoint(this.writers.length, this.writers.length);
    }
    const expected = [...Array(this.next).keys()].map(String).sort();
    expect(await this.world.visible()).toEqual(expected);
    for (const { writer } of this.zombies) await writer.close();
    for (const writer of this.writers) await writer.close();
  }

  private requestOf(checkpointId: number) {
    return { deployment: this.deployment, checkpointId };
  }

  /** Only rows up to the newest completed checkpoint, each at most once. */
  private async expectNoDuplicates(): Promise<void> {
    const rows = await this.world.visible();
    expect(new Set(rows).size).toBe(rows.length);
    for (const row of rows) expect(Number(row)).toBeLessThan(this.completed.next);
  }
}

const step = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), count: fc.integer({ min: 1, max: 5 }) }),
  fc.record({
    kind: fc.constant('checkpoint' as const),
    acknowledged: fc.constantFrom(9, 9, 9, 1, 0),
    commits: fc.constantFrom(0, 0, 1, 9),
  }),
  fc.record({ kind: fc.constant('deploy' as const), parallelism: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('zombie' as const), which: fc.nat(5) }),
);

/** Plays random histories of a job on a two-phase commit sink; what is visible is compared after each step. */
export async function checkHistories<C>(newWorld: () => Promise<SinkWorld<C>>, numRuns = 60): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 20, size: 'max' }), async (steps) => {
      const world = await newWorld();
      const job = new Job(world);
      await job.deploy(2);
      for (const one of steps) {
        if (one.kind === 'write') job.write(one.count);
        else if (one.kind === 'checkpoint') await job.checkpoint(one.acknowledged, one.commits);
        else if (one.kind === 'deploy') await job.deploy(one.parallelism);
        else await job.zombieActs(one.which);
      }
      await job.finish();
      await world.end();
    }),
    { seed: 20, numRuns },
  );
}
