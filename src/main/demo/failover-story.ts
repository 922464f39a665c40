import type { LocalCluster } from '../../../test-support/local-cluster.ts';
import type { RestClient } from '../../client/rest-client.ts';
import { isTerminalJobStatus, type JobStatus } from '../../contracts/job-status.ts';
import { type Clock, sleep } from '../../kernel/clock.ts';
import { readTimeline, type Timeline } from './timeline.ts';

export interface StoryDeps {
  readonly cluster: LocalCluster;
  readonly rest: RestClient;
  readonly clock: Clock;
  readonly jobId: string;
  /** How much of the expected output is committed, 0 to 1. */
  readonly progress: () => number;
  readonly print: (line: string) => void;
}

interface JobAnswer {
  readonly state: JobStatus;
  readonly tasks: { readonly total: number; readonly running: number; readonly finished: number };
}

interface WorkerAnswer {
  readonly id: string;
  readonly slotsNumber: number;
  readonly freeSlots: number;
}

interface CheckpointsAnswer {
  readonly counts: { readonly completed: number; readonly restored: number };
  readonly latest: { readonly completed: { readonly id: number } | null };
}

/** Kills and watches, telling what is seen. */
export class FailoverStory {
  readonly timelines: Timeline[] = [];
  private readonly deps: StoryDeps;
  private readonly startedMs: number;

  constructor(deps: StoryDeps) {
    this.deps = deps;
    this.startedMs = deps.clock.nowMs();
  }

  /** Waits until this part of the output is committed, and two checkpoints have completed in the meantime. */
  async untilProgress(part: number): Promise<void> {
    const { clock, cluster, print } = this.deps;
    let completedAtStart: number | undefined;
    for (;;) {
      const seen = await this.look();
      if (isTerminalJobStatus(seen.state)) {
        print(`the job ended (${seen.state}) before ${Math.round(part * 100)} % was reached`);
        return;
      }
      completedAtStart ??= seen.completedId;
      // At least two checkpoints of this leader, so that the kill has something to lose and to restore.
      if (seen.progress >= part && seen.completedId >= completedAtStart + 2) return;
      print(
        `${this.elapsed()}  ${seen.line}  masters ${cluster.liveMasters.length}, workers ${cluster.liveWorkers.length}`,
      );
      await sleep(clock, 1_000);
    }
  }

  async killLeader(what: string): Promise<void> {
    const leader = await this.deps.cluster.leader();
    if (leader === undefined) throw new Error('no master says that it leads');
    await this.kill(`${what} (${leader.id})`, () => leader.process.kill('SIGKILL'));
  }

  /** Kills a worker that runs tasks: after a takeover all of them may be on one. */
  async killWorker(what: string): Promise<void> {
    const { taskmanagers } = await this.deps.rest.json<{ taskmanagers: readonly WorkerAnswer[] }>(
      'GET',
      '/taskmanagers',
    );
    const busy = taskmanagers.find((one) => one.freeSlots < one.slotsNumber);
    const worker = this.deps.cluster.liveWorkers.find((one) => one.id === busy?.id);
    if (worker === undefined) throw new Error('no worker runs a task');
    await this.kill(`${what} (${worker.id})`, () => worker.process.kill('SIGKILL'));
  }

  /** Waits for the end; resolves with the state of the job. */
  async untilEnd(): Promise<JobStatus> {
    for (;;) {
      const seen = await this.look();
      this.deps.print(`${this.elapsed()}  ${seen.line}`);
      if (isTerminalJobStatus(seen.state)) return seen.state;
      await sleep(this.deps.clock, 1_000);
    }
  }

  private async kill(what: string, act: () => Promise<unknown>): Promise<void> {
    const { clock, cluster, jobId, print } = this.deps;
    print(`${this.elapsed()}  KILL  ${what}`);
    const killedAtMs = Date.now();
    await act();
    const deadlineMs = clock.nowMs() + 60_000;
    for (;;) {
      const timeline = readTimeline(cluster, what, jobId, killedAtMs);
      // Before it is taken over or deployed again a master that has not noticed yet would still say RUNNING.
      if (timeline.recoveredMs !== undefined && (await this.allRunning())) {
        const runningMs = Date.now() - killedAtMs;
        this.timelines.push({ ...timeline, runningMs });
        const how = timeline.how === 'adopted' ? 'never stopped; its new leader has taken over' : 'running again';
        print(`${this.elapsed()}        ${how} after ${runningMs} ms`);
        return;
      }
      if (clock.nowMs() > deadlineMs) throw new Error(`${what}: the job was not running again within 60 s`);
      await sleep(clock, 20);
    }
  }

  private async allRunning(): Promise<boolean> {
    try {
      const { state, tasks } = await this.deps.cluster.get<JobAnswer>(`/jobs/${this.deps.jobId}`);
      return state === 'FINISHED' || (state === 'RUNNING' && tasks.running + tasks.finished === tasks.total);
    } catch {
      return false; // An election: nobody can be asked right now.
    }
  }

  private async look(): Promise<{ state: JobStatus; progress: number; completedId: number; line: string }> {
    const { rest, jobId } = this.deps;
    const job = await rest.json<JobAnswer>('GET', `/jobs/${jobId}`);
    const checkpoints = await rest.json<CheckpointsAnswer>('GET', `/jobs/${jobId}/checkpoints`);
    const ha = await rest.json<{ leader: { id: string } | null }>('GET', '/ha');
    const progress = this.deps.progress();
    const completedId = checkpoints.latest.completed?.id ?? 0;
    const line = [
      `leader ${(ha.leader?.id ?? '(election)').padEnd(12)}`,
      `job ${job.state.padEnd(10)}`,
      `tasks ${job.tasks.running + job.tasks.finished}/${job.tasks.total}`,
      `checkpoint ${completedId}`,
      bar(progress),
    ].join('  ');
    return { state: job.state, progress, completedId, line };
  }

  private elapsed(): string {
    return `${((this.deps.clock.nowMs() - this.startedMs) / 1_000).toFixed(1).padStart(5)} s`;
  }
}

function bar(progress: number): string {
  const width = 20;
  const full = Math.round(progress * width);
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}] ${Math.round(progress * 100)} %`;
}
