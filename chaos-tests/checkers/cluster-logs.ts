import type { LocalCluster, LogLine } from '../../test-support/local-cluster.ts';
import { logLines } from '../../test-support/local-cluster.ts';

/** A line together with the process that wrote it. */
export interface ClusterLine extends LogLine {
  readonly process: string;
}

/** What all processes have said, those that are dead now included, by time. The clock is that of one machine. */
export function clusterLines(processes: LocalCluster['masters'] | LocalCluster['workers']): ClusterLine[] {
  return processes
    .flatMap((one) => logLines(one.process.log()).map((line) => ({ ...line, process: one.id })))
    .sort((a, b) => a.time - b.time);
}

/** Lines that are no log lines: the stack of an uncaught error, say. */
export function strayLines(processes: LocalCluster['masters'] | LocalCluster['workers']): string[] {
  return processes.flatMap((one) =>
    one.process
      .log()
      .split('\n')
      // A process that was killed may have left half a line.
      .filter((line) => line !== '' && !line.startsWith('{'))
      .map((line) => `${one.id}: ${line}`),
  );
}
