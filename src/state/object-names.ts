import { SHARED_FOLDER, sharedObjectName, stateObjectName } from '../contracts/state-objects.ts';
import type { JobId } from '../kernel/ids.ts';
import type { SnapshotOptions } from './ports.ts';
import type { StateScope } from './state-backends.ts';

export interface NamedObject extends SnapshotOptions {
  readonly checkpointId: number | undefined;
  /** Whether later checkpoints may refer to it. */
  readonly shared: boolean;
}

/**
 * Names of state objects. The attempt id makes them unique; the rest is for people and for the sweeper,
 * which looks below the job's prefix. The number tells an attempt's snapshots apart, also those of two
 * backends of one operator.
 */
export class ObjectNames {
  private named = 0;

  constructor(private readonly prefixOf: (jobId: JobId) => string) {}

  of(scope: StateScope, kind: 'keyed' | 'operator'): (object: NamedObject) => string {
    const { jobId, deployment, attemptId, operatorId, subtaskIndex } = scope;
    return ({ checkpointId, shared, location }) => {
      const unique = `${attemptId}-${operatorId}-${subtaskIndex}-${kind}-${++this.named}`;
      if (location !== undefined) return `${location}${deployment}-${unique}`;
      const prefix = this.prefixOf(jobId);
      if (checkpointId === undefined) return `${prefix}unnamed/${deployment}-${unique}`;
      const writer = { checkpointId, deployment };
      return prefix + (shared ? sharedObjectName(writer, unique) : stateObjectName(writer, unique));
    };
  }

  isShared(jobId: JobId, objectKey: string): boolean {
    return objectKey.startsWith(this.prefixOf(jobId) + SHARED_FOLDER);
  }
}
