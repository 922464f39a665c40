import type { DeploymentId } from '../kernel/ids.ts';

/**
 * Names of state objects, behind the prefix of a job's state. They say which checkpoint wrote them.
 *
 * That spares the stores a list of who refers to what. Whenever a checkpoint is completed, an object that it did
 * not write itself must be named by one that is there already; so an object that no completed checkpoint names
 * will never be named again, and may go.
 */
export interface StateObjectWriter {
  readonly checkpointId: number;
  readonly deployment: DeploymentId;
}

/** For objects that later checkpoints may refer to. */
export const SHARED_FOLDER = 'shared/';

/** `unique` holds no slash. */
export function stateObjectName({ checkpointId, deployment }: StateObjectWriter, unique: string): string {
  return `${checkpointId}/${deployment}-${unique}`;
}

export function sharedObjectName(writer: StateObjectWriter, unique: string): string {
  return SHARED_FOLDER + stateObjectName(writer, unique);
}

const NAME = /\/(\d+)\/(\d+-\d+)-[^/]+$/;

/** Undefined for objects that are named otherwise, such as those of savepoints in folders of their own. */
export function writerOfStateObject(objectKey: string): StateObjectWriter | undefined {
  const found = NAME.exec(objectKey);
  if (found === null) return undefined;
  return { checkpointId: Number(found[1]), deployment: found[2] as DeploymentId };
}

/**
 * Whether the name says that another checkpoint wrote it. The id alone tells: it is used once in the life of a job,
 * and tasks of several deployments take part in one checkpoint when regions have begun again by themselves.
 */
export function isBorrowed(objectKey: string, by: Pick<StateObjectWriter, 'checkpointId'>): boolean {
  const writer = writerOfStateObject(objectKey);
  return writer !== undefined && writer.checkpointId !== by.checkpointId;
}
