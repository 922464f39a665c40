import type { JobState } from './job-state.ts';
import { isLive } from './task-states.ts';

/** What the job waits for now, in words; undefined when nothing. */
export function waitingText(
  state: JobState,
  slots: { readonly missing: number; readonly clusterSlots: number } | undefined,
  nowMs: number,
): string | undefined {
  const { phase, tasks, releasing } = state;
  switch (phase.kind) {
    case 'adopting':
      if (phase.reason !== undefined)
        return `its tasks run; trying again to read its checkpoint (failed ${times(phase.failures)}): ${phase.reason}`;
      return `its tasks run; looking for them on the workers (found ${phase.found.size} of ${tasks.length})`;
    case 'restoring':
      return 'reading the newest checkpoint';
    case 'restoreBackoff':
      return `trying again to restore (failed ${times(phase.failures)}): ${phase.reason}`;
    case 'acquiring':
      if (phase.request === undefined)
        return `waiting for ${plural(releasing.size, 'slot')} of an older deployment to end`;
      if (slots === undefined) return `waiting for ${plural(phase.request.count, 'slot')}`;
      return `waiting for ${plural(slots.missing, 'more slot')}; the cluster has ${slots.clusterSlots} in all`;
    case 'executing': {
      const starting = tasks.filter((task) => isLive(task) && task.state !== 'RUNNING' && task.state !== 'CANCELING');
      if (starting.length > 0) return `waiting for ${plural(starting.length, 'task')} to start`;
      const left = tasks.filter(isLive);
      return left.every((task) => task.endOfData) ? 'waiting for the final checkpoint' : undefined;
    }
    case 'stopping': {
      if (phase.wait === 'registering') return 'waiting for workers to show what they still run of this job';
      const live = tasks.filter(isLive).length;
      return live > 0
        ? `waiting for ${plural(live, 'task')} to end`
        : `waiting for ${plural(releasing.size, 'slot')} to be given back`;
    }
    case 'backoff':
      return `restarting in ${Math.max(0, Math.ceil(phase.restartAtMs - nowMs))} ms`;
    case 'ended':
      return undefined;
  }
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}
