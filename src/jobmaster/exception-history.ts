import type { ExceptionEntry, ExceptionsView } from '../contracts/views.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { TaskManagerId } from '../kernel/ids.ts';

/** As many as Flink shows by default. */
const HISTORY_MAX = 20;
const STACK_MAX = 20_000;

export interface FailurePlace {
  readonly taskName: string | undefined;
  readonly taskManagerId: TaskManagerId | undefined;
  readonly location: string | undefined;
}

/** The failures of one job in this term, newest first, bounded. */
export class ExceptionHistory {
  private entries: readonly ExceptionEntry[] = [];
  private truncated = false;

  record(error: ErrorInfo, place: FailurePlace, wallMs: number): void {
    const hint = error.hint === undefined ? '' : `\nHint: ${error.hint}`;
    const entry: ExceptionEntry = {
      name: error.code,
      message: error.hint === undefined ? error.message : `${error.message} (${error.hint})`,
      // What people are shown, so what to do must be in it.
      stack: (error.stack ?? `${error.code}: ${error.message}`).slice(0, STACK_MAX) + hint,
      timestampMs: wallMs,
      ...place,
    };
    this.truncated ||= this.entries.length >= HISTORY_MAX;
    this.entries = [entry, ...this.entries].slice(0, HISTORY_MAX);
  }

  view(): ExceptionsView {
    return { root: this.entries[0], history: this.entries, truncated: this.truncated };
  }
}
