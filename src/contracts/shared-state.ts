import type { DeploymentId } from '../kernel/ids.ts';

/**
 * Objects of keyed state that several checkpoints may refer to.
 *
 * Their names say which checkpoint wrote them. The stores need no list of who refers to what: an object that
 * a checkpoint did not write itself must be named by a completed one whenever another is completed, and so
 * one that no completed checkpoint names will never be named again.
 */
export interface SharedObjectWriter {
  readonly checkpointId: number;
  readonly deployment: DeploymentId;
}

export const SHARED_FOLDER = 'shared/';

/** To be put behind the prefix of the job's state. `unique` holds no slash. */
export function sharedObjectName({ checkpointId, deployment }: SharedObjectWriter, unique: string): string {
  return `${SHARED_FOLDER}${checkpointId}-${deployment}-${unique}`;
}

const SHARED_NAME = /\/shared\/(\d+)-(\d+-\d+)-[^/]+$/;

/** Undefined for objects that belong to one checkpoint alone. */
export function writerOfSharedObject(objectKey: string): SharedObjectWriter | undefined {
  const found = SHARED_NAME.exec(objectKey);
  if (found === null) return undefined;
  return { checkpointId: Number(found[1]), deployment: found[2] as DeploymentId };
}

export function isWrittenBy(objectKey: string, checkpoint: SharedObjectWriter): boolean {
  const writer = writerOfSharedObject(objectKey);
  return writer?.checkpointId === checkpoint.checkpointId && writer.deployment === checkpoint.deployment;
}
