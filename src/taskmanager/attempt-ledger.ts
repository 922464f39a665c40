import { isTerminalExecutionState } from '../contracts/job-status.ts';
import { type AttemptReport, NO_IO, type SlotDeployment } from '../contracts/task.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type JobId } from '../kernel/ids.ts';

interface Entry {
  readonly report: AttemptReport;
  readonly slotIndex: number;
}

/**
 * Every attempt this worker holds, running or ended: what it tells a new leader.
 *
 * Invariants:
 *   A1. An end is final: nothing that arrives later changes it.
 *   A2. An ended attempt is kept until its job is released, or a newer attempt of its subtask comes here, or its
 *       deployment is over.
 *   A3. A live attempt is never forgotten.
 */
export class AttemptLedger {
  private readonly entries = new Map<AttemptId, Entry>();

  has(attemptId: AttemptId): boolean {
    return this.entries.has(attemptId);
  }

  /** Enters the tasks as DEPLOYING, except those already known; returns the reports of the new ones. */
  accept(deployment: SlotDeployment, slotIndex: number): AttemptReport[] {
    const { jobId, allocationId, deployment: deploymentId } = deployment;
    const accepted: AttemptReport[] = [];
    for (const { attemptId, attemptNumber, vertexId, subtaskIndex } of deployment.tasks) {
      if (this.entries.has(attemptId)) continue;
      const report: AttemptReport = {
        ...{ jobId, deployment: deploymentId, vertexId, subtaskIndex, attemptId, attemptNumber, allocationId },
        state: 'DEPLOYING',
        endOfData: false,
        io: NO_IO,
      };
      this.entries.set(attemptId, { report, slotIndex });
      accepted.push(report);
    }
    return accepted;
  }

  /** Takes a change of state. Returns the new report, or undefined when it says nothing new (A1). */
  record(report: AttemptReport): AttemptReport | undefined {
    const entry = this.entries.get(report.attemptId);
    if (entry === undefined || isTerminalExecutionState(entry.report.state)) return undefined;
    this.entries.set(report.attemptId, { ...entry, report });
    return report;
  }

  /** Takes counters only: what an engine says of its attempts may be older than the last change of state. */
  refresh(report: AttemptReport): void {
    const entry = this.entries.get(report.attemptId);
    if (entry === undefined || isTerminalExecutionState(entry.report.state)) return;
    const endOfData = entry.report.endOfData || report.endOfData;
    const drained = entry.report.drained ?? report.drained;
    const known = { ...entry.report, io: report.io, endOfData, ...(drained === undefined ? {} : { drained }) };
    this.entries.set(report.attemptId, { ...entry, report: known });
  }

  /** Ends one live attempt by decision of the worker, not of its engine. */
  end(attemptId: AttemptId, state: 'CANCELED' | 'FAILED', error?: ErrorInfo): AttemptReport | undefined {
    const entry = this.entries.get(attemptId);
    if (entry === undefined) return undefined;
    return this.record({ ...entry.report, state, ...(error === undefined ? {} : { error }) });
  }

  isLive(attemptId: AttemptId): boolean {
    const entry = this.entries.get(attemptId);
    return entry !== undefined && !isTerminalExecutionState(entry.report.state);
  }

  liveIn(slotIndex: number): AttemptReport[] {
    const live: AttemptReport[] = [];
    for (const { report, slotIndex: slot } of this.entries.values())
      if (slot === slotIndex && !isTerminalExecutionState(report.state)) live.push(report);
    return live;
  }

  /** What this slot has, or had, of the job. */
  allIn(slotIndex: number, jobId: JobId): AttemptReport[] {
    return [...this.entries.values()].flatMap(({ report, slotIndex: slot }) =>
      slot === slotIndex && report.jobId === jobId ? [report] : [],
    );
  }

  slotIndexOf(attemptId: AttemptId): number | undefined {
    return this.entries.get(attemptId)?.slotIndex;
  }

  /** Forgets ended attempts of the job that are of a deployment before `floor`, or not their subtask's newest here (A2). */
  forgetReplaced(jobId: JobId, floor: DeploymentId): void {
    const newest = new Map<string, DeploymentId>();
    for (const { report } of this.entries.values()) {
      if (report.jobId !== jobId) continue;
      const known = newest.get(subtaskOf(report));
      if (known === undefined || compareDeployments(known, report.deployment) < 0)
        newest.set(subtaskOf(report), report.deployment);
    }
    this.forgetEnded(
      (report) =>
        report.jobId === jobId &&
        (compareDeployments(report.deployment, floor) < 0 || newest.get(subtaskOf(report)) !== report.deployment),
    );
  }

  /** Forgets the job's ended attempts. Live ones must be ended first (A3). */
  forgetJob(jobId: JobId): void {
    this.forgetEnded((report) => report.jobId === jobId);
  }

  reports(): AttemptReport[] {
    return [...this.entries.values()].map(({ report }) => report);
  }

  private forgetEnded(match: (report: AttemptReport) => boolean): void {
    for (const [attemptId, { report }] of this.entries)
      if (match(report) && isTerminalExecutionState(report.state)) this.entries.delete(attemptId);
  }
}

export function subtaskOf({ vertexId, subtaskIndex }: Pick<AttemptReport, 'vertexId' | 'subtaskIndex'>): string {
  return `${vertexId}_${subtaskIndex}`;
}
