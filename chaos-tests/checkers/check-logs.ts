import type { ClusterLine } from './cluster-logs.ts';

/** Messages that only a bug explains, however many processes are killed. */
const NEVER: ReadonlySet<unknown> = new Set([
  'background task failed',
  'job master is broken',
  'a JobMaster ended without an outcome',
  'contender failed',
  'listener failed',
  'job cannot be restored',
  'unreadable checkpoint passed over',
]);

/** All tasks of a job, or those of some regions, are sent to workers. */
export function isDeployment(line: { readonly msg?: unknown }): boolean {
  return line.msg === 'job deployed' || line.msg === 'regions deployed';
}

/**
 * What the masters' logs of one job must not contradict, whoever was killed (the numbers are those of
 * the invariants in ARCHITECTURE.md):
 *
 *   1. Fencing tokens strictly increase: no two terms have one, and none is granted after a later one.
 *   4. A job that has ended is never deployed again, and its end is recorded once.
 *   6. Checkpoint ids strictly rise over all terms, and recovery uses the newest that has completed.
 */
export function checkLogs(lines: readonly ClusterLine[], jobId: string): string[] {
  const ofJob = lines.filter((line) => line.jobId === jobId);
  return [
    ...rising(
      'fencing token',
      lines.filter((line) => line.msg === 'leadership granted'),
      (line) => BigInt(String(line.token)),
    ),
    ...rising(
      'checkpoint',
      ofJob.filter((line) => line.msg === 'checkpoint completed'),
      (line) => BigInt(String(line.checkpointId)),
    ),
    ...rising('deployment', ofJob.filter(isDeployment), deploymentOrder),
    ...restoredNewest(ofJob),
    ...endedOnce(ofJob),
    ...lines.filter((line) => NEVER.has(line.msg)).map((line) => `${line.process}: ${JSON.stringify(line)}`),
  ];
}

function rising(what: string, lines: readonly ClusterLine[], numberOf: (line: ClusterLine) => bigint): string[] {
  return lines.flatMap((line, i) => {
    const before = lines[i - 1];
    if (before === undefined || numberOf(line) > numberOf(before)) return [];
    return [
      `${what} ${numberOf(line)} of ${line.process} at ${line.time} comes after ${numberOf(before)} of ${before.process} at ${before.time}`,
    ];
  });
}

/** `<token>-<n>`. */
function deploymentOrder(line: ClusterLine): bigint {
  const [token = '0', n = '0'] = String(line.deployment).split('-');
  return BigInt(token) * 1_000_000n + BigInt(n);
}

/** A master that was killed may have completed one more than it could tell: restoring a newer one is right. */
function restoredNewest(ofJob: readonly ClusterLine[]): string[] {
  let newest = 0;
  const problems: string[] = [];
  for (const line of ofJob) {
    if (line.msg === 'checkpoint completed') newest = Math.max(newest, Number(line.checkpointId));
    else if (isDeployment(line) && Number(line.checkpointId ?? 0) < newest) {
      problems.push(`deployment ${line.deployment} began from checkpoint ${line.checkpointId}, but ${newest} was done`);
    }
  }
  return problems;
}

function endedOnce(ofJob: readonly ClusterLine[]): string[] {
  // The JobMaster says so too, before the end is durable: then another may have to end the job again.
  const ends = ofJob.filter((line) => line.msg === 'job ended' && line.component !== 'jobmaster');
  const first = ends[0];
  if (first === undefined) return [];
  const problems = ends.slice(1).map((line) => `${line.process} recorded the end of the job again: ${line.status}`);
  const index = ofJob.indexOf(first);
  for (const line of ofJob.slice(index)) {
    if (isDeployment(line) || line.msg === 'job adopted' || line.msg === 'job submitted')
      problems.push(`${line.process} said "${line.msg}" after the job had ended`);
  }
  return problems;
}
