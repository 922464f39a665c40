import type { LocalCluster, LogLine } from '../../../test-support/local-cluster.ts';
import { logLines } from '../../../test-support/local-cluster.ts';

/** What happened after one kill, in milliseconds since the kill; undefined while it has not happened. */
export interface Timeline {
  readonly what: string;
  readonly detectedMs: number | undefined;
  readonly electedMs: number | undefined;
  /** Its tasks were adopted as they ran, or those that were lost were sent out again from the newest checkpoint. */
  readonly recoveredMs: number | undefined;
  /** All its tasks run. */
  readonly runningMs: number | undefined;
  /** How the job came back: the new leader took over what ran, or tasks began again. */
  readonly how: 'adopted' | 'redeployed' | undefined;
}

/** What is logged when a process is found to be gone: by its lease, by its process, or by two refused connections. */
export const DETECTED: ReadonlySet<unknown> = new Set([
  'leader lost',
  'the leader is gone, stealing its key',
  'worker lost',
]);
const ADOPTED = 'job adopted';
const DEPLOYED: ReadonlySet<unknown> = new Set(['job deployed', 'regions deployed']);

/**
 * Reads the timeline of one failover from the survivors' logs: they carry the wall-clock times of one
 * machine, which are comparable, and are written when the thing happens, not when somebody asks.
 */
export function readTimeline(
  cluster: LocalCluster,
  what: string,
  jobId: string,
  killedAtMs: number,
): Omit<Timeline, 'runningMs'> {
  const lines = cluster.masters
    .flatMap((master) => logLines(master.process.log()))
    .filter((line) => line.time >= killedAtMs)
    .sort((a, b) => a.time - b.time);
  const first = (test: (line: LogLine) => boolean) => {
    const line = lines.find(test);
    return line === undefined ? undefined : line.time - killedAtMs;
  };
  // Adopted in part only: what is missing is deployed next, and only then is the job back.
  const back = lines.find(
    (line) => line.jobId === jobId && ((line.msg === ADOPTED && line.complete === true) || DEPLOYED.has(line.msg)),
  );
  return {
    what,
    detectedMs: first((line) => DETECTED.has(line.msg)),
    electedMs: first((line) => line.msg === 'leadership granted'),
    recoveredMs: back === undefined ? undefined : back.time - killedAtMs,
    how: back === undefined ? undefined : back.msg === ADOPTED && back.complete === true ? 'adopted' : 'redeployed',
  };
}

export function showTimeline(timeline: Timeline): string {
  const step = (name: string, at: number | undefined) => (at === undefined ? undefined : `${name} +${at} ms`);
  const steps = [
    step('detected', timeline.detectedMs),
    step('elected', timeline.electedMs),
    step(timeline.how ?? 'recovered', timeline.recoveredMs),
    step('running', timeline.runningMs),
  ].filter((text) => text !== undefined);
  return `${timeline.what}: ${steps.join(', ')}`;
}
