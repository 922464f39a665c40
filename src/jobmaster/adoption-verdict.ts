import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { Slot } from '../contracts/slots.ts';
import { type TaskKey, taskKey } from '../graph/execution-graph.ts';
import { type AllocationId, compareDeployments, type DeploymentId } from '../kernel/ids.ts';
import type { FoundAttempt, JobConstants, JobPhase, RestorePoint } from './job-state.ts';

/**
 * Whether a region can go on as it is, decided from what workers show and the newest checkpoint alone.
 *
 *   V1. Only the newest deployment of a region counts, and all of its tasks must be there, starting, running or
 *       finished: what was half deployed, half cancelled or partly lost is not a consistent cut of the stream.
 *   V2. It is at least as new as the one that took part in the newest completed checkpoint. An older one is a
 *       zombie: another ran in its place and has committed output, which it would repeat.
 *   V3. Every task that is alive has a slot of the number that it needs, and no other slot has that number.
 *   V4. A task that was drained, for a stop of the job, goes on only if the savepoint of that stop has completed. Otherwise
 *       it is at the end of its data before the end of its input: it would finish without the rest.
 */
export interface RegionVerdict {
  readonly region: number;
  /** Attempts of the region's newest deployment, by task index. */
  readonly attempts: ReadonlyMap<number, FoundAttempt>;
  /** Why it cannot be adopted; undefined when it can. */
  readonly reason: string | undefined;
}

interface Found {
  readonly found: (JobPhase & { readonly kind: 'adopting' })['found'];
  readonly slots: ReadonlyMap<AllocationId, Slot>;
}

const REASONS_MAX = 3;

/** `none`: no region is to go on. */
export function judgeRegions(job: JobConstants, found: Found, restore: RestorePoint | 'none'): RegionVerdict[] {
  const byKey = new Map<TaskKey, FoundAttempt[]>();
  for (const attempt of found.found.values()) {
    const key = taskKey(attempt.report.vertexId, attempt.report.subtaskIndex);
    byKey.set(key, [...(byKey.get(key) ?? []), attempt]);
  }
  const regions = new Map<number, number[]>();
  for (const [index, { region }] of job.tasks.entries()) regions.set(region, [...(regions.get(region) ?? []), index]);
  const numbers = new SlotNumbers(found.slots);
  return [...regions].map(([region, indexes]) => {
    const all = indexes.flatMap((index) => foundFor(job, byKey, index));
    const attempts = newestAttempts(job, byKey, indexes, all);
    const reason =
      restore === 'none' ? 'the job is ended' : whyNot({ job, indexes, attempts, restore, numbers, shown: all.length });
    if (reason === undefined) numbers.take(job, attempts);
    return { region, attempts, reason };
  });
}

/** One line for people; undefined when every region was adopted. */
export function whyNotAdopted(job: JobConstants, { found }: Found, verdicts: readonly RegionVerdict[]) {
  const reasons = [...new Set(verdicts.flatMap(({ reason }) => reason ?? []))];
  if (reasons.length === 0) return undefined;
  if (found.size === 0) return 'no worker shows any task of it';
  const shown = reasons.slice(0, REASONS_MAX).join('; ');
  const more = reasons.length > REASONS_MAX ? `; and ${reasons.length - REASONS_MAX} more` : '';
  const refused = new Set(verdicts.filter(({ reason }) => reason !== undefined).map(({ region }) => region));
  const tasks = job.tasks.filter(({ region }) => refused.has(region)).length;
  return `${tasks} of ${job.tasks.length} tasks: ${shown}${more}`;
}

function foundFor(job: JobConstants, byKey: ReadonlyMap<TaskKey, FoundAttempt[]>, index: number): FoundAttempt[] {
  const key = job.tasks[index]?.key;
  return key === undefined ? [] : (byKey.get(key) ?? []);
}

function newestAttempts(
  job: JobConstants,
  byKey: ReadonlyMap<TaskKey, FoundAttempt[]>,
  indexes: readonly number[],
  all: readonly FoundAttempt[],
): ReadonlyMap<number, FoundAttempt> {
  let newest: DeploymentId | undefined;
  for (const { report } of all)
    if (newest === undefined || compareDeployments(report.deployment, newest) > 0) newest = report.deployment;
  return new Map(
    indexes.flatMap((index) => {
      const attempt = foundFor(job, byKey, index).find(({ report }) => report.deployment === newest);
      return attempt === undefined ? [] : [[index, attempt] as const];
    }),
  );
}

interface Case {
  readonly job: JobConstants;
  readonly indexes: readonly number[];
  readonly attempts: ReadonlyMap<number, FoundAttempt>;
  readonly restore: RestorePoint;
  readonly numbers: SlotNumbers;
  readonly shown: number;
}

function whyNot({ job, indexes, attempts, restore, numbers, shown }: Case): string | undefined {
  for (const index of indexes) {
    const task = job.tasks[index];
    const attempt = attempts.get(index);
    const name = task?.name ?? 'a task';
    // V1
    if (attempt === undefined) {
      return shown === 0 ? `${name} runs on no worker` : `${name} runs on no worker in the newest deployment`;
    }
    const { state, deployment, drained } = attempt.report;
    if (state === 'CANCELING' || state === 'CANCELED' || state === 'FAILED') return `${name} is ${state}`;
    // V2
    const completed = restore.kind === 'checkpoint' && restore.own ? restore.checkpoint.metadata : undefined;
    const taken = completed === undefined || task === undefined ? undefined : deploymentIn(completed, task);
    if (taken !== undefined && compareDeployments(deployment, taken) < 0)
      return `${name} is of deployment ${deployment}, but checkpoint ${completed?.checkpointId} is of ${taken}`;
    // V4
    if (drained === true && !(restore.kind === 'checkpoint' && restore.stopped))
      return `${name} was drained for a stop whose savepoint did not complete`;
    // V3
    const conflict = numbers.conflict(job, index, attempt);
    if (conflict !== undefined) return `${name} ${conflict}`;
  }
  return undefined;
}

function deploymentIn(metadata: CheckpointMetadata, task: JobConstants['tasks'][number]): DeploymentId {
  return metadata.taskDeployments?.[task.vertexId]?.[task.subtaskIndex] ?? metadata.deployment;
}

/** Which slot has which number, as far as regions were accepted. */
class SlotNumbers {
  private readonly taken = new Map<number, AllocationId>();
  private readonly numberOf = new Map<AllocationId, number>();

  constructor(private readonly slots: ReadonlyMap<AllocationId, Slot>) {}

  conflict(job: JobConstants, index: number, { report }: FoundAttempt): string | undefined {
    if (isTerminalExecutionState(report.state)) return undefined; // What has ended needs no slot.
    const { allocationId } = report;
    if (!this.slots.has(allocationId)) return 'runs in a slot that cannot be taken over';
    const number = job.tasks[index]?.slot ?? -1;
    const known = this.numberOf.get(allocationId) ?? number;
    const holder = this.taken.get(number) ?? allocationId;
    return known === number && holder === allocationId ? undefined : 'runs in a slot that others have too';
  }

  take(job: JobConstants, attempts: ReadonlyMap<number, FoundAttempt>): void {
    for (const [index, { report }] of attempts) {
      if (isTerminalExecutionState(report.state)) continue;
      const number = job.tasks[index]?.slot ?? -1;
      this.taken.set(number, report.allocationId);
      this.numberOf.set(report.allocationId, number);
    }
  }
}
