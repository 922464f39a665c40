import type { ClusterLine } from './checkers/cluster-logs.ts';

/**
 * The line of a worker's log with which the last task of a deployment runs; undefined while one does not. Of a job that
 * was deployed in part only those tasks count: one that goes on says that it runs once more when its input ends.
 */
export function runningAgain(
  workers: readonly ClusterLine[],
  deployed: ClusterLine | undefined,
  { jobId, tasks }: { readonly jobId: string; readonly tasks: number },
): ClusterLine | undefined {
  if (deployed === undefined) return undefined;
  const changes = workers.filter(
    (line) => line.time >= deployed.time && line.msg === 'task changed state' && line.jobId === jobId,
  );
  const taskOf = (line: ClusterLine) => `${line.vertexId}/${line.subtaskIndex}`;
  const sent = new Set(changes.filter(({ to }) => to === 'DEPLOYING').map(taskOf));
  const wanted = deployed.msg === 'regions deployed' ? sent.size : tasks;
  const running = new Set<string>();
  return changes.find(
    (line) => line.to === 'RUNNING' && sent.has(taskOf(line)) && running.add(taskOf(line)).size === wanted,
  );
}
