import { DETECTED } from '../../src/main/demo/timeline.ts';
import { isDeployment } from '../checkers/check-logs.ts';
import type { ClusterLine } from '../checkers/cluster-logs.ts';
import { runningAgain } from '../running-again.ts';
import type { Fault } from './stage.ts';

/** What followed one fault, in milliseconds since it; undefined: it did not happen before the next. */
export interface FaultTimeline extends Fault {
  /** Somebody said that the leader or a worker is lost. */
  readonly detectedMs: number | undefined;
  readonly electedMs: number | undefined;
  /** All tasks run again, adopted or restarted; undefined also when none had to. */
  readonly runningMs: number | undefined;
  readonly adopted: boolean;
  /** The longest time without a record, committed or not. */
  readonly gapMs: number | undefined;
  /** Each time that tasks were sent out. More than one: what was begun did not last. */
  readonly deployments: readonly Deployment[];
}

export interface Deployment {
  readonly afterMs: number;
  /** The first trouble that a master told of since the deployment before, which is what the others follow from. */
  readonly why: string | undefined;
}

export interface TimelineSources {
  readonly masters: readonly ClusterLine[];
  readonly workers: readonly ClusterLine[];
  readonly jobId: string;
  readonly tasks: number;
  /** When the job was seen to have ended; what comes later does not follow from a fault. */
  readonly endMs: number;
  readonly gapMs: (fromMs: number, toMs: number) => number | undefined;
}

/** Reads from all logs, when all is over, how long each fault was felt. */
export function faultTimelines(faults: readonly Fault[], sources: TimelineSources): FaultTimeline[] {
  const { masters, workers, jobId, tasks, endMs } = sources;
  return faults.map((fault, i) => {
    const nextMs = faults[i + 1]?.atMs ?? endMs;
    const since = (lines: readonly ClusterLine[]) => lines.filter(({ time }) => time >= fault.atMs && time < nextMs);
    const after = (line: ClusterLine | undefined) => (line === undefined ? undefined : line.time - fault.atMs);
    const told = since(masters);
    const ofJob = told.filter((line) => line.jobId === jobId);
    const deployed = ofJob.findLast(isDeployment);
    const adopted = ofJob.findLast(({ msg }) => msg === 'job adopted');
    const restarted = deployed !== undefined && (adopted === undefined || deployed.time > adopted.time);
    const all = runningAgain(since(workers), deployed, { jobId, tasks });
    return {
      ...fault,
      detectedMs: after(told.find(({ msg }) => DETECTED.has(msg))),
      electedMs: after(told.find(({ msg }) => msg === 'leadership granted')),
      runningMs: after(restarted ? all : adopted),
      adopted: adopted !== undefined && !restarted,
      gapMs: sources.gapMs(fault.atMs, nextMs),
      deployments: deploymentsOf(ofJob, fault.atMs),
    };
  });
}

function deploymentsOf(ofJob: readonly ClusterLine[], faultMs: number): Deployment[] {
  const deployments: Deployment[] = [];
  let why: string | undefined;
  for (const line of ofJob) {
    if (isDeployment(line)) {
      deployments.push({ afterMs: line.time - faultMs, why });
      why = undefined;
    } else why ??= troubleOf(line);
  }
  return deployments;
}

function troubleOf(line: ClusterLine): string | undefined {
  if (line.msg === 'job not adopted') return `not adopted: ${String(line.reason)}`;
  if (line.msg !== 'job failed') return undefined;
  return (line.error as { readonly message?: string } | undefined)?.message ?? 'the job failed';
}
